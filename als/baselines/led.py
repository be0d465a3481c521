"""After LED (Zhang et al., ICIP 2018): SSD with a third branch that foretells a box's quality.

The paper's abstract is what is public of it: a branch of localization quality beside those of class
and box, trained on the overlap of each regressed default box with its object, and joined with the
class confidence in inference. What it leaves open follows the detectors of that kind that came
after: the branch has the layers of the class branch (FCOS, Tian et al. 2019); it learns the
overlap itself (IoU-Net, Jiang et al. 2018), by cross-entropy, on the default boxes of objects
alone, without a gradient to the boxes (ATSS, Zhang et al. 2020); the score is the product of both
(FCOS). Hence 'after LED'.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDClassificationHead, SSDScoringHead
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead
from torchvision.ops import box_iou

from als.baselines.ssd import BATCH_NORM, SSDDetector, SSDEncoding
from als.config import ModelConfig
from als.model.backbone import Backbone
from als.model.interface import Found


class LEDDetector(SSDDetector):
    """SSD whose scores are class confidence times localization quality."""

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(config, backbone)
        per_cell = self.ssd.anchor_generator.num_anchors_per_location()
        self.ssd.head = HeadWithQuality(self.ssd.head, per_cell)

    def detect(self, encoding: SSDEncoding, threshold: float | None = None) -> list[Found]:
        """As SSD's, by class confidence times quality."""
        outputs = encoding.outputs
        logits = confident_and_placed(outputs["cls_logits"], outputs["quality"])
        return super().detect(
            replace(encoding, outputs=outputs | {"cls_logits": logits}), threshold
        )

    def losses_of_matched(
        self, encoding: SSDEncoding, targets: list[dict[str, Tensor]], matches: list[Tensor]
    ) -> dict[str, Tensor]:
        """SSD's terms, and loss_quality: the mean over the default boxes of objects."""
        losses = super().losses_of_matched(encoding, targets, matches)
        total, count = encoding.outputs["quality"].sum() * 0.0, 0
        for target, match, deltas, quality, boxes in zip(
            targets,
            matches,
            encoding.outputs["bbox_regression"].detach(),
            encoding.outputs["quality"],
            encoding.default_boxes,
            strict=True,
        ):
            own = match >= 0
            regressed = self.ssd.box_coder.decode_single(deltas[own], boxes[own])
            overlaps = box_iou(regressed, target["boxes"][match[own]]).diagonal()
            total = total + F.binary_cross_entropy_with_logits(
                quality[own], overlaps, reduction="sum"
            )
            count += len(overlaps)
        return losses | {"loss_quality": total / max(1, count)}


class HeadWithQuality(nn.Module):
    """SSD's head, and a branch with the layers of its class branch: maps -> outputs by name.

    quality: logits [B, A] of the overlap that each of the A regressed default boxes will have.
    """

    def __init__(self, head: nn.Module, per_cell: list[int]):
        super().__init__()
        self.classification_head = head.classification_head
        self.regression_head = head.regression_head
        self.quality_head = _quality_head(head.classification_head, per_cell)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {
            "bbox_regression": self.regression_head(maps),
            "cls_logits": self.classification_head(maps),
            "quality": self.quality_head(maps)[..., 0],
        }


def _quality_head(classes: SSDScoringHead, per_cell: list[int]) -> SSDScoringHead:
    first = [
        next(part for part in layer.modules() if isinstance(part, nn.Conv2d))
        for layer in classes.module_list
    ]
    channels = [layer.in_channels for layer in first]
    if isinstance(classes, SSDClassificationHead):
        return SSDClassificationHead(channels, per_cell, 1)
    return SSDLiteClassificationHead(channels, per_cell, 1, BATCH_NORM)


def confident_and_placed(logits: Tensor, quality: Tensor) -> Tensor:
    """Logits [B, A, C + 1] and of quality [B, A] -> logits whose softmax is the product of both.

    What a class loses, the background gains.
    """
    scores = logits.softmax(-1)[..., 1:] * quality.sigmoid()[..., None]
    background = 1 - scores.sum(-1, keepdim=True)
    smallest = torch.finfo(scores.dtype).tiny
    return torch.cat([background, scores], -1).clamp(min=smallest).log()
