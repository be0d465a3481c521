"""A whole run in seconds: it learns, stops, resumes bit for bit, and starts stage 2."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from als.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from als.model import load_checkpoint
from als.training import run
from als.training.data import DetectionData
from als.training.module import DetectorModule, map_statistics
from als.training.run import train

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "toy"
    write_toy(root, images=12, seed=3, size=(64, 80))
    return root


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def config_of(toy: Path, out: Path, epochs: int = 3, **model) -> TrainConfig:
    """6 training images in batches of 2: 3 steps an epoch."""
    network = {
        "classes": TOY_CLASSES,
        "backbone": "mobilenet_v2",
        "weights": None,
        "attention_width": 8,
        "frozen_blocks": 2,
        "pool_size": 3,
        "min_size": 64,
        "max_size": 96,
        "anchor_sizes": (16, 32),
        "rpn_pre_nms_train": 60,
        "rpn_post_nms_train": 20,
        "rpn_post_nms_test": 20,
        "rois_per_image": 16,
    }
    return TrainConfig(
        out=str(out),
        epochs=epochs,
        model=ModelConfig(**(network | model)),
        data=DataConfig(
            root=str(toy),
            train="VOC2012:train",
            batch_size=2,
            min_sizes=(48, 64),
            max_size=96,
            jitter=True,
            workers=0,
        ),
        optimizer=OptimizerConfig(lr=0.01, warmup_steps=2, schedule="cosine"),
    )


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)[0].state_dict()


def assert_same_tensors(one: Path, two: Path) -> None:
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def interrupted_at(step: int, monkeypatch):
    """The next runs stop before their step `step` (counted from 0), as a power cut would do."""
    whole_step = DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            raise RuntimeError("power cut")
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", training_step)


def record_batches(monkeypatch) -> list[tuple[int, list[str], list[tuple[int, ...]]]]:
    """Every step that runs from now on: (step, image ids, image shapes)."""
    seen = []
    whole_step = DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        images, targets = batch
        ids = [target["image_id"] for target in targets]
        seen.append((self.global_step, ids, [round(i.sum().item(), 2) for i in images]))
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", training_step)
    return seen


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


def test_each_epoch_has_its_own_order_and_augmentation(toy, tmp_path, monkeypatch):
    seen = record_batches(monkeypatch)
    train(config_of(toy, tmp_path / "run"), **QUIET)
    epochs = [seen[0:3], seen[3:6], seen[6:9]]
    ids = [[name for _, names, _ in epoch for name in names] for epoch in epochs]
    assert all(len(set(names)) == 6 for names in ids), "an epoch shows every image once"
    assert ids[0] != ids[1] and ids[1] != ids[2]
    pixels = [
        {
            name: value
            for _, names, values in epoch
            for name, value in zip(names, values, strict=True)
        }
        for epoch in epochs
    ]
    assert pixels[0] != pixels[1] and pixels[1] != pixels[2]


@pytest.fixture(scope="module")
def whole_run(toy, tmp_path_factory):
    """An uninterrupted run of 9 steps: its checkpoint and the batches that it saw."""
    with pytest.MonkeyPatch.context() as patch:
        seen = record_batches(patch)
        path = train(config_of(toy, tmp_path_factory.mktemp("runs") / "whole"), **QUIET)
    return path, seen


# With 3 steps an epoch: in the first epoch, at its end (saved by step, saved by epoch), and in
# the middle of a later epoch with a step to do again.
@pytest.mark.parametrize(("save_every", "stop_at"), [(1, 2), (1, 3), (100, 4), (2, 5)])
def test_resumed_run_equals_the_uninterrupted(
    toy, tmp_path, monkeypatch, whole_run, save_every, stop_at
):
    whole, seen_whole = whole_run
    config = config_of(toy, tmp_path / "run")
    monkeypatch.setattr(run, "SAVE_EVERY_STEPS", save_every)
    with monkeypatch.context() as patch:
        interrupted_at(stop_at, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, **QUIET)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    saved_at = max(stop_at // save_every * save_every, stop_at // 3 * 3)
    seen = record_batches(monkeypatch)
    path = train(config, resume=True, **QUIET)
    assert seen == seen_whole[saved_at:]
    assert_same_tensors(path, whole)


def test_twice_interrupted_run_in_a_moved_folder(toy, tmp_path, monkeypatch, whole_run):
    monkeypatch.setattr(run, "SAVE_EVERY_STEPS", 1)
    folders = [tmp_path / "here", tmp_path / "there"]
    for stop_at, folder in zip((2, 7), folders, strict=True):
        with monkeypatch.context() as patch:
            interrupted_at(stop_at, patch)
            with pytest.raises(RuntimeError, match="power cut"):
                train(config_of(toy, folder), resume=True, **QUIET)
        if folder is folders[0]:
            folder.rename(folders[1])
    path = train(config_of(toy, folders[1]), resume=True, **QUIET)
    assert_same_tensors(path, whole_run[0])
    kept = {file.name for file in (folders[1] / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "previous.ckpt"}


def test_step_schedule_resumes_too(toy, tmp_path, monkeypatch):
    def config(name):
        config = config_of(toy, tmp_path / name, epochs=2)
        options = replace(config.optimizer, schedule="step", milestones=(0.5,))
        return replace(config, optimizer=options)

    whole = train(config("whole"), **QUIET)
    monkeypatch.setattr(run, "SAVE_EVERY_STEPS", 1)
    with monkeypatch.context() as patch:
        interrupted_at(2, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config("broken"), **QUIET)
    assert_same_tensors(train(config("broken"), resume=True, **QUIET), whole)


def test_a_run_is_not_overwritten(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", epochs=1)
    train(config, **QUIET)
    with pytest.raises(InputError, match="--resume"):
        train(config, **QUIET)


def test_a_finished_run_resumes_to_the_same_file(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", epochs=1)
    path = train(config, **QUIET)
    before = tensors_of(path)
    train(config, resume=True, **QUIET)
    assert all(torch.equal(before[name], value) for name, value in tensors_of(path).items())


def test_stage_2_starts_where_stage_1_ended(toy, tmp_path, capsys, monkeypatch):
    stage1 = train(config_of(toy, tmp_path / "one", epochs=1, attention=False), **QUIET)
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


def test_loss_that_is_not_finite_stops_and_names_the_images(toy, tmp_path):
    config = config_of(toy, tmp_path / "run")
    config = replace(config, model=replace(config.model, lambda_cls=float("inf")))
    with pytest.raises(InputError, match=r"step 0: .*not finite.*loss_cls.*toy_\d+, toy_\d+"):
        train(config, **QUIET)
    assert not (tmp_path / "run" / "model.safetensors").exists()


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
    detector = run._start(config)
    parts = DetectorModule(detector, config, total_steps=20).configure_optimizers()
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    others, attention = optimizer.param_groups
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


def test_map_statistics_against_numpy():
    generator = torch.Generator().manual_seed(0)
    a_loc, a_cls = torch.rand(2, 3, 1, 5, 7, generator=generator)
    a_cls[1] = 0.4  # a constant map: no spread, no correlation
    found = map_statistics(a_loc, a_cls)
    loc, cls = a_loc.numpy().reshape(3, -1), a_cls.numpy().reshape(3, -1)
    spreads = {
        name: np.mean(np.percentile(x, 95, axis=1) - np.percentile(x, 5, axis=1))
        for name, x in {"loc": loc, "cls": cls}.items()
    }
    correlation = (np.corrcoef(loc[0], cls[0])[0, 1] + np.corrcoef(loc[2], cls[2])[0, 1]) / 3
    assert found["map_loc_mean"].item() == pytest.approx(loc.mean(), abs=1e-6)
    assert found["map_cls_mean"].item() == pytest.approx(cls.mean(), abs=1e-6)
    assert found["map_loc_spread"].item() == pytest.approx(spreads["loc"], abs=1e-6)
    assert found["map_cls_spread"].item() == pytest.approx(spreads["cls"], abs=1e-6)
    assert found["map_correlation"].item() == pytest.approx(correlation, abs=1e-5)


def test_flat_maps_are_told(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("als.training.module.MAP_LOG_STEPS", 1)
    config = config_of(toy, tmp_path / "run", epochs=2)
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-6, warmup_steps=1))
    with pytest.warns(UserWarning, match="cls map is flat"):
        train(config, **QUIET)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_stops_with_its_name_or_is_skipped(tmp_path, capsys, workers):
    root = tmp_path / "data"
    write_toy(root, images=12)
    config = config_of(root, tmp_path / "run", epochs=1)
    config = replace(config, data=replace(config.data, workers=workers))
    split = root / "VOC2012" / "ImageSets" / "Main" / "train.txt"
    broken = root / "VOC2012" / "JPEGImages" / f"{split.read_text().split()[0]}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(InputError) as error:
        train(config, **QUIET)
    assert str(error.value).startswith(str(broken)) and "\n" not in str(error.value)

    skipping = replace(
        config, out=str(tmp_path / "skip"), data=replace(config.data, skip_broken=True)
    )
    train(skipping, **QUIET)
    assert "1 samples could not be read" in capsys.readouterr().out


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


def test_skipped_batches_do_not_shift_a_resumed_run(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_toy(root, images=12, size=(64, 80))
    split = (root / "VOC2012" / "ImageSets" / "Main" / "train.txt").read_text().split()
    broken = root / "VOC2012" / "JPEGImages" / f"{split[1]}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])

    def config(name):
        config = config_of(root, tmp_path / name, epochs=2)
        return replace(config, data=replace(config.data, batch_size=1, skip_broken=True))

    whole = train(config("whole"), **QUIET)
    monkeypatch.setattr(run, "SAVE_EVERY_STEPS", 1)
    with monkeypatch.context() as patch:
        interrupted_at(8, patch)  # in the second epoch: 6 batches an epoch, one of them skipped
        with pytest.raises(RuntimeError, match="power cut"):
            train(config("broken"), **QUIET)
    assert_same_tensors(train(config("broken"), resume=True, **QUIET), whole)
