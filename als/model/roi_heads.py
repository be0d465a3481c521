"""The layer separation part (paper, section 2.2): two conv5 branches on two features.

Matching, sampling, box coding and NMS are torchvision's `RoIHeads`; here stands what differs:
which feature each task sees, and that the localization branch runs only where it counts.
"""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import RoIAlign, RoIPool

from als.config import ModelConfig
from als.model.backbone import STRIDE, Backbone
from als.model.roi_features import begins_on_channels, conv5_of_rois, outnumber_cells

SMOOTH_L1_BETA = 1 / 9  # torchvision's and Faster R-CNN's


def roi_head_options(config: ModelConfig) -> dict[str, Any]:
    """torchvision's `RoIHeads` for its matching, sampling, box coding and NMS alone."""
    return {
        "box_roi_pool": None,
        "box_head": None,
        "box_predictor": None,
        "fg_iou_thresh": 0.5,
        "bg_iou_thresh": 0.5,
        "batch_size_per_image": config.rois_per_image,
        "positive_fraction": config.roi_positive_fraction,
        "bbox_reg_weights": None,
        "score_thresh": config.score_threshold,
        "nms_thresh": config.nms_threshold,
        "detections_per_img": config.detections_per_image,
    }


class SeparatedRoIHeads(RoIHeads):
    """RoIs on two features -> class logits and box deltas -> losses or detections.

    `losses` and `detections` take the place of torchvision's `forward`.

    `conv5_cls` sees RoI features of F_cls, `conv5_loc` those of F_loc. Without separation
    `conv5_loc` is None and `conv5_cls` serves both tasks; without attention F_cls is F_loc.

    Shapes: logits [R, C + 1], deltas [R, 4 (C + 1)] with class c at columns 4c to 4c + 4;
    proposals a list of [N, 4] xyxy pixels of the resized image.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(**roi_head_options(config))
        if config.pool == "align":
            self.pool = RoIAlign(config.pool_size, 1 / STRIDE, sampling_ratio=2, aligned=True)
        else:
            self.pool = RoIPool(config.pool_size, 1 / STRIDE)
        self.conv5_cls = backbone.semantic
        self.conv5_loc = deepcopy(backbone.semantic) if config.separation else None
        num_outputs = len(config.classes) + 1
        self.cls_score = nn.Linear(backbone.semantic_channels, num_outputs)
        self.bbox_pred = nn.Linear(backbone.semantic_channels, num_outputs * 4)
        self.run_both_on_all = False  # the naive computation, for tests and benchmarks

    def classify(self, f_cls: Tensor, rois: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Object part area-aware feature -> class logits [R, C + 1] and their vectors [R, D]."""
        vectors = self._vectors(self.conv5_cls, f_cls, rois)
        return self.cls_score(vectors), vectors

    def localize(self, f_loc: Tensor, rois: list[Tensor]) -> Tensor:
        """Object area-aware feature -> box deltas [R, 4 (C + 1)]."""
        conv5 = self.conv5_cls if self.conv5_loc is None else self.conv5_loc
        return self.bbox_pred(self._vectors(conv5, f_loc, rois))

    def _vectors(self, conv5: nn.Sequential, feature: Tensor, rois: list[Tensor]) -> Tensor:
        """RoIs of a feature through conv5 [R, D]. Training keeps conv5 whole, to be compiled."""
        if not self.training and begins_on_channels(self.pool, conv5):
            if outnumber_cells(self.pool, feature, rois):
                return conv5_of_rois(self.pool, conv5, feature, rois)
        return conv5(self.pool(feature, rois))

    def losses(
        self,
        f_cls: Tensor,
        f_loc: Tensor,
        proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """L_cls and L_loc of equation 1, unweighted, as loss_cls and loss_loc.

        Args:
            f_cls, f_loc: features [B, channels, h, w]; the same tensor without attention.
            proposals: RoIs of each image [N, 4].
            targets: boxes [M, 4] of the resized image and labels [M].
        """
        rois, _, labels, box_targets = self.select_training_samples(list(proposals), targets)
        labels, box_targets = torch.cat(labels), torch.cat(box_targets)
        logits, vectors = self.classify(f_cls, rois)
        # Only positive RoIs carry L_loc, so only they enter the localization branch.
        positive = labels > 0
        deltas = self._deltas_where(positive, f_cls, f_loc, rois, vectors).unflatten(1, (-1, 4))
        deltas_of_class = deltas[torch.arange(len(deltas)), labels[positive]]
        loss_loc = F.smooth_l1_loss(
            deltas_of_class, box_targets[positive], beta=SMOOTH_L1_BETA, reduction="sum"
        )
        return {
            "loss_cls": F.cross_entropy(logits, labels),
            "loss_loc": loss_loc / max(1, len(labels)),
        }

    def detections(
        self,
        logits: Tensor,
        vectors: Tensor,
        f_cls: Tensor,
        f_loc: Tensor,
        proposals: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """What `classify` gave -> boxes [K, 4], labels [K] and scores [K] of each image.

        Boxes are pixels of the resized image of `image_sizes` (height, width), clipped to it.
        """
        # A proposal without a class over the threshold gives no detection, wherever its box is.
        counts = logits.softmax(-1)[:, 1:].amax(1) > self.score_thresh
        if self.run_both_on_all:
            counts = torch.ones_like(counts)
        deltas = self._deltas_where(counts, f_cls, f_loc, proposals, vectors)
        boxes, scores, labels = self.postprocess_detections(
            logits[counts], deltas, select_rois(proposals, counts), image_sizes
        )
        return [
            {"boxes": b, "labels": n, "scores": s}
            for b, n, s in zip(boxes, labels, scores, strict=True)
        ]

    def _deltas_where(self, chosen, f_cls, f_loc, rois, vectors) -> Tensor:
        """Box deltas of the chosen RoIs; Faster R-CNN reuses the class branch's vectors."""
        if self.conv5_loc is None and f_cls is f_loc:
            return self.bbox_pred(vectors[chosen])
        if self.run_both_on_all:
            return self.localize(f_loc, rois)[chosen]
        return self.localize(f_loc, select_rois(rois, chosen))


def select_rois(rois: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """Per-image RoIs [N_i, 4] that the flat boolean [sum N_i] chooses."""
    parts = chosen.split([len(r) for r in rois])
    return [r[part] for r, part in zip(rois, parts, strict=True)]
