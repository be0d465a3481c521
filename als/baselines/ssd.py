"""SSD (Liu et al. 2016) on torchvision's: default boxes on several maps, no proposals.

SSD300 and SSD512 stand on VGG16 as in the paper; on MobileNetV2 it is SSDLite (Sandler et al.
2018, section 6.2), whose extra layers and heads are depthwise separable.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD, SSDFeatureExtractorVGG, SSDHead, _xavier_init
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init
from torchvision.ops import box_iou

from als.config import ModelConfig
from als.images import Photo
from als.model.backbone import Backbone
from als.model.boxes import rescaled
from als.model.interface import IMAGENET_MEAN, IMAGENET_STD, AnyDetector, Found, pixels_and_sizes

CANDIDATES = 400  # of a class and image, that enter NMS (the original's top_k)
# Side -> scales (shares of the side; the last bounds the largest map's second box) and steps in
# pixels, of the authors' code for VOC.
SCALES = {
    300: (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
    512: (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
}
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
BATCH_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)  # torchvision's for SSDLite


@dataclass(eq=False)
class SSDEncoding:
    """What stands before SSD's detections.

    images: the batch [B, 3, side, side]. original_sizes: (height, width) of each photo.
    outputs: cls_logits [B, A, C + 1] and bbox_regression [B, A, 4] of the A default boxes.
    default_boxes: for each image [A, 4], xyxy pixels of the square.
    a_loc, a_cls: always None; SSD has no attention.
    """

    images: ImageList
    original_sizes: list[tuple[int, int]]
    outputs: dict[str, Tensor]
    default_boxes: list[Tensor]
    a_loc: None = None
    a_cls: None = None


class SSDDetector(AnyDetector):
    """torchvision's SSD as an `AnyDetector`; losses are loss_cls and loss_loc."""

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__()
        self.config = config
        parts = _vgg_parts if config.backbone == "vgg16" else _mobilenet_parts
        features, default_boxes, head = parts(config, backbone)
        self.ssd = SSD(
            features,
            default_boxes,
            (config.max_size, config.max_size),
            len(config.classes) + 1,
            IMAGENET_MEAN,
            IMAGENET_STD,
            head,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
            topk_candidates=CANDIDATES,
        )

    def encode(self, photos: Sequence[Photo | Tensor]) -> SSDEncoding:
        """Photos -> squares -> maps -> the outputs of both heads for every default box."""
        images, sizes = pixels_and_sizes(photos)
        batch, _ = self.ssd.transform(images)
        features = list(self.ssd.backbone(self.in_layout(batch.tensors)).values())
        boxes = self.ssd.anchor_generator(batch, [one.to(batch.tensors.dtype) for one in features])
        return SSDEncoding(batch, sizes, self.ssd.head(features), boxes)

    def detect(self, encoding: SSDEncoding, threshold: float | None = None) -> list[Found]:
        """Encoding -> detections in the pixels of the photos; without proposals."""
        ssd, sizes = copy(self.ssd), encoding.images.image_sizes  # the same tensors
        ssd.score_thresh = self.config.score_threshold if threshold is None else threshold
        chosen = ssd.postprocess_detections(encoding.outputs, encoding.default_boxes, sizes)
        nothing = encoding.images.tensors.new_zeros(0, len(self.config.classes) + 1)
        return [
            Found(
                boxes=rescaled(one["boxes"], size, original),
                labels=one["labels"],
                scores=one["scores"],
                rois=one["labels"][:0],
                proposals=nothing.new_zeros(0, 4),
                logits=nothing,
            )
            for one, size, original in zip(chosen, sizes, encoding.original_sizes, strict=True)
        ]

    def losses(self, encoding: SSDEncoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """loss_cls (with three negatives a positive, the hardest) and loss_loc, unweighted."""
        sizes = zip(encoding.original_sizes, encoding.images.image_sizes, strict=True)
        squared, matches = [], []
        for target, default, (old, new) in zip(targets, encoding.default_boxes, sizes, strict=True):
            boxes = rescaled(target["boxes"].as_subclass(Tensor), old, new)
            squared.append({"boxes": boxes, "labels": target["labels"]})
            if len(boxes):  # the object of each default box, or -1; each has at least its best one
                matches.append(self.ssd.proposal_matcher(box_iou(boxes, default)))
            else:
                matches.append(default.new_full((len(default),), -1, dtype=torch.int64))
        return self.losses_of_matched(encoding, squared, matches)

    def losses_of_matched(
        self, encoding: SSDEncoding, targets: list[dict[str, Tensor]], matches: list[Tensor]
    ) -> dict[str, Tensor]:
        """The terms, given objects in pixels of the square and the object of each default box."""
        losses = self.ssd.compute_loss(targets, encoding.outputs, encoding.default_boxes, matches)
        return {"loss_cls": losses["classification"], "loss_loc": losses["bbox_regression"]}


Parts = tuple[nn.Module, DefaultBoxGenerator, nn.Module]  # features, default boxes, head


def _vgg_parts(config: ModelConfig, backbone: Backbone) -> Parts:
    """SSD300 (8,732 default boxes) or SSD512 (24,564) on VGG16, as the paper has them."""
    side = config.max_size
    layers = [layer for block in backbone.trunk for layer in block]
    features = SSDFeatureExtractorVGG(nn.Sequential(*layers, nn.MaxPool2d(2, 2)), highres=False)
    channels = [512, 1024, 512, 256, 256, 256]
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    if side == 512:
        # torchvision's high resolution keeps SSD300's unpadded layers: 6, 4, 1 in place of the
        # paper's 4, 2, 1 cells a side.
        features.extra = features.extra[:3]
        for size, stride in ((3, 2), (3, 2), (4, 1)):
            conv = nn.Conv2d(128, 256, size, stride, padding=1)
            block = nn.Sequential(nn.Conv2d(256, 128, 1), nn.ReLU(True), conv, nn.ReLU(True))
            _xavier_init(block)
            features.extra.append(block)
        channels.append(256)
        ratios.insert(1, [2, 3])
    if config.weights is not None:
        _subsample_fc(backbone.semantic, features.extra[0][-1])
    default_boxes = DefaultBoxGenerator(
        ratios, scales=list(SCALES[side]), steps=list(STEPS[side]), clip=False
    )
    per_cell = default_boxes.num_anchors_per_location()
    return features, default_boxes, SSDHead(channels, per_cell, len(config.classes) + 1)


@torch.no_grad()
def _subsample_fc(semantic: nn.Sequential, atrous: nn.Sequential) -> None:
    """Start conv6 and conv7 from every fourth unit of fc6 and fc7 and every third cell of 7 x 7."""
    fc6, fc7 = (layer for layer in semantic if isinstance(layer, nn.Linear))
    conv6, conv7 = (layer for layer in atrous if isinstance(layer, nn.Conv2d))
    weight = fc6.weight.unflatten(1, (conv6.in_channels, 7, 7))
    conv6.weight.copy_(weight[::4, :, ::3, ::3])
    conv6.bias.copy_(fc6.bias[::4])
    conv7.weight.copy_(fc7.weight[::4, ::4, None, None])
    conv7.bias.copy_(fc7.bias[::4])


def _mobilenet_parts(config: ModelConfig, backbone: Backbone) -> Parts:
    """SSDLite: six maps from stride 16 on, each half of the one before."""
    features = MobileNetFeatures(backbone)
    default_boxes = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    per_cell = default_boxes.num_anchors_per_location()
    outputs = len(config.classes) + 1
    return features, default_boxes, SSDLiteHead(features.channels, per_cell, outputs, BATCH_NORM)


class MobileNetFeatures(nn.Module):
    """Image [B, 3, side, side] -> six maps by name, of strides 16, 32 and so on.

    The first is the expansion of feature 14 (Sandler et al.: 'the expansion of layer 15'), the
    second the trunk's end, feature 17; four extra layers follow.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        first, *others = backbone.semantic[0]
        expansion, *rest = first.conv
        last = backbone.semantic_channels
        self.features = nn.ModuleList(
            [nn.Sequential(*backbone.trunk, expansion), nn.Sequential(*rest, *others)]
        )
        widths = [last, 512, 256, 256, 128]
        self.extra = nn.ModuleList(
            _extra_block(before, after, BATCH_NORM) for before, after in pairwise(widths)
        )
        _normal_init(self.extra)
        self.channels = [expansion.out_channels, *widths]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for name, layer in enumerate([*self.features, *self.extra]):
            maps[str(name)] = x = layer(x)
        return maps
