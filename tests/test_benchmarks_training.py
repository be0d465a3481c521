"""What the measurements of a training judge by: differences put there, and by hand."""

import mmap
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import lively_detector

from als.checkpoint import load_checkpoint, save_checkpoint
from benchmarks import reliability, training_options
from benchmarks.networks import random_batch
from benchmarks.timing import Spread, resident_megabytes


@pytest.fixture
def runs(tmp_path):
    """Two finished runs that are equal, as far as `kill_resume` looks at them."""
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "checkpoints").mkdir(parents=True)
    for name in ("model", "best"):
        save_checkpoint(lively_detector().float(), one / f"{name}.safetensors")
    momenta = [{"state": {0: {"momentum_buffer": torch.arange(3.0)}}}]
    state = {"state_dict": {"weight": torch.ones(2)}, "optimizer_states": momenta}
    state |= {"lr_schedulers": [{"last_epoch": 7}], "global_step": 7, "epoch": 1}
    torch.save(state, one / "checkpoints" / "last.ckpt")
    (one / "metrics.csv").write_text("step,loss\n0,1.5\n")
    shutil.copytree(one, two)
    return one, two


def test_a_difference_of_one_bit_is_named(runs):
    one, two = runs
    assert reliability.differences(one, two) == []
    (two / "metrics.csv").write_text("step,loss\n0,1.5000000000000002\n")
    last = two / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    buffer = state["optimizer_states"][0]["state"][0]["momentum_buffer"]
    buffer[2] = torch.nextafter(buffer[2], torch.tensor(9.0))
    state["lr_schedulers"][0]["last_epoch"] = 8
    torch.save(state, last)
    detector, _ = load_checkpoint(two / "best.safetensors")
    with torch.no_grad():
        bias = detector.roi_heads.cls_score.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    save_checkpoint(detector, two / "best.safetensors")
    assert reliability.differences(one, two) == [
        "best.safetensors",
        "last.ckpt: optimizer_states",
        "last.ckpt: lr_schedulers",
        "metrics.csv",
    ]


def test_memory_is_flat_or_not_by_hand():
    # The first epochs, in which caches fill, do not count: 100 MB stay 100 MB.
    filled = reliability.judge([10.0, 50.0, 100.0, 100.0, 100.0, 100.0])
    assert filled["flat"] and filled["growth"] == pytest.approx(0)
    # A megabyte an epoch on a hundred, over ten epochs: a tenth.
    leak = reliability.judge([95.0 + epoch for epoch in range(10)])
    assert not leak["flat"] and leak["megabytes_an_epoch"] == pytest.approx(1)
    assert leak["growth"] == pytest.approx(10 / 102)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux' /proc")
def test_resident_memory_is_read():
    before = resident_megabytes()
    held = mmap.mmap(-1, 50 * 2**20)  # of the system, not of what torch has freed before
    np.frombuffer(held, np.uint8)[:] = 1
    assert resident_megabytes() - before == pytest.approx(50, abs=10)
    assert resident_megabytes(2**22 + 1) == 0.0  # beyond the largest number of a process


def test_a_turned_image_keeps_its_boxes_and_map():
    images, targets = random_batch(2, 48, 3, "cpu")
    (turned, plain), (target, other) = training_options.mixed((images, targets))
    assert turned.shape == (3, 64, 48) and plain.shape == (3, 48, 64)
    assert other is targets[1] and target["object_map"].shape == (64, 48)
    x1, y1, x2, y2 = targets[0]["boxes"][0].round().int().tolist()
    a1, b1, a2, b2 = target["boxes"][0].round().int().tolist()
    assert torch.equal(turned[:, b1:b2, a1:a2], images[0][:, y1:y2, x1:x2].transpose(1, 2))


@pytest.mark.parametrize(("high", "verdict"), [(0.94, "yes"), (0.96, "no")])
def test_an_option_pays_if_it_does_in_every_round(high, verdict):
    seconds = Spread(1.0, 0.9, 1.1)
    row = {"option": "compile", "plain_seconds": seconds, "seconds": seconds}
    row |= {"ratio": Spread(0.8, 0.7, high), "plain_megabytes": None, "megabytes": None}
    assert training_options.row_text(row).endswith(f"| {verdict} |")
