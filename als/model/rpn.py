"""torchvision's RPN, built from the config, with matching that needs an overlap."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import clip_boxes_to_image

from als.config import ModelConfig
from als.model.boxes import kept_by_nms, sides

FOREGROUND_IOU, BACKGROUND_IOU = 0.7, 0.3


class OverlapMatcher(Matcher):
    """torchvision's matcher, but objects that no anchor touches take no part.

    torchvision gives each object the anchors of its best IoU, even if that IoU is 0: one object
    that no anchor touches would make every anchor outside it positive, for whatever it overlaps
    most.
    """

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """IoU [objects, anchors] -> object of each anchor [anchors], or a negative value."""
        touched = match_quality_matrix.amax(dim=1) > 0
        matches = match_quality_matrix.new_full(
            match_quality_matrix.shape[1:], self.BELOW_LOW_THRESHOLD, dtype=torch.int64
        )
        if touched.any():
            matches = super().__call__(match_quality_matrix[touched])
            matched = matches >= 0
            matches[matched] = touched.nonzero()[matches[matched], 0]
        return matches


class RPN(RegionProposalNetwork):
    """Proposals from one feature, the object area-aware feature (paper, section 2.2)."""

    def __init__(self, config: ModelConfig, in_channels: int):
        anchors = AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,))
        super().__init__(
            anchors,
            RPNHead(in_channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=FOREGROUND_IOU,
            bg_iou_thresh=BACKGROUND_IOU,
            batch_size_per_image=config.rpn_anchors_per_image,
            positive_fraction=0.5,
            pre_nms_top_n={
                "training": config.rpn_pre_nms_train,
                "testing": config.rpn_pre_nms_test,
            },
            post_nms_top_n={
                "training": config.rpn_post_nms_train,
                "testing": config.rpn_post_nms_test,
            },
            nms_thresh=config.rpn_nms_threshold,
        )
        self.proposal_matcher = OverlapMatcher(FOREGROUND_IOU, BACKGROUND_IOU, True)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """torchvision's choice for one level, in a straight line: its own cannot be exported."""
        logits = objectness.detach().reshape(len(proposals), -1)
        boxes_kept, logits_kept = [], []
        for boxes, scores, size in zip(proposals, logits, image_shapes, strict=True):
            scores, best = scores.topk(min(self.pre_nms_top_n(), scores.shape[0]))
            boxes = clip_boxes_to_image(boxes[best], size)
            wide = (sides(boxes) >= self.min_size).all(1).nonzero()[:, 0]
            boxes, scores = boxes[wide], scores[wide]
            keep = kept_by_nms(boxes, scores, self.nms_thresh)[: self.post_nms_top_n()]
            boxes_kept.append(boxes[keep])
            logits_kept.append(scores[keep])
        return boxes_kept, logits_kept
