"""What training, evaluation and inference need of a detector, whatever its family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from als.config import ModelConfig
from als.errors import InputError
from als.images import Photo, stretch_thin
from als.model.boxes import sides

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector finds in one photo.

    boxes: [K, 4] xyxy, pixels of the photo. labels: [K], 1 to C. scores: [K], descending.
    rois: int64 [K], the row of `proposals` that each detection came from.
    proposals: [N, 4] xyxy, pixels of the network's image; SSD has none (N is 0).
    logits: [N, C + 1], the class logits of each proposal, background first.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rois: Tensor
    proposals: Tensor
    logits: Tensor

    def as_dict(self) -> dict[str, Tensor]:
        """Boxes, labels and scores as torchvision's detectors give them."""
        return {"boxes": self.boxes, "labels": self.labels, "scores": self.scores}


class AnyDetector(nn.Module):
    """A detector of any family: `Detector` (ALS, Faster R-CNN), `RFCNDetector`,
    `MRCNNDetector`, `SSDDetector`, `LEDDetector`.

    It is made of a `ModelConfig` and a `Backbone`, keeps the first as `config`, and works in two
    steps. `encode` is everything up to the features (for SSD up to the outputs of its heads); its
    result has at least
        images: torchvision's ImageList, the batch as the network sees it,
        original_sizes: (height, width) of each photo,
        a_loc, a_cls: attention maps [B, 1, h, w], or None for a network without attention.
    `detect` and `losses` go on from there.
    """

    config: ModelConfig

    def forward(
        self, images: Sequence[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """torchvision's interface: losses by name (training), or boxes, labels, scores.

        Args:
            images: each float [3, H, W] in 0..1, of any size.
            targets: for each image boxes [M, 4] xyxy pixels, labels [M] 1 to C, and, where the
                image has a mask, object_map uint8 [H, W] (1 object, 0 background, 255 void).

        Raises InputError for a box without width or height.
        """
        for target in targets or []:  # torchvision refuses it too: the loss would be NaN
            if not (sides(target["boxes"]) > 0).all():
                raise InputError("targets: a box has no width or no height; leave it out.")
        if self.training:
            return self.losses(self.encode(images), targets or [])
        photos = zip(*pixels_and_sizes(images), strict=True)  # a thin one would shrink to nothing
        encoding = self.encode([Photo(stretch_thin(p, self.config.max_size), s) for p, s in photos])
        return [found.as_dict() for found in self.detect(encoding)]

    def encode(self, photos: Sequence[Photo | Tensor]) -> Any:
        """Photos -> the encoding. A tensor [3, H, W] stands for a photo of its own size."""
        raise NotImplementedError

    def detect(self, encoding: Any, threshold: float | None = None) -> list[Found]:
        """What is found in each photo with a score over `threshold` (None: the config's)."""
        raise NotImplementedError

    def losses(self, encoding: Any, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms of the loss by name, unweighted scalars."""
        raise NotImplementedError

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """Equation 1: L = L_RPN + lambda_1 L_cls + lambda_2 L_loc + lambda_3 L_att-loc.

        Each loss_x counts `ModelConfig.lambda_x` times; once where there is no such option.
        """
        weighted = [
            getattr(self.config, name.replace("loss_", "lambda_"), 1.0) * loss
            for name, loss in losses.items()
        ]
        return torch.stack(weighted).sum()

    def in_layout(self, batch: Tensor) -> Tensor:
        """The batch [B, 3, H, W] in the memory layout of the weights."""
        if next(self.parameters()).is_contiguous(memory_format=torch.channels_last):
            return batch.contiguous(memory_format=torch.channels_last)
        return batch


def pixels_and_sizes(
    photos: Sequence[Photo | Tensor],
) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The pixels of each photo, and the (height, width) that its boxes are given in."""
    given = [p if isinstance(p, Photo) else Photo(p, (p.shape[-2], p.shape[-1])) for p in photos]
    return [photo.pixels for photo in given], [photo.size for photo in given]
