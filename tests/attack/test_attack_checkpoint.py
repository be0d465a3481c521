"""Checkpoints from strangers: one sentence, and no memory that the file does not fill itself."""

import json
import os
import random
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import CLASSES, lively_detector, random_images, tiny_config

from als.checkpoint import build_detector, load_checkpoint, save_checkpoint
from als.cli import main
from als.config import LIMITS, MOST_CLASSES, ModelConfig
from als.errors import InputError

OFF = {"attention": False, "separation": False}
SSD = {"family": "ssd", "backbone": "mobilenet_v2", "weights": None, "min_size": 96, "max_size": 96}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(lively_detector(0).float().eval(), path, {"epochs": 3})
    return path


def altered(saved: Path, path: Path, tensors: dict | None = None, **metadata: str | None) -> Path:
    """A copy of a checkpoint with other tensors or metadata; None leaves an entry out."""
    with safe_open(saved, framework="pt") as file:
        own = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})
        entries = (file.metadata() | metadata).items()
    save_file(own, path, {key: value for key, value in entries if value is not None})
    return path


def with_config(saved: Path, path: Path, **changes) -> Path:
    config = json.dumps(tiny_config().to_dict() | changes, allow_nan=True)
    return altered(saved, path, config=config)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    told = str(caught.value)
    assert str(path) in told and "\n" not in told and len(told) < 400
    return told


GREEDY = [
    {"attention_width": 15_000},
    {"attention_width": 10**12},
    {"classes": [f"class {k}" for k in range(MOST_CLASSES)]},
    {"classes": [str(k) for k in range(1_000_000)]},
    {"min_size": 6000, "max_size": 6000},
    {"max_size": 10**9},
    {"pool_size": 10_000},
    {"anchor_sizes": list(range(1, 100_000))},
    {"anchor_ratios": [1 + k / 100 for k in range(99)]},
    {"rpn_post_nms_test": 10**9},
    {"detections_per_image": 10**9},
    {"backbone": "resnet101"},
    {"backbone": "vgg16", "pool_size": 7},
    {"family": "rfcn", **OFF, "pool_size": 16, "classes": [str(k) for k in range(MOST_CLASSES)]},
]
LOAD = """
import resource, sys
from als.checkpoint import load_checkpoint
from als.errors import InputError
load_checkpoint(sys.argv[1])  # what is imported late
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 2**20,) * 2)
for path in sys.argv[2:]:
    try:
        load_checkpoint(path)
    except InputError as error:
        print(str(error)[:300])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_config_gets_no_memory_that_its_file_does_not_fill(saved, tmp_path):
    files = [with_config(saved, tmp_path / f"{k}.safetensors", **c) for k, c in enumerate(GREEDY)]
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, saved, *files], capture_output=True, text=True
    )
    assert loaded.stderr == "" and loaded.returncode == 0
    told = loaded.stdout.splitlines()
    assert [line.split(":")[0] for line in told] == [str(file) for file in files]


ODD = [
    *("8", None, True, 8.5, float("nan"), float("inf"), -1, 0, [], {}, "\0", 10**400),
    *([None], [[1]], {"a": 1}, "x" * 1000),
]


@pytest.mark.parametrize("name", list(ModelConfig().to_dict()))
def test_values_of_any_kind_end_in_a_sentence_or_a_network(saved, tmp_path, name):
    path = tmp_path / "odd.safetensors"
    for value in ODD:
        with_config(saved, path, **{name: value})
        try:
            config = load_checkpoint(path)[0].config
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 400
        else:
            kept = getattr(config, name)
            assert kept == value or kept == tuple(value)
            assert name not in LIMITS or isinstance(kept, tuple) or kept == kept


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"config": None}, "config or info is missing"),
        ({"info": None}, "config or info is missing"),
        ({"config": "{"}, "no JSON"),
        ({"config": "[" * 100_000}, "no JSON"),
        ({"config": "3"}, "is no set of options"),
        ({"config": '{"3": 1}'}, "unknown keys"),
        ({"info": "[1]"}, "info is no object"),
        ({"config": "{}"}, "classes is empty"),
    ],
)
def test_config_and_info_that_are_none(saved, tmp_path, metadata, says):
    assert says in refusal(altered(saved, tmp_path / "altered.safetensors", **metadata))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, tmp_path, value):
    name = "roi_heads.cls_score.bias"
    path = altered(saved, tmp_path / "a.safetensors", {name: torch.full((4,), value)})
    assert f"not finite, the first in {name}" in refusal(path)


def test_tensors_of_another_type_or_name_are_named(saved, tmp_path):
    name = "roi_heads.cls_score.bias"
    path = altered(saved, tmp_path / "a.safetensors", {name: torch.zeros(4, dtype=torch.int64)})
    assert f"the first is {name}" in refusal(path)
    path = altered(saved, tmp_path / "b.safetensors", {"a" * 5000: torch.zeros(1)})
    assert "the first is aaa" in refusal(path)


def test_flipped_bytes_of_the_head(saved, tmp_path):
    """Whatever stands there: the network as it was, or a sentence."""
    whole = saved.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    draw = random.Random(0)
    path = tmp_path / "flipped.safetensors"
    refused = 0
    for _ in range(80):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            content[draw.randrange(end)] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40


def test_commands_say_it_too(saved, tmp_path, capsys):
    path = with_config(saved, tmp_path / "greedy.safetensors", attention_width=15_000)
    for arguments in (["predict", path, "a.jpg"], ["export", path], ["ship", path]):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments)])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"als: {path}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"fold_batch_norm": True, "attention_source": "F_loc"},
        {"backbone": "resnet18", "frozen_blocks": 3},
        {"backbone": "convnext_tiny", "pool": "max"},
        {"family": "rfcn", "backbone": "resnet18", "attention_width": 2048, **OFF},
        SSD,
    ],
    ids=lambda changes: f"{changes.get('family', 'als')}-{changes.get('backbone', 'mobilenet')}",
)
def test_a_network_made_of_the_file_alone_is_the_one_saved(tmp_path, changes):
    """Loading makes no random weights: all there is comes from the file, or is no weight."""
    torch.manual_seed(0)
    if changes is SSD:
        config = ModelConfig(classes=CLASSES, **SSD, **OFF)
    else:
        config = tiny_config(**changes)
    detector = build_detector(config).eval()
    path = tmp_path / "model.safetensors"
    save_checkpoint(detector, path)
    loaded, _ = load_checkpoint(path)
    for one, two in zip(detector.named_parameters(), loaded.named_parameters(), strict=True):
        assert one[0] == two[0] and torch.equal(one[1], two[1])
        assert one[1].requires_grad == two[1].requires_grad
    assert not any(buffer.is_meta for buffer in loaded.buffers())
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        for one, two in zip(detector(images), loaded(images), strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one)
    path.write_bytes(b"\0" * path.stat().st_size)  # of a file that is mapped, not copied
    assert all(
        torch.equal(a, b) for a, b in zip(detector.parameters(), loaded.parameters(), strict=True)
    )


@contextmanager
def nobody():
    """As a user who may not read everything."""
    if os.getuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX's users")
def test_a_file_that_may_not_be_read_is_there(saved):
    saved.chmod(0)
    try:
        with nobody():
            told = refusal(saved)
    finally:
        saved.chmod(0o644)
    assert "may not be read" in told and "no such" not in told


def test_limits_hold_what_the_package_ships():
    load_checkpoint("shipped")
