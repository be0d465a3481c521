"""What a run writes down as it goes: `metrics.csv` and TensorBoard, whole after a resumption."""

import os
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from als.errors import InputError
from als.files import atomic_write


class RunPerTraining(WandbLogger):
    """Ends its run with the training: else the next one of the process would go on in it."""

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish()


def logger_of(name: str | None, out: Path, first_step: int) -> Logger | bool:
    """Lightning's logger of this name (see `TrainerConfig`) for a run's folder; False for none.

    To Weights & Biases and MLflow each sitting is a run of its own, called as the folder.

    Raises InputError where the package is not installed, or does not take the place.
    """
    if name == "csv":
        return False
    try:
        if name == "wandb":
            return RunPerTraining(name=out.name, save_dir=out)
        if name == "mlflow":
            place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve()}/mlflow.db"
            return MLFlowLogger("als", run_name=out.name, tracking_uri=place)
    except ModuleNotFoundError as error:
        raise InputError(f"trainer.logger {name}: it needs `pip install {name}`.") from error
    except Exception as error:  # of MLflow, for a MLFLOW_TRACKING_URI that it does not know
        told = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"trainer.logger {name}: {told}.") from error
    # TensorBoard hides what a killed run had drawn beyond the step that it resumes from.
    return TensorBoardLogger(out, name="tensorboard", version="", purge_step=first_step)


class LogFigures(L.Callback):
    """A row of losses, rates and map figures every `log_every_n_steps` steps; one a validation.

    Column step counts optimiser steps from 0. Under several processes a figure is the mean over
    them. Lightning's CSVLogger is not used: it starts a new file with every resumption, and
    writes a step's row only after the checkpoint of that step.

    Args:
        path: the CSV file, written aside and renamed at every row.
        first_step: where the run goes on; rows of the file from there on are made again.
    """

    def __init__(self, path: Path, first_step: int):
        self.path = path
        self.rows = [row for row in _read_rows(path) if int(row["step"]) < first_step]
        self.step = first_step
        self.rates: dict[str, float] = {}

    def on_train_start(self, trainer, module) -> None:
        self.step = trainer.global_step

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        groups = trainer.optimizers[0].param_groups
        names = ("lr", "lr_attention")[: len(groups)]
        self.rates = {name: group["lr"] for name, group in zip(names, groups, strict=True)}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:  # gradients accumulate, or the batch was skipped
            return
        self.step = trainer.global_step
        if self.step % trainer.log_every_n_steps == 0:
            self._log(trainer, _mean_over_processes(trainer, module.figures) | self.rates)

    def on_validation_end(self, trainer, module) -> None:
        # Every process judged the detections of all.
        names = [name for name in trainer.callback_metrics if name.startswith("val_")]
        if names:
            self._log(trainer, {name: trainer.callback_metrics[name].item() for name in names})

    def _log(self, trainer: L.Trainer, figures: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(figures, self.step - 1)
            logger.save()  # TensorBoard's writer keeps two minutes of them in memory
        if trainer.is_global_zero:
            row = {"step": self.step - 1, "epoch": trainer.current_epoch, **figures}
            self.rows.append({name: str(value) for name, value in row.items()})
            with atomic_write(self.path) as aside:
                pd.DataFrame(self.rows).to_csv(aside, index=False, lineterminator="\r\n")


def _mean_over_processes(trainer: L.Trainer, figures: dict[str, Tensor]) -> dict[str, float]:
    own = {name: value.item() for name, value in figures.items()}
    parts = [own] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(parts, own)
    # A process whose batch was skipped has no figures.
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [{k: v for k, v in row.items() if v} for row in rows]
