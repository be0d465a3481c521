"""The attentive layer separation detector, image to boxes, in the paper's order.

image -> transform -> trunk -> F -> A_loc, F_loc -> RPN -> proposals; F_loc -> A_cls -> F_cls;
F_cls -> RoIAlign -> conv5_cls -> scores; F_loc -> RoIAlign -> conv5_loc -> deltas -> boxes
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from als.config import ModelConfig
from als.images import Photo
from als.model.attention import (
    FORMS,
    AttentionForm,
    AttentionNetwork,
    attention_loss,
    object_map_targets,
)
from als.model.backbone import Backbone
from als.model.boxes import rescaled
from als.model.interface import IMAGENET_MEAN, IMAGENET_STD, AnyDetector, Found, pixels_and_sizes
from als.model.roi_heads import Features, RoIHeads, SeparatedRoIHeads, parts
from als.model.rpn import RPN

MapOverride = Callable[[Tensor, Tensor], Tensor]  # (A_loc, A_cls) [B, 1, h, w] -> the map used


@dataclass(frozen=True, eq=False)
class Encoding:
    """What stands before the RoIs: features and maps of a batch, at conv4 resolution.

    images: the padded batch [B, 3, H, W] and each image's (height, width) inside it.
    original_sizes: (height, width) of each photo, in whose pixels boxes and maps are given.
    f, f_loc, f_cls: F, object area-aware and object part area-aware feature [B, C, h, w]; all
        three are F without attention.
    a_loc, a_cls: maps [B, 1, h, w] in 0..1; None without attention.
    loc_logits: logits of A_loc [B, 1, h, w]; None without attention.
    rivals: A_cls where its cells compete inside each RoI, else None.
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
    rivals: Tensor | None = None
    override_loc: MapOverride | None = None
    override_cls: MapOverride | None = None


class Detector(AnyDetector):
    """Two-stage detector with attentive layer separation (paper, section 2).

    Read `encode`, `attend`, `propose`, `detect`: that is the way from photos to boxes.
    """

    heads: Callable[[ModelConfig, Backbone], RoIHeads] = SeparatedRoIHeads
    roi_heads: RoIHeads

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
            start = self.form.start * config.attention_bias
            self.attention_loc = AttentionNetwork(channels, width, start)
            start_cls = 0.0 if self.form.competes else start
            self.attention_cls = AttentionNetwork(
                channels, width, start_cls, config.attention_cls_biased
            )
        self.rpn = RPN(config, channels)
        self.roi_heads = self.heads(config, backbone)

    @property
    def form(self) -> AttentionForm:
        """How a map acts on a feature; looked up, since a detector can be pickled and it cannot."""
        return FORMS[self.config.attention_form]

    def encode(
        self,
        photos: Sequence[Photo | Tensor],
        override_loc: MapOverride | None = None,
        override_cls: MapOverride | None = None,
    ) -> Encoding:
        """Photos -> features and attention maps (section 2.1); no RoI is involved.

        Args:
            photos: a tensor [3, H, W] in 0..1 stands for a photo of its own size.
            override_loc, override_cls: given A_loc and A_cls as the network made them, the map
                to multiply by instead: the maps are part of the computation, so they can be
                tested by intervention. A_cls follows a replaced A_loc unless it is replaced too.
        """
        images, sizes = pixels_and_sizes(photos)
        batch, _ = self.transform(images)
        f = self.trunk(self.in_layout(batch.tensors))
        return self.attend(
            Encoding(batch, sizes, f, f, f, override_loc=override_loc, override_cls=override_cls)
        )

    def attend(self, encoding: Encoding) -> Encoding:
        """F and the overrides -> maps and both task features; as it is without attention."""
        if not self.config.attention:
            return encoding
        f, override_loc, override_cls = encoding.f, encoding.override_loc, encoding.override_cls
        loc_logits = self.attention_loc(f)
        made_loc = a_loc = loc_logits.sigmoid()
        f_loc = self.form.apply(f, a_loc)
        made_cls = a_cls = self.attention_cls(f_loc).sigmoid()
        if override_loc is not None:
            a_loc = override_loc(made_loc, made_cls).expand_as(made_loc)
            f_loc = self.form.apply(f, a_loc)
            a_cls = self.attention_cls(f_loc).sigmoid()
        if override_cls is not None:
            a_cls = override_cls(made_loc, made_cls).expand_as(made_cls)
        f_cls = self.form.apply(f if self.config.attention_source == "F" else f_loc, a_cls)
        maps = {"a_loc": a_loc, "a_cls": a_cls, "loc_logits": loc_logits}
        rivals = a_cls if self.form.competes else None
        return replace(encoding, f_loc=f_loc, f_cls=f_cls, rivals=rivals, **maps)

    def propose(self, encoding: Encoding) -> list[Tensor]:
        """RoIs of each image [N, 4], from the object area-aware feature, best first."""
        proposals, _ = self.rpn(encoding.images, {"0": encoding.f_loc})
        return proposals

    def detect(
        self,
        encoding: Encoding,
        threshold: float | None = None,
        proposals: int | None = None,
        labels: Sequence[int] | None = None,
    ) -> list[Found]:
        """Encoding -> what is found in each photo (section 2.2).

        Args:
            threshold: a detection's score is over it; None for the config's.
            proposals: at most so many an image, in place of the config's number.
            labels: the classes that are asked about; None for all, 1 to C.
        """
        sizes = encoding.images.image_sizes
        rois = [best_first[:proposals] for best_first in self.propose(encoding)]
        logits, vectors = self.roi_heads.classify(encoding.f_cls, rois, encoding.rivals)
        chosen = self.roi_heads.detections(
            *(logits, vectors, encoding.f_cls, encoding.f_loc, rois, sizes),
            self.config.score_threshold if threshold is None else threshold,
            labels,
        )
        return [
            Found(rescaled(one.boxes, size, original), one.labels, one.scores, one.rois, *seen)
            for one, size, original, *seen in zip(
                chosen, sizes, encoding.original_sizes, rois, parts(logits, rois), strict=True
            )
        ]

    def losses(self, encoding: Encoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms of equation 1, unweighted: loss_rpn, loss_cls, loss_loc, loss_att.

        Where cells compete, loss_focus comes to them, and where A_cls is distilled loss_part
        (`SeparatedRoIHeads.losses`).
        """
        images = encoding.images
        proposals, rpn_losses = self.rpn(images, {"0": encoding.f_loc}, targets)
        distilled = None
        if encoding.a_cls is not None and self.config.lambda_part > 0:
            distilled = encoding.f, encoding.a_cls
        features = Features(encoding.f_cls, encoding.f_loc, encoding.rivals, distilled)
        losses = self.roi_heads.losses(features, proposals, targets)
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
