"""What lightning's Trainer trains: loss terms, optimiser, schedule, and what is logged."""

import math
import warnings
from collections.abc import Callable, Sequence

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from als.checkpoint import ATTENTION_PREFIXES
from als.config import TrainConfig, least_batch
from als.errors import InputError
from als.model import AnyDetector
from als.model.backbone import STRIDE

FoundById = dict[str, dict[str, np.ndarray]]  # image id -> boxes, labels, scores
Metric = Callable[[FoundById], dict[str, float]]

FLAT_SPREAD = 0.05  # a map whose spread stays below this is a constant to every reader
ROUNDING = 1e-6  # a map of 0 to 1 with a standard deviation below this is one to float32 too


class DetectorModule(L.LightningModule):
    """Trains a detector on its total loss, `Detector` on equation 1.

    Args:
        detector: the network, already started from stage 1 where there is one.
        config: the run.
        total_steps: optimiser steps of the whole run, for the schedule.
        metric: detections of all validation images by id -> figures by name.
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
        self.found: FoundById = {}
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
        if len(images) < least_batch(self.run_config.model):  # the others are broken, and skipped
            if self.trainer.world_size == 1:
                return None
            # The other processes wait for gradients.
            return sum(p.sum() for p in self.detector.parameters() if p.requires_grad) * 0.0
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
        is_logged = (self.global_step + 1) % self.trainer.log_every_n_steps == 0
        if encoding.a_loc is not None and is_logged:
            sizes = encoding.images.image_sizes
            self._log_maps(map_statistics(encoding.a_loc, encoding.a_cls, sizes))
        return total

    def validation_step(self, batch, batch_idx: int) -> None:
        photos, targets = batch
        if not photos:  # each was broken, and skipped
            return
        found = self.detector(photos)
        for target, one in zip(targets, found, strict=True):
            self.found[target["image_id"]] = {k: v.cpu().numpy() for k, v in one.items()}

    def on_validation_epoch_end(self) -> None:
        found, self.found = self.found, {}
        if self.trainer.world_size > 1:
            parts: list[FoundById] = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, found)
            # Ids, so that an image which two processes saw counts once.
            found = {image_id: one for part in parts for image_id, one in part.items()}
        if self.metric is not None and not self.trainer.sanity_checking:
            figures = {f"val_{name}": value for name, value in self.metric(found).items()}
            self.log_dict(figures, prog_bar=True, logger=False)

    def _log_maps(self, statistics: dict[str, Tensor]) -> None:
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
            drops = [max(1, drop) for drop in drops]  # one within the warm-up comes after it
            after = MultiStepLR(optimizer, drops)
        start = LinearLR(optimizer, 1e-3 if options.warmup_steps else 1.0, 1.0, warmup)
        return SequentialLR(optimizer, [start, after], [warmup])


@torch.no_grad()
def map_statistics(
    a_loc: Tensor, a_cls: Tensor, image_sizes: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """Mean, spread within an image and correlation of two maps [B, 1, h, w].

    The spread is the 95th minus the 5th percentile over an image's cells; a constant map has 0.
    The correlation is Pearson's within an image (0 for a constant map). All are means over the
    batch, each a scalar.

    image_sizes: (height, width) in pixels of each image inside the padded batch. Cells in the
        padding do not count: there a map may differ from one that is constant on the image.
    """
    found = []
    for loc, cls, (height, width) in zip(a_loc, a_cls, image_sizes, strict=True):
        rows, columns = math.ceil(height / STRIDE), math.ceil(width / STRIDE)
        flat = torch.stack([m[0, :rows, :columns].flatten().float() for m in (loc, cls)])
        low, high = flat.quantile(flat.new_tensor([0.05, 0.95]), dim=1)
        first, second = centred = flat - flat.mean(1, keepdim=True)
        # A mean of products: a matrix product would be rounded to bfloat16 under autocast.
        deviations = centred.square().mean(1).sqrt()
        correlation = (first * second).mean() / deviations.prod().clamp(min=1e-12)
        correlation = correlation * (deviations.min() > ROUNDING)
        found.append(torch.cat([flat.mean(1), high - low, correlation[None]]))
    names = ("loc_mean", "cls_mean", "loc_spread", "cls_spread", "correlation")
    return {f"map_{name}": v for name, v in zip(names, torch.stack(found).mean(0), strict=True)}
