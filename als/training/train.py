"""Config -> data, Trainer.fit -> inference file: one run from start or from its last checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback, Timer
from torch import nn
from torch.utils.data import DataLoader

from als.checkpoint import build_detector, load_weights, save_checkpoint
from als.config import TrainConfig, TrainerConfig
from als.data.dataset import DetectionDataset, collate
from als.data.derived_masks import opencv
from als.data.layouts import load_records
from als.data.record import Problem, Record, fingerprint
from als.data.sampler import AspectBatchSampler, repeat_factors
from als.data.transforms import as_photo, ssd_transforms, training_transforms
from als.errors import InputError
from als.evaluation.evaluate import judge_by_id
from als.files import write_json
from als.machine import machine
from als.training.log import LogFigures, logger_of
from als.training.module import DetectorModule, FoundById
from als.training.same_config import check_resumes
from als.training.saving import (
    LAST,
    Best,
    SaveLast,
    WholeFiles,
    failures_in_a_sentence,
    ignore_interrupts,
    interrupts_put_back,
    newest_checkpoint,
    say,
)

Judge = Callable[[FoundById, list[Record], tuple[str, ...]], dict[str, float]]
SAVE_EVERY_STEPS = 200
COMPILED = {"trunk", "roi_heads.conv5_cls", "roi_heads.conv5_loc"}
COMPILED |= {"roi_heads.conv5", "ssd.backbone"}  # of R-FCN, of SSD


class DetectionData(L.LightningDataModule):
    """Records of `config.data`, checked when this is made and loaded in workers.

    Attributes:
        train_records, val_records: what is trained and validated on (`val_records` may be empty).
        problems: the broken files that were left out, if `skip_broken` allows it.

    Raises:
        InputError: an annotation is broken (unless `skip_broken`), or nothing is left to train on.
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.config = config
        self.problems: list[Problem] = []
        if config.data.masks == "boxes":
            opencv()  # it is missed now, not in a loading process
        train = self._load(config.data.train)
        self.train_records = [r for r in train if not r.difficult.all()]
        if config.data.only_with_masks:
            self.train_records = [r for r in self.train_records if r.mask is not None]
            if not self.train_records:
                raise InputError(
                    f"data.only_with_masks: no image of '{config.data.train}' has a mask; add the "
                    "folder SBD or SegmentationClass, or leave the option out."
                )
        self.val_records = self._load(config.data.val) if config.data.val else []

    def _load(self, spec: str):
        data, classes = self.config.data, self.config.model.classes
        on_error = self.problems.append if data.skip_broken else None
        return load_records(spec, Path(data.root), classes, on_error)

    def train_sampler(self, trainer: L.Trainer) -> AspectBatchSampler:
        """The batches of this process; its length is that of every epoch."""
        rare = self.config.data.repeat_threshold
        return AspectBatchSampler(
            self.train_records,
            self.config.data.batch_size,
            self.config.seed,
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
            repeats=repeat_factors(self.train_records, rare) if rare else None,
        )

    def train_dataloader(self) -> DataLoader:
        data = self.config.data
        sampler = self.train_sampler(self.trainer)
        # A resumed run stands where its batches say, which a skipped batch counts among too.
        # Lightning's counts within the epoch are put right only after it asked for this loader.
        done = self.trainer.fit_loop.total_batch_idx + 1
        epoch, sampler.skip_batches = divmod(done, len(sampler))
        sampler.set_epoch(epoch)
        if data.augmentation == "ssd":
            transform = ssd_transforms(data.max_size)
        else:
            crop = data.augmentation == "crop"
            transform = training_transforms(data.min_sizes, data.max_size, data.jitter, crop)
        derived = Path(self.config.out) / "masks" if data.masks == "boxes" else None
        return self._loader(self.train_records, transform, sampler, derived)

    def val_dataloader(self) -> DataLoader | list:
        if not self.val_records:
            return []
        sampler = AspectBatchSampler(
            self.val_records,
            self.config.data.batch_size,
            seed=0,
            shuffle=False,
            num_replicas=self.trainer.world_size,
            rank=self.trainer.global_rank,
            drop_last=False,
        )
        transform = partial(as_photo, self.config.model.max_size)
        return self._loader(self.val_records, transform, sampler)

    def _loader(self, records, transform, sampler, derived=None) -> DataLoader:
        data = self.config.data
        dataset = DetectionDataset(
            *(records, self.config.model.classes, transform),
            *(data.skip_broken, data.keep_decoded, derived),
        )
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=data.workers,
            worker_init_fn=ignore_interrupts,
            persistent_workers=data.workers > 0,
        )


def train(
    config: TrainConfig,
    resume: bool = False,
    judge: Judge = judge_by_id,
    callbacks: Sequence[L.Callback] = (),
    **trainer_options,
) -> Path:
    """Train as configured and return the inference checkpoint, `<out>/model.safetensors`.

    With `data.val` each epoch ends with a validation, and the checkpoint that was best by AP50
    is kept beside the last as `<out>/best.safetensors`.

    Args:
        resume: go on from the newest whole checkpoint in `<out>/checkpoints`, in the middle of an
            epoch too; without one the run starts anew, unless its model is there.
        judge: (detections by image id, validation records, classes) -> figures, AP50 among them.
        callbacks: of lightning, added to the run's own.
        trainer_options: as `TrainerConfig` takes them (devices, num_nodes, precision, ...).

    Raises:
        InputError: data, weights or options cannot be used, the run that is to go on had another
            config or batch, the loss is not finite, `out` cannot be written (the checkpoint before
            stays as it was), or a worker died.
        SystemExit: SIGTERM or Ctrl-C came and the run is saved; its status is 143 or 130.
    """
    if not config.model.classes:
        raise InputError("model.classes is empty; give a config, or name the classes to detect.")
    out = Path(config.out)
    options = TrainerConfig(**trainer_options).given()
    with failures_in_a_sentence(out):
        start = newest_checkpoint(out / "checkpoints") if resume else None
        if not resume and any((out / "checkpoints").glob("*.ckpt")):
            raise InputError(f"{out}: holds a run already; pass --resume or choose another --out.")
        if start is not None:
            check_resumes(config, out / "config.json")
        elif (out / "model.safetensors").exists():  # its checkpoints were removed, to spare disk
            raise InputError(f"{out}: holds the model of a finished run; choose another --out.")
        L.seed_everything(config.seed, verbose=False)
        data = DetectionData(config)
        if data.problems:
            say(f"{len(data.problems)} broken files are left out; the first: {data.problems[0]}")
        detector = _start(config, resumes=start is not None)
        path, first_step = start or (None, 0)
        trainer = _trainer(config, out, first_step, callbacks, options)
        metric = partial(_judged, data=data, judge=judge) if config.data.val else None
        module = DetectorModule(detector, config, _total_steps(config, data, trainer), metric)
        with interrupts_put_back():
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        info = {
            "data": {"train": config.data.train, "fingerprint": fingerprint(data.train_records)},
            "epochs": _epochs(trainer.global_step, module, config),
            "seed": config.seed,
            "time": _time(config, trainer),
            "machine": machine(),
        }
        if trainer.is_global_zero:
            save_checkpoint(detector, out / "model.safetensors", info)
            best = out / "checkpoints" / "best.ckpt"
            if metric is not None and best.exists():
                state = torch.load(best, map_location="cpu", weights_only=True)
                module.load_state_dict(state["state_dict"])
                info["epochs"] = _epochs(state["global_step"], module, config)
                save_checkpoint(detector, out / "best.safetensors", info)
        return out / "model.safetensors"


def _epochs(steps: int, module: DetectorModule, config: TrainConfig) -> int | float:
    """What was seen until a step, which may lie within an epoch."""
    seen = config.epochs * steps / module.total_steps
    return int(seen) if seen.is_integer() else round(seen, 2)


def _time(config: TrainConfig, trainer: L.Trainer) -> dict[str, float]:
    """Hours of training, all resumptions together, and training images a second."""
    timer = next(c for c in trainer.callbacks if isinstance(c, Timer))
    seconds = timer.time_elapsed("train")
    batches = trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size
    images = batches * config.data.batch_size
    return {"hours": seconds / 3600, "images_per_second": images / max(seconds, 1e-9)}


def _judged(found: FoundById, data: DetectionData, judge: Judge) -> dict[str, float]:
    """The figures of a validation, without the images that were broken and may be skipped."""
    records, config = data.val_records, data.config
    if config.data.skip_broken:
        records = [record for record in records if record.image_id in found]
        if left_out := len(data.val_records) - len(records):
            say(f"{left_out} validation images could not be read and are left out")
    return judge(found, records, config.model.classes)


def _total_steps(config: TrainConfig, data: DetectionData, trainer: L.Trainer) -> int:
    """Optimiser steps of the run; an epoch's last step may accumulate fewer batches."""
    batches = len(data.train_sampler(trainer))
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches:
        raise InputError(
            f"trainer.val_check_interval {interval}: an epoch has {batches} batches; give at most "
            "that, or a share of it from 0 to 1."
        )
    return -(-batches // trainer.accumulate_grad_batches) * config.epochs


def _start(config: TrainConfig, resumes: bool = False):
    """The detector at step 0: ImageNet weights, or a checkpoint of stage 1 and new attention.

    Where the run's own checkpoint follows neither is read: it may be gone by now.
    """
    detector = build_detector(config.model, pretrained=config.start_from is None and not resumes)
    if config.start_from is not None and not resumes:
        new = load_weights(detector, config.start_from)
        say(f"{config.start_from}: {len(new)} tensors are new: {', '.join(new) or 'none'}")
    if config.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    if config.compile:
        compile_convolutions(detector)
    return detector


def compile_convolutions(detector: nn.Module) -> None:
    """torch.compile of trunk and semantic layers, in place: names of tensors stay as they are.

    Of R-FCN these are trunk and dilated conv5, of MR-CNN trunk and the modules of its regions, of
    SSD all layers up to its maps.
    """
    for name, part in detector.named_modules():
        if name in COMPILED:
            part.compile()


def _trainer(
    config: TrainConfig,
    out: Path,
    first_step: int,
    callbacks: Sequence[L.Callback],
    options: dict[str, Any],
) -> L.Trainer:
    settings = {
        "max_epochs": config.epochs,
        "gradient_clip_val": config.optimizer.gradient_clip or None,
        "plugins": [WholeFiles()],
        "enable_checkpointing": bool(config.data.val),  # for ModelCheckpoint alone
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 50,
        "use_distributed_sampler": False,
        "default_root_dir": out,
    }
    settings |= options
    settings["logger"] = logger_of(options.get("logger"), out, first_step)
    checkpoints = out / "checkpoints"
    try:
        own: list[L.Callback] = [
            # In this order: a checkpoint finds the figures of its step written.
            LogFigures(out / "metrics.csv", first_step),
            Timer(settings.pop("max_time", None)),  # counts on after a resumption; the only one
            SaveLast(checkpoints / LAST, SAVE_EVERY_STEPS),  # knows whether the time is over
            # Once the checkpoint is accepted: a run that is refused stays described as it was.
            LambdaCallback(on_train_start=partial(_write_config, config, out, options)),
        ]
        if config.data.val:
            own.append(
                Best(
                    checkpoints,
                    filename="best",
                    monitor="val_AP50",
                    mode="max",
                    enable_version_counter=False,
                    # Else it comes after SaveLast, whose checkpoint would not know the best so far.
                    save_on_train_epoch_end=False,
                )
            )
        settings["callbacks"] = [*own, *callbacks]
        trainer = L.Trainer(**settings)
        if options.get("logger") in ("wandb", "mlflow"):  # which show runs by their options
            trainer.logger.log_hyperparams(asdict(config))
    except Exception as error:  # no such accelerator here, too many devices, ...
        told = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"trainer: {told}; change the options of the trainer.") from error
    return trainer


def _write_config(
    config: TrainConfig, out: Path, options: dict[str, Any], trainer: L.Trainer, module
) -> None:
    if trainer.is_global_zero:
        plain = dict(options)
        if trainer.num_devices > 1 and not isinstance(plain.get("devices"), list):
            plain["devices"] = trainer.num_devices  # also where all there are were taken
        write_json(out / "config.json", asdict(config) | {"trainer": plain})
