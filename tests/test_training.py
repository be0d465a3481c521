"""A whole run in seconds: it learns, keeps its best, and starts stage 2."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_toys import QUIET, assert_same_tensors, at_step, config_of, tensors_of

from als.checkpoint import load_checkpoint
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.files import read_json
from als.model import Detector
from als.training import train as training
from als.training.module import DetectorModule
from als.training.train import DetectionData, train

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_loss_falls_and_the_checkpoint_is_usable(toy, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path / "run", epochs=10)
    config = replace(
        config,
        data=replace(config.data, jitter=False, min_sizes=(64,)),
        optimizer=replace(config.optimizer, lr=0.02),
    )
    losses = []
    whole_step = DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        loss = whole_step(self, batch, batch_idx)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(DetectorModule, "training_step", training_step)
    path = train(config, **QUIET)

    assert len(losses) == 30
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:6])
    detector, info = load_checkpoint(path)
    assert path == tmp_path / "run" / "model.safetensors"
    assert detector.config == config.model
    assert info["epochs"] == 10 and info["data"]["train"] == "VOC2012:train"
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["model"]["classes"] == list(TOY_CLASSES) and saved["epochs"] == 10
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 64, 80)])
    assert found.keys() == {"boxes", "labels", "scores"}


def test_stage_2_starts_where_stage_1_ended(toy, tmp_path, capsys, monkeypatch):
    stage1 = train(config_of(toy, tmp_path / "one", epochs=1, model={"attention": False}), **QUIET)
    config = config_of(toy, tmp_path / "two", epochs=1)
    config = replace(config, start_from=str(stage1))
    start = {}

    def on_fit_start(self):
        start.update({n: t.clone() for n, t in self.detector.state_dict().items()})

    monkeypatch.setattr(DetectorModule, "on_fit_start", on_fit_start)
    path = train(config, **QUIET)

    assert "12 tensors are new" in capsys.readouterr().out
    ended = tensors_of(stage1)
    assert all(torch.equal(start[name], tensor) for name, tensor in ended.items())
    assert {name.split(".")[0] for name in start.keys() - ended.keys()} == {
        "attention_loc",
        "attention_cls",
    }
    after = tensors_of(path)
    assert not torch.equal(after["attention_loc.0.weight"], start["attention_loc.0.weight"])
    assert not torch.equal(after["roi_heads.cls_score.weight"], ended["roi_heads.cls_score.weight"])


def test_loss_that_is_not_finite_stops_and_names_the_images(toy, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path / "run")
    endless = float("inf")
    monkeypatch.setattr(Detector, "total_loss", lambda self, losses: losses["loss_cls"] * endless)
    with pytest.raises(InputError, match=r"step 0: .*not finite.*loss_cls.*toy_\d+, toy_\d+"):
        train(config, **QUIET)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_ends_when_its_time_is_over(toy, tmp_path, monkeypatch):
    at_step(1, lambda: time.sleep(1), monkeypatch)
    path = train(config_of(toy, tmp_path / "run"), max_time="00:00:00:01", **QUIET)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] <= 2 and path.exists()
    assert (
        read_json(tmp_path / "run" / "config.json")["trainer"]
        == {"max_time": "00:00:00:01"} | QUIET
    )
    with pytest.raises(InputError, match="trainer: .*an hour.* is not a valid duration"):
        train(config_of(toy, tmp_path / "other"), max_time="an hour", **QUIET)


def test_a_drop_within_the_warm_up_comes_after_it(toy, tmp_path):
    config = config_of(toy, tmp_path / "run")
    options = replace(config.optimizer, schedule="step", warmup_steps=4, milestones=(0.1,))
    config = replace(config, optimizer=options)
    module = DetectorModule(training._start(config), config, total_steps=20)
    parts = module.configure_optimizers()
    rates = []
    for _ in range(8):
        rates.append(parts["optimizer"].param_groups[0]["lr"] / options.lr)
        parts["optimizer"].step()
        parts["lr_scheduler"]["scheduler"].step()
    assert rates[3] < rates[4] == pytest.approx(1) and rates[5:] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_learning_rates_follow_the_schedule(toy, tmp_path, schedule):
    config = config_of(toy, tmp_path / "run")
    options = replace(
        config.optimizer,
        schedule=schedule,
        warmup_steps=4,
        attention_lr_factor=5,
        milestones=(0.5,),
    )
    config = replace(config, optimizer=options)
    detector = training._start(config)
    parts = DetectorModule(detector, config, total_steps=20).configure_optimizers()
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    assert isinstance(optimizer, torch.optim.SGD)
    others, attention = optimizer.param_groups
    assert others["weight_decay"] == attention["weight_decay"] == options.weight_decay
    assert set(attention["params"]) == {
        *detector.attention_loc.parameters(),
        *detector.attention_cls.parameters(),
    }
    assert len(others["params"]) + len(attention["params"]) == sum(
        parameter.requires_grad for parameter in detector.parameters()
    )
    rates = []
    for _ in range(20):
        rates.append(others["lr"])
        assert attention["lr"] == pytest.approx(5 * others["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(1e-5) and rates[4] == pytest.approx(0.01)
    assert rates[2] == pytest.approx(0.01 * (1e-3 + 0.999 / 2))
    if schedule == "cosine":
        expected = [0.005 * (1 + np.cos(np.pi * step / 16)) for step in range(16)]
        assert rates[4:] == pytest.approx(expected)
    else:
        assert rates[4:10] == pytest.approx([0.01] * 6)
        assert rates[10:] == pytest.approx([0.001] * 10)


def test_training_needs_objects(toy, tmp_path):
    config = config_of(toy, tmp_path / "run")
    records = DetectionData(config).train_records
    assert all((~record.difficult).any() for record in records) and len(records) == 6
    config = replace(config, model=replace(config.model, classes=("hexagon",)))
    with pytest.raises(InputError, match="hexagon"):
        train(config, **QUIET)


def test_validation_keeps_the_best_checkpoint(toy, tmp_path):
    """Judged by a figure that falls after the first epoch, best is the first epoch's."""
    figures = iter([0.5, 0.2, 0.1])
    seen = []

    def judge(found, records, classes):
        seen.append(sorted(found) == sorted(record.image_id for record in records))
        return {"AP50": next(figures)}

    config = config_of(toy, tmp_path / "run", epochs=3)
    config = replace(config, data=replace(config.data, val="VOC2012:val"))
    last = train(config, judge=judge, **QUIET)
    best = tmp_path / "run" / "best.safetensors"
    assert seen == [True, True, True]
    assert best.exists()
    with pytest.raises(AssertionError):
        assert_same_tensors(best, last)
    assert [load_checkpoint(path)[1]["epochs"] for path in (best, last)] == [1, 3]


def test_a_run_cut_short_says_what_it_saw(toy, tmp_path):
    path = train(config_of(toy, tmp_path, epochs=3), max_steps=4, **QUIET)
    assert load_checkpoint(path)[1]["epochs"] == 1.33


def test_the_optimizer_and_the_augmentation_are_those_of_the_config(toy, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path, augmentation="crop", jitter=True, workers=0)
    config = replace(config, optimizer=replace(config.optimizer, name="adamw", weight_decay=0.03))
    module = DetectorModule(training._start(config), config, total_steps=5)
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.03}
    data = DetectionData(config)
    data.trainer = SimpleNamespace(
        world_size=1, global_rank=0, fit_loop=SimpleNamespace(total_batch_idx=-1)
    )
    steps = [type(step).__name__ for step in data.train_dataloader().dataset.transform.transforms]
    expected = ["TakePhoto", "RandomHorizontalFlip", "RandomZoomOut", "RandomApply"]
    assert steps[:6] == [*expected, "ShareShortestSize", "RandomPhotometricDistort"]
