"""torchvision's Faster R-CNN made of a detector's own modules: what ALS is compared with."""

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from als.model import Detector
from als.model.frozen_norm import AppliedNorm, NormedConv2d
from als.model.roi_heads import SeparatedRoIHeads


class SingleScalePool(nn.Module):
    """torchvision calls the pooling with (features, proposals, image shapes)."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.pool = pool

    def forward(self, features, proposals, image_shapes) -> Tensor:
        return self.pool(features["0"], proposals)


class BoxPredictor(nn.Module):
    """RoI vectors [R, D] -> class logits [R, C + 1] and box deltas [R, 4 (C + 1)]."""

    def __init__(self, heads: SeparatedRoIHeads):
        super().__init__()
        self.cls_score, self.bbox_pred = heads.cls_score, heads.bbox_pred

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(vectors), self.bbox_pred(vectors)


def faster_rcnn_of(detector: Detector) -> FasterRCNN:
    """torchvision's Faster R-CNN that shares the modules of a detector with both parts off.

    These become torchvision's own, here and there: frozen BN is a layer after its convolution.
    """
    norm_as_layers(detector)
    config, heads = detector.config, detector.roi_heads
    trunk = nn.Sequential(detector.trunk)
    trunk.out_channels = detector.rpn.head.cls_logits.in_channels
    baseline = FasterRCNN(
        trunk,
        min_size=config.min_size,
        max_size=config.max_size,
        rpn_anchor_generator=detector.rpn.anchor_generator,
        rpn_head=detector.rpn.head,
        rpn_pre_nms_top_n_train=config.rpn_pre_nms_train,
        rpn_pre_nms_top_n_test=config.rpn_pre_nms_test,
        rpn_post_nms_top_n_train=config.rpn_post_nms_train,
        rpn_post_nms_top_n_test=config.rpn_post_nms_test,
        rpn_nms_thresh=config.rpn_nms_threshold,
        rpn_batch_size_per_image=config.rpn_anchors_per_image,
        box_roi_pool=MultiScaleRoIAlign(["0"], config.pool_size, 2),
        box_head=heads.conv5_cls,
        box_predictor=BoxPredictor(heads),
        box_score_thresh=config.score_threshold,
        box_nms_thresh=config.nms_threshold,
        box_detections_per_img=config.detections_per_image,
        box_batch_size_per_image=config.rois_per_image,
        box_positive_fraction=config.roi_positive_fraction,
        _skip_resize=True,
    )
    baseline.roi_heads.box_roi_pool = SingleScalePool(heads.pool)
    return baseline


def norm_as_layers(module: nn.Module) -> None:
    """Undo `als.model.frozen_norm.apply_in_convolutions`, in place."""
    own = {NormedConv2d: nn.Conv2d, AppliedNorm: FrozenBatchNorm2d}
    for layer in module.modules():
        layer.__class__ = own.get(type(layer), type(layer))
