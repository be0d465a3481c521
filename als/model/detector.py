"""The attentive layer separation detector, image to boxes, in the paper's order.

image -> transform -> trunk -> F -> A_loc, F_loc -> RPN -> proposals; F_loc -> A_cls -> F_cls;
F_cls -> RoIAlign -> conv5_cls -> scores; F_loc -> RoIAlign -> conv5_loc -> deltas -> boxes
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from als.config import ModelConfig
from als.model.attention import AttentionNetwork, attention_loss, object_map_targets
from als.model.backbone import Backbone
from als.model.interface import IMAGENET_MEAN, IMAGENET_STD, AnyDetector
from als.model.roi_heads import SeparatedRoIHeads
from als.model.rpn import build_rpn

MapOverride = Callable[[Tensor, Tensor], Tensor]  # (A_loc, A_cls) [B, 1, h, w] -> the map used


@dataclass
class Encoding:
    """What stands before the RoIs: features and maps of a batch, at conv4 resolution.

    images: the padded batch [B, 3, H, W] and each image's (height, width) inside it.
    original_sizes: (height, width) of each image before resizing.
    f, f_loc, f_cls: F, object area-aware and object part area-aware feature [B, C, h, w].
    a_loc, a_cls: maps [B, 1, h, w] in 0..1; None without attention.
    loc_logits: logits of A_loc [B, 1, h, w]; None without attention.
    override_loc, override_cls: what replaced the maps, so that `Detector.attend` can be repeated.
    """

    images: ImageList
    original_sizes: list[tuple[int, int]]
    f: Tensor
    f_loc: Tensor
    f_cls: Tensor
    a_loc: Tensor | None = None
    a_cls: Tensor | None = None
    loc_logits: Tensor | None = None
    override_loc: MapOverride | None = None
    override_cls: MapOverride | None = None


class Detector(AnyDetector):
    """Two-stage detector with attentive layer separation (paper, section 2).

    In training `forward(images, targets)` gives the named losses, unweighted; in evaluation
    `forward(images)` gives for each image a dict of boxes [K, 4] (xyxy, pixels of the original
    image), labels [K] (1 to C), scores [K] (descending).
    """

    heads: type[RoIHeads] = SeparatedRoIHeads

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__()
        self.config = config
        # Training images come resized (als.data.transforms); only evaluation resizes here.
        self.transform = GeneralizedRCNNTransform(
            config.min_size, config.max_size, IMAGENET_MEAN, IMAGENET_STD, _skip_resize=True
        )
        self.trunk = backbone.trunk
        channels, width = backbone.trunk_channels, config.attention_width
        if config.attention:
            # The factor A, or 1 + A, starts near one.
            start = config.attention_bias * (1 if config.attention_form == "product" else -1)
            self.attention_loc = AttentionNetwork(channels, width, start)
            self.attention_cls = AttentionNetwork(
                channels, width, start, config.attention_cls_biased
            )
        self.rpn = build_rpn(config, channels)
        self.roi_heads = self.heads(config, backbone)

    @property
    def score_threshold(self) -> float:
        return self.roi_heads.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.roi_heads.score_thresh = value

    def encode(
        self,
        images: list[Tensor],
        override_loc: MapOverride | None = None,
        override_cls: MapOverride | None = None,
    ) -> Encoding:
        """Images -> features and attention maps (section 2.1); no RoI is involved.

        Args:
            override_loc, override_cls: given A_loc and A_cls as the network made them, the map
                to multiply by instead: the maps are part of the computation, so they can be
                tested by intervention. A_cls follows a replaced A_loc unless it is replaced too.
        """
        sizes = [tuple(image.shape[-2:]) for image in images]
        batch, _ = self.transform(images)
        f = self.trunk(self.in_layout(batch.tensors))
        encoding = Encoding(
            batch, sizes, f, f_loc=f, f_cls=f, override_loc=override_loc, override_cls=override_cls
        )
        if self.config.attention:
            self.attend(encoding)
        return encoding

    def attend(self, encoding: Encoding) -> None:
        """F -> maps and both task features of `encoding`, in place, with its overrides."""
        f, override_loc, override_cls = encoding.f, encoding.override_loc, encoding.override_cls
        loc_logits = self.attention_loc(f)
        made_loc = a_loc = loc_logits.sigmoid()
        f_loc = self._multiply(f, a_loc)
        made_cls = a_cls = self.attention_cls(f_loc).sigmoid()
        if override_loc is not None:
            a_loc = override_loc(made_loc, made_cls)
            f_loc = self._multiply(f, a_loc)
            a_cls = self.attention_cls(f_loc).sigmoid()
        if override_cls is not None:
            a_cls = override_cls(made_loc, made_cls)
        f_cls = self._multiply(f if self.config.attention_source == "F" else f_loc, a_cls)
        encoding.loc_logits, encoding.a_loc, encoding.a_cls = loc_logits, a_loc, a_cls
        encoding.f_loc, encoding.f_cls = f_loc, f_cls

    def _multiply(self, feature: Tensor, attention: Tensor) -> Tensor:
        """'Multiplied channel by channel'; the residual form keeps the feature where A is 0."""
        if self.config.attention_form == "residual":
            attention = 1 + attention
        return feature * attention

    def propose(self, encoding: Encoding) -> list[Tensor]:
        """RoIs of each image [N, 4], from the object area-aware feature, best first."""
        proposals, _ = self.rpn(encoding.images, {"0": encoding.f_loc})
        return proposals

    def detect(self, encoding: Encoding) -> list[dict[str, Tensor]]:
        """Encoding -> detections in the pixels of the original images."""
        proposals = self.propose(encoding)
        logits, vectors = self.roi_heads.classify(encoding.f_cls, proposals)
        return self.locate(encoding, proposals, logits, vectors)

    def locate(
        self, encoding: Encoding, proposals: list[Tensor], logits: Tensor, vectors: Tensor
    ) -> list[dict[str, Tensor]]:
        """Classified proposals -> boxes (on those over the threshold), NMS, original pixels."""
        sizes = encoding.images.image_sizes
        detections = self.roi_heads.detections(
            logits, vectors, encoding.f_cls, encoding.f_loc, proposals, sizes
        )
        return self.transform.postprocess(detections, sizes, encoding.original_sizes)

    def losses(self, encoding: Encoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms of equation 1, unweighted: loss_rpn, loss_cls, loss_loc, loss_att."""
        images = encoding.images
        proposals, rpn_losses = self.rpn(images, {"0": encoding.f_loc}, targets)
        losses = self.roi_heads.losses(encoding.f_cls, encoding.f_loc, proposals, targets)
        losses["loss_rpn"] = rpn_losses["loss_objectness"] + rpn_losses["loss_rpn_box_reg"]
        if encoding.loc_logits is not None:
            object_maps = object_map_targets(
                [target.get("object_map") for target in targets],
                images.image_sizes,
                tuple(images.tensors.shape[-2:]),
                tuple(encoding.f.shape[-2:]),
            )
            losses["loss_att"] = attention_loss(
                encoding.loc_logits, object_maps.to(encoding.f.device)
            )
        return losses

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """Equation 1: L = L_RPN + lambda_1 L_cls + lambda_2 L_loc + lambda_3 L_att-loc."""
        config = self.config
        total = losses["loss_rpn"]
        total = total + config.lambda_cls * losses["loss_cls"]
        total = total + config.lambda_loc * losses["loss_loc"]
        if "loss_att" in losses:
            total = total + config.lambda_att * losses["loss_att"]
        return total
