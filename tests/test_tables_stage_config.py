"""What of a config makes another network, and what its comment says of time."""

import re
from dataclasses import asdict, replace

import pytest

from als.errors import InputError
from als.files import write_json
from als.tables.rows import FULL, Data, Stage
from als.tables.stage_config import (
    CONFIGS,
    Settings,
    config_file,
    hours_in_header,
    read_config,
    stage_config,
)
from als.training.same_config import comparable, differences, saved_config
from benchmarks.training_cost import IMAGES

RATE = 10.2e12  # operations a second, which `benchmarks.training_cost` finds for a V100


@pytest.mark.parametrize(
    ("trainer", "batches"),
    [
        ({}, 1),
        ({"devices": 4, "num_nodes": 2}, 8),
        ({"devices": [0, 2], "accumulate_grad_batches": 3}, 6),
        ({"devices": "4", "precision": "bf16-mixed"}, 4),
        ({"devices": "auto"}, 1),
    ],
)
def test_a_training_on_several_devices_counts_by_its_whole_batch(tmp_path, trainer, batches):
    config = read_config(CONFIGS / "paper" / "voc-ssd300.yaml")
    part = replace(config, data=replace(config.data, batch_size=32 // batches))
    write_json(tmp_path / "config.json", asdict(part) | {"trainer": trainer})
    saved = saved_config(tmp_path / "config.json")
    left = ["data.batch_size"] if 32 % batches else []  # 6 processes of 5 images are not 32
    assert differences(saved, comparable(config)) == left


def test_a_training_that_was_cut_short_is_another_one(tmp_path):
    config = read_config(CONFIGS / "paper" / "voc-ssd300.yaml")
    write_json(tmp_path / "config.json", asdict(config) | {"trainer": {"max_steps": 10}})
    saved = saved_config(tmp_path / "config.json")
    assert differences(saved, comparable(config)) == ["trainer"]


@pytest.mark.parametrize(
    "name", ["data.root", "seed", "model.attention", "config", "trainer.max_steps"]
)
def test_what_a_row_is_cannot_be_set(name):
    stage = Stage("compact/als-stage2", Data("a:b", "a:c"), {"model.attention": False}, "x")
    with pytest.raises(InputError, match=f"--set {name}: "):
        stage_config(stage, 0, None, Settings("compact", changes={name: "true"}))


def test_hours_of_a_header_follow_the_epochs():
    stage = FULL["rfcn"].stages[0]
    own = read_config(config_file(stage))
    twice = read_config(config_file(stage), {"epochs": 2 * own.epochs})
    assert hours_in_header(stage, twice) == pytest.approx(2 * hours_in_header(stage, own))


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_hours_in_a_header_are_those_of_its_operations_and_epochs(path):
    head = " ".join(re.findall(r"^# ?(.*)", path.read_text(), re.MULTILINE))
    hours = float(re.search(r"([\d.]+) h of a V100", head)[1])
    operations = 1e9 * float(re.search(r"([\d,]+) GFLOP an image", head)[1].replace(",", ""))
    config = read_config(path)
    # Where not all images of the splits are trained on, the header says how many are.
    told = re.search(r"for (?:SBD's )?([\d,]{5,}) images", head)
    if told:
        images = int(told[1].replace(",", ""))
    else:
        images = sum(IMAGES[part.strip()] for part in config.data.train.split("+"))
    assert hours == pytest.approx(config.epochs * images * operations / RATE / 3600, rel=0.04)
