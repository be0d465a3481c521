"""Config -> Trainer.fit: one run from start or from its last checkpoint to an inference file."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from als.config import TrainConfig
from als.data.voc import Record, fingerprint
from als.errors import InputError
from als.model import build_detector, load_weights, save_checkpoint
from als.training.data import DetectionData
from als.training.module import DetectorModule, Found

Judge = Callable[[Found, list[Record], tuple[str, ...]], dict[str, float]]
SAVE_EVERY_STEPS = 200


def train(
    config: TrainConfig, resume: bool = False, judge: Judge | None = None, **trainer_options
) -> Path:
    """Train as configured and return the inference checkpoint, `<out>/model.safetensors`.

    With `data.val` and a judge each epoch ends with a validation, and the checkpoint that was
    best by AP50 is kept beside the last as `<out>/best.safetensors`.

    Args:
        resume: go on from `<out>/checkpoints/last.ckpt`, in the middle of an epoch too; without
            that file the run starts anew.
        judge: (detections by image id, validation records, classes) -> figures, AP50 among them.
        trainer_options: arguments of lightning's Trainer (devices, num_nodes, precision, ...).

    Raises:
        InputError: data, weights or options cannot be used, or the loss is not finite.
    """
    out = Path(config.out)
    last = out / "checkpoints" / "last.ckpt"
    if last.exists() and not resume:
        raise InputError(f"{out}: holds a run already; pass --resume or choose another --out.")
    L.seed_everything(config.seed, verbose=False)
    data = DetectionData(config)
    if data.problems:
        print(f"{len(data.problems)} broken files are left out; the first: {data.problems[0]}")
    detector = _start(config)
    validates = judge is not None and config.data.val is not None
    trainer = _trainer(config, out, validates, trainer_options)
    total_steps = data.steps_per_epoch // trainer.world_size * config.epochs
    metric = None
    if validates:
        metric = partial(judge, records=data.val_records, classes=config.model.classes)
    module = DetectorModule(detector, config, total_steps, metric)
    trainer.fit(
        module,
        datamodule=data,
        ckpt_path=last if resume and last.exists() else None,
        weights_only=True,
    )
    if module.skipped:
        print(f"{module.skipped} samples could not be read and were skipped")
    info = {
        "data": {"train": config.data.train, "fingerprint": fingerprint(data.train_records)},
        "epochs": config.epochs,
        "seed": config.seed,
    }
    path = out / "model.safetensors"
    if trainer.is_global_zero:
        save_checkpoint(detector, path, info)
        best = out / "checkpoints" / "best.ckpt"
        if metric is not None and best.exists():
            state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
            module.load_state_dict(state)
            save_checkpoint(detector, out / "best.safetensors", info)
    return path


class SaveLast(L.Callback):
    """Saves all that resuming needs, every `SAVE_EVERY_STEPS` steps and after every epoch.

    The file appears whole or not at all. Lightning's ModelCheckpoint is not used: it saves either
    by steps or by epochs, and by way of the system's temporary folder, from where moving the file
    is a copy that can be cut off.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % SAVE_EVERY_STEPS == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        aside = self.path.with_name(self.path.name + ".part")
        trainer.save_checkpoint(aside)  # every process takes part
        if trainer.is_global_zero:
            aside.replace(self.path)


def _start(config: TrainConfig):
    """The detector at step 0: ImageNet weights, or a checkpoint of stage 1 and new attention."""
    detector = build_detector(config.model, pretrained=config.start_from is None)
    if config.start_from is not None:
        new = load_weights(detector, Path(config.start_from))
        print(f"{config.start_from}: {len(new)} tensors are new: {', '.join(new) or 'none'}")
    if config.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    return detector


def _trainer(config: TrainConfig, out: Path, validates: bool, options: dict) -> L.Trainer:
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    callbacks = [SaveLast(out / "checkpoints" / "last.ckpt"), LearningRateMonitor("step")]
    if validates:
        callbacks.append(
            ModelCheckpoint(
                out / "checkpoints",
                filename="best",
                monitor="val_AP50",
                mode="max",
                enable_version_counter=False,
            )
        )
    settings = {
        "max_epochs": config.epochs,
        "gradient_clip_val": config.optimizer.gradient_clip or None,
        "callbacks": callbacks,
        "enable_checkpointing": validates,  # for ModelCheckpoint alone
        "num_sanity_val_steps": 0,
        "logger": [CSVLogger(out, name="logs"), TensorBoardLogger(out, name="tensorboard")],
        "log_every_n_steps": 50,
        "use_distributed_sampler": False,
        "default_root_dir": out,
    }
    return L.Trainer(**(settings | options))
