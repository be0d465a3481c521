"""What training, evaluation and the predictor need of a detector, whatever its family."""

from typing import Any

import torch
from torch import Tensor, nn

from als.config import ModelConfig

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class AnyDetector(nn.Module):
    """A detector of any family: `Detector` (ALS, Faster R-CNN), `RFCNDetector`, `SSDDetector`.

    It is made of a `ModelConfig` and a `Backbone`, keeps the first as `config`, and works in two
    steps. `encode` is everything up to the features (for SSD up to the outputs of its heads); its
    result has at least
        images: torchvision's ImageList, the batch as the network sees it,
        original_sizes: (height, width) of each image before resizing,
        a_loc, a_cls: attention maps [B, 1, h, w], or None for a network without attention.
    `detect` and `losses` go on from there.
    """

    config: ModelConfig
    score_threshold: float  # detections under it are dropped; starts as config.score_threshold

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses by name (training) or detections (evaluation).

        Args:
            images: each float [3, H, W] in 0..1, of any size.
            targets: for each image boxes [M, 4] xyxy pixels, labels [M] 1 to C, and, where the
                image has a mask, object_map uint8 [H, W] (1 object, 0 background, 255 void).
        """
        if self.training:
            return self.losses(self.encode(images), targets)
        return self.detect(self.encode(images))

    def encode(self, images: list[Tensor]) -> Any:
        """Images as in `forward` -> the encoding."""
        raise NotImplementedError

    def detect(self, encoding: Any) -> list[dict[str, Tensor]]:
        """For each image boxes [K, 4] (xyxy, pixels of the original image), labels [K] (1 to C)
        and scores [K] (descending)."""
        raise NotImplementedError

    def losses(self, encoding: Any, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms of the loss by name, unweighted scalars."""
        raise NotImplementedError

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """The terms of `losses`, weighted as configured, in one scalar."""
        raise NotImplementedError

    def in_layout(self, batch: Tensor) -> Tensor:
        """The batch [B, 3, H, W] in the memory layout of the weights."""
        if next(self.parameters()).is_contiguous(memory_format=torch.channels_last):
            return batch.contiguous(memory_format=torch.channels_last)
        return batch
