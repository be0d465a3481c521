"""torchvision's RPN, built from the config, with matching that needs an overlap."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from als.config import ModelConfig

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


def build_rpn(config: ModelConfig, in_channels: int) -> RegionProposalNetwork:
    """RPN on one feature of `in_channels` (the object area-aware feature, section 2.2)."""
    anchors = AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,))
    head = RPNHead(in_channels, anchors.num_anchors_per_location()[0])
    rpn = RegionProposalNetwork(
        anchors,
        head,
        fg_iou_thresh=FOREGROUND_IOU,
        bg_iou_thresh=BACKGROUND_IOU,
        batch_size_per_image=config.rpn_anchors_per_image,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.rpn_pre_nms_train, "testing": config.rpn_pre_nms_test},
        post_nms_top_n={
            "training": config.rpn_post_nms_train,
            "testing": config.rpn_post_nms_test,
        },
        nms_thresh=config.rpn_nms_threshold,
    )
    rpn.proposal_matcher = OverlapMatcher(FOREGROUND_IOU, BACKGROUND_IOU, True)
    return rpn
