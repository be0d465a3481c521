"""A training in seconds on the toy data: its config, and what tests do to a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from als.checkpoint import load_checkpoint
from als.config import DataConfig, OptimizerConfig, TrainConfig
from als.data.toy import TOY_CLASSES
from als.training import train as training
from als.training.module import DetectorModule

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def config_of(
    root: Path, out: Path, epochs: int = 3, model: dict | None = None, **data
) -> TrainConfig:
    """6 training images of the fixture `toy` in batches of 2: 3 steps an epoch."""
    options = {"train": "VOC2012:train", "batch_size": 2, "min_sizes": (48, 64), "max_size": 96}
    options |= {"jitter": True, "workers": 0} | data
    return TrainConfig(
        out=str(out),
        epochs=epochs,
        model=tiny_config(**({"classes": TOY_CLASSES} | (model or {}))),
        data=DataConfig(root=str(root), **options),
        optimizer=OptimizerConfig(lr=0.01, warmup_steps=2, schedule="cosine"),
    )


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)[0].state_dict()


def assert_same_tensors(one: Path, two: Path) -> None:
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def at_step(step: int, action, monkeypatch) -> None:
    """The next runs do `action()` before their step `step`, counted from 0."""
    whole_step = DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            action()
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", training_step)


class PowerCut(Exception):
    """Ends a run as a kill would."""


@contextmanager
def power_cut(step: int, monkeypatch, save_every: int = 1) -> Iterator[None]:
    """The run within ends before its step `step`, counted from 0; saved every so many steps."""

    def cut():
        raise PowerCut

    monkeypatch.setattr(training, "SAVE_EVERY_STEPS", save_every)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        at_step(step, cut, patch)
        yield


def break_image(root: Path, place: int) -> Path:
    """Cut off the image at a place of the split `train`, and give its path."""
    split = root / "VOC2012" / "ImageSets" / "Main" / "train.txt"
    broken = root / "VOC2012" / "JPEGImages" / f"{split.read_text().split()[place]}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    return broken
