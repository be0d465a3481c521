"""What lightning's Trainer trains: loss terms, optimiser, schedule, and what is logged."""

import warnings
from collections.abc import Callable

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from als.config import TrainConfig
from als.errors import InputError
from als.model import AnyDetector
from als.model.checkpoint import ATTENTION_PREFIXES

Found = dict[str, dict[str, np.ndarray]]  # image id -> boxes, labels, scores
Metric = Callable[[Found], dict[str, float]]

FLAT_SPREAD = 0.05  # a map whose spread stays below this is a constant to every reader
MAP_LOG_STEPS = 50  # maps change slowly; their statistics need not be taken at every step


class DetectorModule(L.LightningModule):
    """Trains a detector on its total loss, `Detector` on equation 1.

    Args:
        detector: the network, already started from stage 1 where there is one.
        config: the run.
        total_steps: optimiser steps of the whole run, for the schedule.
        metric: image id -> detections of all validation images in, figures by name out; it comes
            from outside, since training does not know how detections are judged.
    """

    def __init__(
        self,
        detector: AnyDetector,
        config: TrainConfig,
        total_steps: int,
        metric: Metric | None = None,
    ):
        super().__init__()
        self.detector = detector
        self.run_config = config
        self.total_steps = total_steps
        self.metric = metric
        self.found: Found = {}
        self.skipped = 0  # samples of this process that could not be read
        self.figures: dict[str, Tensor] = {}  # of the last step, for the log

    def on_train_epoch_start(self) -> None:
        # Lightning tells the epoch to samplers of images only, not to one that makes batches.
        self.trainer.train_dataloader.batch_sampler.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        # Sampling of anchors and RoIs depends on (seed, batch, rank) alone: a resumed run draws
        # what the uninterrupted one would have drawn.
        batch_number = self.trainer.fit_loop.total_batch_idx
        draw = (self.run_config.seed * 1_000_003 + batch_number) * 4096 + self.global_rank
        torch.manual_seed(draw)

    def training_step(self, batch, batch_idx: int) -> Tensor | None:
        images, targets = batch
        self.skipped += self.run_config.data.batch_size - len(images)
        self.figures = {}
        if not images:
            return self._no_loss()
        encoding = self.detector.encode(images)
        losses = self.detector.losses(encoding, targets)
        total = self.detector.total_loss(losses)
        if not torch.isfinite(total):
            terms = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
            names = ", ".join(target["image_id"] for target in targets)
            raise InputError(
                f"step {self.global_step}: the loss is not finite ({terms}) on images {names}; "
                "lower optimizer.lr or look at these images."
            )
        self.log("loss", total, prog_bar=True, logger=False, batch_size=len(images))
        self.figures = {name: value.detach() for name, value in ({"loss": total} | losses).items()}
        if encoding.a_loc is not None and (self.global_step + 1) % MAP_LOG_STEPS == 0:
            self._log_maps(encoding.a_loc.detach(), encoding.a_cls.detach())
        return total

    def _no_loss(self) -> Tensor | None:
        """The loss of a batch whose images were all skipped: other processes wait for gradients."""
        if self.trainer.world_size == 1:
            return None
        return sum(p.sum() for p in self.detector.parameters() if p.requires_grad) * 0.0

    def validation_step(self, batch, batch_idx: int) -> None:
        images, targets = batch
        if not images:  # each was broken, and skipped
            return
        for target, detections in zip(targets, self.detector(images), strict=True):
            self.found[target["image_id"]] = {k: v.cpu().numpy() for k, v in detections.items()}

    def on_validation_epoch_end(self) -> None:
        found, self.found = self.found, {}
        if self.trainer.world_size > 1:
            parts: list[Found] = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, found)
            # Ids, so that an image which two processes saw counts once.
            found = {image_id: one for part in parts for image_id, one in part.items()}
        if self.metric is not None and not self.trainer.sanity_checking:
            figures = {f"val_{name}": value for name, value in self.metric(found).items()}
            self.log_dict(figures, prog_bar=True, logger=False)

    def _log_maps(self, a_loc: Tensor, a_cls: Tensor) -> None:
        statistics = map_statistics(a_loc, a_cls)
        self.figures |= statistics
        if self.global_step < 2 * self.run_config.optimizer.warmup_steps:
            return
        for name in ("loc", "cls"):
            spread = statistics[f"map_{name}_spread"]
            if spread < FLAT_SPREAD:
                warnings.warn(
                    f"step {self.global_step}: the {name} map is flat (spread {spread:.3f} within "
                    "an image); it shows nothing. Raise optimizer.attention_lr_factor or lower "
                    "model.attention_bias.",
                    stacklevel=2,
                )

    def configure_optimizers(self):
        options = self.run_config.optimizer
        attention, others = [], []
        for name, parameter in self.detector.named_parameters():
            if parameter.requires_grad:
                (attention if name.startswith(ATTENTION_PREFIXES) else others).append(parameter)
        groups = [{"params": others, "lr": options.lr}]
        if attention:
            groups.append({"params": attention, "lr": options.lr * options.attention_lr_factor})
        decay = options.weight_decay
        if options.name == "adamw":
            optimizer = torch.optim.AdamW(groups, weight_decay=decay)
        else:
            optimizer = torch.optim.SGD(groups, momentum=options.momentum, weight_decay=decay)
        scheduler = {"scheduler": self._schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _schedule(self, optimizer):
        options = self.run_config.optimizer
        warmup = max(1, min(options.warmup_steps, self.total_steps // 2))
        rest = max(1, self.total_steps - warmup)
        if options.schedule == "cosine":
            after = CosineAnnealingLR(optimizer, rest)
        else:
            drops = [int(share * self.total_steps) - warmup for share in options.milestones]
            after = MultiStepLR(optimizer, drops)
        start = LinearLR(optimizer, 1e-3, 1.0, warmup)
        return SequentialLR(optimizer, [start, after], [warmup])


def map_statistics(a_loc: Tensor, a_cls: Tensor) -> dict[str, Tensor]:
    """Mean, spread within an image and correlation of two maps [B, 1, h, w].

    The spread is the 95th minus the 5th percentile over an image's cells; a constant map has 0.
    The correlation is Pearson's within an image (0 for a constant map). All are means over the
    batch, each a scalar.
    """
    statistics = {}
    flat = {"loc": a_loc.flatten(1).float(), "cls": a_cls.flatten(1).float()}
    for name, values in flat.items():
        low, high = values.quantile(torch.tensor([0.05, 0.95], device=values.device), dim=1)
        statistics[f"map_{name}_mean"] = values.mean()
        statistics[f"map_{name}_spread"] = (high - low).mean()
    centred = [values - values.mean(1, keepdim=True) for values in flat.values()]
    norms = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    covariance = (centred[0] * centred[1]).sum(1)
    statistics["map_correlation"] = (covariance / norms.clamp(min=1e-12)).mean()
    return statistics
