"""What a config and the command line say of a training is taken as it is meant, or refused."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import tiny_config
from training_toys import QUIET, config_of

from als.config import DataConfig, TrainConfig
from als.errors import InputError
from als.training.module import DetectorModule
from als.training.options import read_options
from als.training.train import train


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optimizer:\n  lr: 0.5\noptimizer:\n  momentum: 0.1\n", "optimizer is there twice"),
        ("optimizer:\n  lr: 0.5\n  lr: 0.1\n", "lr is there twice, again in line 3"),
    ],
)
def test_a_name_twice_in_a_config_is_refused(tmp_path, text, told):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        read_options([str(tmp_path / "run.yaml")])


def test_a_tilde_in_a_config_is_the_home_folder(toy, tmp_path, monkeypatch):
    """Of the run all or nothing: half of it lay in a folder named ~."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config = config_of(toy, "~/run", epochs=1, val="VOC2012:val")
    train(config, judge=lambda *given: {"AP50": 0.5}, log_every_n_steps=1, **QUIET)
    run = tmp_path / "home" / "run"
    names = {path.name for path in run.iterdir()}
    assert {"best.safetensors", "model.safetensors", "config.json", "checkpoints"} <= names
    assert len(pd.read_csv(run / "metrics.csv")) == 4 and not (tmp_path / "~").exists()
    assert DataConfig(root="~/data").root == str(tmp_path / "home" / "data")
    start = TrainConfig(start_from="~/a.safetensors", model=tiny_config(weights="~/b.pth"))
    assert start.start_from == str(tmp_path / "home" / "a.safetensors")
    assert start.model.weights == str(tmp_path / "home" / "b.pth")


@pytest.mark.parametrize(("steps", "first"), [(0, 1.0), (2, 1e-3)])
def test_no_warmup_begins_with_the_whole_rate(toy, tmp_path, steps, first):
    config = config_of(toy, tmp_path / "run")
    config = replace(config, optimizer=replace(config.optimizer, warmup_steps=steps))
    module = DetectorModule(torch.nn.Linear(2, 2), config, total_steps=9)
    made = module.configure_optimizers()
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(config.optimizer.lr * first)
