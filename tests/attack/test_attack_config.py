"""Odd configs and options: one sentence and status 2, or they work; nothing is reset in silence."""

import random
import resource
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from als.cli import main
from als.config import LIMITS, DataConfig, OptimizerConfig, TrainConfig, TrainerConfig
from als.errors import InputError
from als.training.options import read_options

BASE = Path(__file__).parents[2] / "configs" / "compact-stage1.yaml"
FULL = yaml.safe_load(BASE.read_text())


def refusal(*arguments: str, most: int = 420) -> str:
    with pytest.raises(InputError) as caught:
        read_options(list(arguments))
    told = str(caught.value)
    assert "\n" not in told and len(told) <= most
    return told


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--epochs=-1", "epochs -1: give a whole number from 1"),
        ("--epochs=0", "epochs 0"),
        ("--seed=-1", "seed -1: give a whole number from 0 to 4294967295"),
        ("--optimizer.lr=-1", "lr -1"),
        ("--optimizer.lr=.nan", "lr nan"),
        ("--optimizer.lr=nan", "nan"),
        ("--optimizer.lr=.inf", "lr inf"),
        ("--data.workers=-1", "workers -1"),
        ("--data.batch_size=0", "batch_size 0: give a whole number from 1"),
        ("--data.min_sizes=[]", "min_sizes: give a list"),
        ("--data.min_sizes=[0]", "min_sizes 0"),
        ("--model.anchor_sizes=[]", "anchor_sizes: give a list"),
        ("--model.anchor_ratios=[.nan]", "anchor_ratios nan"),
        ("--model.nms_threshold=.nan", "nms_threshold nan"),
        ("--model.roi_positive_fraction=7", "roi_positive_fraction 7"),
        ("--model.min_size=6000", "min_size 6000"),
        ("--trainer.accumulate_grad_batches=0", "accumulate_grad_batches 0"),
        ("--trainer.log_every_n_steps=0", "log_every_n_steps 0"),
        ("--trainer.precision=bf16-true", "bf16-true is none of ["),
        ("--trainer.barebones=true", "unrecognized arguments: --trainer.barebones"),
        ("--trainer.limit_train_batches=0.1", "unrecognized arguments: --trainer.limit_train"),
        ("--model=null", "model"),
        ("--data=3", "data"),
        ("--trainer=3", "trainer"),
        ("--data.root=a\0b", "root"),
    ],
)
def test_an_option_out_of_its_limits_is_named(option, says):
    assert says in refusal(option, most=150)
    assert str(BASE) in refusal(str(BASE), option)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat,person", ("cat", "person")),
        ("[cat, person]", ("cat", "person")),
        ("[yes, no]", ("yes", "no")),
        ("[1, 2]", ("1", "2")),
        ('["yes", off]', ("yes", "off")),
        ("[1.0, null, 0x10]", ("1.0", "null", "0x10")),
        ("[traffic light]", ("traffic light",)),
        ('["salt, pepper", yes]', ("salt, pepper", "yes")),
        ('["caf\\u00e9", 1]', ("café", "1")),
        ("[no, dogs']", ("no", "dogs'")),
        ("[yes, 1]", ("yes", "1")),
    ],
)
def test_class_names_are_what_is_written(tmp_path, given, names):
    config, _, _ = read_options([f"--model.classes={given}"])
    assert config.model.classes == names
    for text in (f"model:\n  classes: {given}\n", f"model.classes: {given}\n"):
        (tmp_path / "run.yaml").write_text(text)
        assert read_options([str(tmp_path / "run.yaml")])[0].model.classes == names


@pytest.mark.parametrize(
    "given", ["cat", "{a: b}", "[cat, cat]", "cat,", "[" + "a" * 500 + "]", "3", "null"]
)
def test_no_class_names_are_told_shortly(given):
    assert refusal(f"--model.classes={given}", most=150).startswith("classes: ")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BROKEN = {
    "section 3": "model: 3",
    "section null": "optimizer: null",
    "section list": "data: []",
    "section file": "trainer: other.yaml",
    "bomb": BOMB,
    "deep list": "[" * 20_000,
    "deep map": "{a: " * 5000,
    "no map": "3",
    "empty": "",
    "zero byte": "\0",
    "object": "model: {pool: !!python/object/apply:os.system [true]}",
    "two documents": "--- \nseed: 1\n---\nseed: 2",
    "list as key": "? [a]\n: 3",
    "number as key": "model: {3: 4}",
    "class": "trainer: {strategy: {class_path: antigravity.x}}",
    "subclass": "model: {class_path: os.system, init_args: {n: 3}}",
    "itself": "config: run.yaml",
    "digits": "epochs: " + "9" * 5000,
    "huge": "seed: 1e400",
    "name over two lines": 'model: {classes: ["a\\nb"]}',
    "long": "out: " + "a" * 110_000,
    "tag": "!!binary aaaa",
    "cut off": "model: [",
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_config_is_one_sentence(tmp_path, kind, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(BROKEN[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as jsonargparse warns of what it imports
        assert str(path) in refusal(str(path))
    with pytest.raises(SystemExit) as stop:
        main(["train", str(path)])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_config_of_other_bytes_or_none_at_all(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00model")
    for path in (tmp_path / "run.yaml", tmp_path, tmp_path / "none.yaml", "/dev/null"):
        assert str(path) in refusal(str(path))
    refusal("--config")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_AS")
def test_an_alias_bomb_takes_no_memory(tmp_path):
    (tmp_path / "run.yaml").write_text(BOMB)

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    script = "from als.training.options import read_options; import sys; read_options(sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "run.yaml"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=60,
    )
    assert "InputError" in ended.stderr and "alias" in ended.stderr.splitlines()[-1]


VALUES = [
    *(3, -1, 0, 1e400, float("nan"), True, None, "", "x", "\0", [], [[]], {}, {"a": 1}, 10**30),
    *(
        2,
        0.5,
        False,
        "voc",
        300,
        ["cat"],
        [1, "x"],
        "[",
        "2020-01-01",
        "0o17",
        "null",
        [0] * 200,
        "é" * 300,
    ),
]


def mutated(draw: random.Random) -> dict:
    config = yaml.safe_load(BASE.read_text())
    for _ in range(draw.choice((1, 1, 2, 4))):
        section = draw.choice((config, config["model"], config["data"], config["optimizer"]))
        if not isinstance(section, dict):
            continue
        name = draw.choice([*section, "trainer", "attention", "weights", "out", "lr", "val", "x"])
        section[name] = draw.choice(VALUES)
        if any(not isinstance(config.get(s), dict) for s in ("model", "data", "optimizer")):
            break
    return config


def within_limits(config: TrainConfig, trainer: TrainerConfig) -> bool:
    parts = (config, config.model, config.data, config.optimizer, trainer)
    values = {k: v for part in parts for k, v in asdict(part).items() if k in LIMITS}
    return all(
        LIMITS[name][0] <= one <= LIMITS[name][1]
        for name, value in values.items()
        for one in (value if isinstance(value, tuple) else [value])
        if isinstance(one, int | float)
    )


def test_mutated_configs_end_in_a_sentence_or_within_limits(tmp_path):
    draw, refused, taken = random.Random(0), 0, 0
    path = tmp_path / "run.yaml"
    for _ in range(80):
        config = mutated(draw)
        path.write_text(yaml.safe_dump(config))
        try:
            found, trainer, _ = read_options([str(path)])
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            refused += 1
        else:
            assert within_limits(found, trainer)
            kept = config["model"].get("classes")
            assert found.model.backbone == config["model"].get("backbone", "resnet101")
            assert not isinstance(kept, list) or found.model.classes == tuple(map(str, kept))
            taken += 1
    assert refused > 20 and taken > 0


def test_values_are_checked_from_python_too():
    for kind, name, value in (
        (OptimizerConfig, "lr", float("nan")),
        (OptimizerConfig, "momentum", "0.9"),
        (DataConfig, "workers", True),
        (DataConfig, "min_sizes", 600),
        (DataConfig, "augmentation", "twist"),
        (TrainConfig, "model", 3),
        (TrainConfig, "epochs", 1.5),
        (TrainerConfig, "devices", [0.5]),
    ):
        with pytest.raises(InputError, match=name):
            kind(**{name: value})
    assert OptimizerConfig(milestones=[]).milestones == ()
    assert TrainerConfig(devices=[0, 1], num_nodes=None).given() == {"devices": [0, 1]}
