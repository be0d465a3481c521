"""MR-CNN (Gidaris and Komodakis 2015): ten regions of a box, features of a weak segmentation.

F -> RPN -> proposals; F -> S, features of a network that segments;
ten regions of a RoI on F, one on S -> a module each -> all vectors side by side -> class logits;
the RoI and what is around it on F -> its own module -> a box for each class.
RoIs are scored and moved, scored and moved again; after NMS the boxes vote.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, clip_boxes_to_image

from als.baselines.rfcn import at_full_stride
from als.config import ModelConfig
from als.model.attention import attention_loss
from als.model.backbone import STRIDE, Backbone
from als.model.boxes import sides
from als.model.detector import Detector, Encoding
from als.model.roi_heads import Chosen, SeparatedRoIHeads, parts, roi_pool

LOCALIZATION_SCALE = 1.3  # of the box whose feature gives the deltas
SEGMENTATION_SCALE, SEGMENTATION_BINS = 1.5, 9
ROUNDS = 2  # of iterative localization
VOTING_IOU = 0.5

Share = tuple[float, float, float, float]  # x1, y1, x2, y2 in sides of a box, from its corner


def about_centre(scale: float) -> Share:
    """The box scaled about its centre."""
    near, far = (1 - scale) / 2, (1 + scale) / 2
    return near, near, far, far


class Region(NamedTuple):
    """A rectangle or a ring. hole: side of what a ring leaves out, in sides of the rectangle."""

    share: Share
    hole: float = 0.0


def ring(inner: float, outer: float) -> Region:
    """What lies between the box scaled by `inner` and by `outer`."""
    return Region(about_centre(outer), inner / outer)


REGIONS = {  # section 3.1 and figure 3, with the scales of the authors' code
    "whole": Region(about_centre(1.0)),
    "left half": Region((0.0, 0.0, 0.5, 1.0)),
    "right half": Region((0.5, 0.0, 1.0, 1.0)),
    "upper half": Region((0.0, 0.0, 1.0, 0.5)),
    "lower half": Region((0.0, 0.5, 1.0, 1.0)),
    "centre": Region(about_centre(0.5)),
    "ring of the centre": ring(0.3, 0.8),
    "inner border": ring(0.5, 1.0),
    "outer border": ring(0.8, 1.5),
    "context": ring(1.0, 1.8),
}


def part_of(boxes: Tensor, share: Share) -> Tensor:
    """The share of boxes [N, 4] xyxy; it may stick out of the image."""
    return boxes[:, :2].repeat(1, 2) + boxes.new_tensor(share) * sides(boxes).repeat(1, 2)


class AdaptationModules(nn.ModuleList):
    """Pooled features of each region [R, C, k, k] -> their vectors side by side [R, D]."""

    def forward(self, pooled: list[Tensor]) -> Tensor:
        return torch.cat([module(one) for module, one in zip(self, pooled, strict=True)], dim=1)


class MultiRegionRoIHeads(SeparatedRoIHeads):
    """RoIs on F and S side by side (`f_cls`) -> class logits; on F (`f_loc`) -> deltas.

    A bin of a region outside the image is zero, so that all others keep their place.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(config, backbone)
        channels, width = backbone.trunk_channels, backbone.semantic_channels
        # Four cells of it make a bin of `pool`: the mean of its samples, or its highest value.
        self.fine_pool = roi_pool(config, 2 * config.pool_size, samples=1)
        self.of_four = F.avg_pool2d if config.pool == "align" else F.max_pool2d
        self.segmentation_pool = roi_pool(config, SEGMENTATION_BINS)
        segmentation = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * SEGMENTATION_BINS**2, width // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(),
        )
        regions = [deepcopy(backbone.semantic) for _ in REGIONS]
        self.conv5_cls = AdaptationModules([*regions, segmentation])
        self.conv5_loc = deepcopy(backbone.semantic)
        self.cls_score = nn.Linear(len(REGIONS) * width + width // 2, len(config.classes) + 1)

    def classify(
        self, f_cls: Tensor, rois: list[Tensor], rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        f, s = f_cls.chunk(2, dim=1)
        pooled = [self.pool_region(f, rois, region) for region in REGIONS.values()]
        around = [part_of(one, about_centre(SEGMENTATION_SCALE)) for one in rois]
        vectors = self.conv5_cls([*pooled, self.segmentation_pool(s, around)])
        return self.cls_score(vectors), vectors

    def pool_region(self, f: Tensor, rois: list[Tensor], region: Region) -> Tensor:
        """A region's features [R, channels, k, k]; what lies in a ring's hole is zero."""
        boxes = [part_of(one, region.share) for one in rois]
        if not region.hole:
            return self.pool(f, boxes)
        cells = self.fine_pool(f, boxes)
        count = cells.shape[-1]
        reach = region.hole * count / 2
        inside = (torch.arange(count, device=f.device) + 0.5 - count / 2).abs() < reach
        return self.of_four(cells.masked_fill(inside[:, None] & inside, 0.0), 2)

    def localize(self, f_loc: Tensor, rois: list[Tensor]) -> Tensor:
        return super().localize(
            f_loc, [part_of(one, about_centre(LOCALIZATION_SCALE)) for one in rois]
        )

    def detections(
        self,
        logits: Tensor,
        vectors: Tensor,
        f_cls: Tensor,
        f_loc: Tensor,
        proposals: list[Tensor],
        image_sizes: list[tuple[int, int]],
        threshold: float,
        labels: Sequence[int] | None = None,
    ) -> list[Chosen]:
        """As the base has it, by iterative localization and box voting (section 5).

        A candidate is a RoI and a class whose score is over the threshold, of an image the best,
        at most as many as it has RoIs. Each is moved, scored at its new place and moved again;
        boxes of both rounds, with the score that each was moved from, go through NMS and vote.
        """
        asked = torch.arange(1, logits.shape[1]) if labels is None else torch.tensor(labels)
        asked = asked.to(logits.device)
        scores, rows, classes = [], [], []
        for own in parts(logits.softmax(-1)[:, asked], proposals):
            best, pairs = own.flatten().sort(descending=True)
            pairs = pairs[: len(own)][best[: len(own)] > threshold]
            scores.append(own.flatten()[pairs])
            rows.append(pairs // len(asked))
            classes.append(asked[pairs % len(asked)])
        boxes = [roi[row] for roi, row in zip(proposals, rows, strict=True)]
        found = [(self.moved(f_loc, boxes, classes, image_sizes), scores)]
        while len(found) < ROUNDS:
            boxes = found[-1][0]
            of_class = self.classify(f_cls, boxes)[0].softmax(-1)
            of_class = of_class.gather(1, torch.cat(classes)[:, None])[:, 0]
            found.append((self.moved(f_loc, boxes, classes, image_sizes), parts(of_class, boxes)))
        chosen = []
        for index, size in enumerate(image_sizes):
            candidates = (
                torch.cat([boxes[index] for boxes, _ in found]),
                classes[index].repeat(ROUNDS),
                torch.cat([scores[index] for _, scores in found]),
            )
            kept = self.suppress(*candidates, rows[index].repeat(ROUNDS), size, threshold)
            chosen.append(voted(kept, *candidates))
        return chosen

    def moved(
        self,
        f_loc: Tensor,
        boxes: list[Tensor],
        classes: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Boxes [N, 4] of each image where the deltas of their class put them, in the image."""
        deltas, labels = self.localize(f_loc, boxes).unflatten(1, (-1, 4)), torch.cat(classes)
        deltas = deltas[torch.arange(len(labels), device=labels.device), labels]
        decoded = self.box_coder.decode_single(deltas, torch.cat(boxes))
        pairs = zip(parts(decoded, boxes), image_sizes, strict=True)
        return [clip_boxes_to_image(one, size) for one, size in pairs]


def voted(kept: Chosen, boxes: Tensor, labels: Tensor, scores: Tensor) -> Chosen:
    """Each box that NMS kept becomes the mean of its class's candidates around it, by score.

    boxes, labels, scores: all candidates [K, 4], [K], [K]; an IoU over `VOTING_IOU` is around.
    """
    around = box_iou(kept.boxes, boxes) > VOTING_IOU
    weights = scores * (around & (kept.labels[:, None] == labels))
    # A matrix product would be rounded to bfloat16 under autocast.
    mean = (weights[..., None] * boxes).sum(1) / weights.sum(1, keepdim=True)
    return kept._replace(boxes=mean)


class SegmentationNetwork(nn.Module):
    """F [B, channels, h, w] -> S, the last features of a network that segments, of like shape.

    The classifier's layers made convolutions (section 4). `class_maps` makes logits
    [B, C, h, w] of S, for the loss alone.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__()
        channels = backbone.trunk_channels
        first, width = convolutional(backbone)
        self.layers = nn.Sequential(first, nn.Conv2d(width, channels, 1), nn.ReLU(inplace=True))
        self.class_maps = nn.Conv2d(channels, len(config.classes), 1)

    def forward(self, f: Tensor) -> Tensor:
        return self.layers(f)


@torch.no_grad()
def convolutional(backbone: Backbone) -> tuple[nn.Module, int]:
    """conv5 at the trunk's stride, of VGG16 fc6 as a convolution of 7 x 7; and its channels."""
    first = backbone.semantic[0]
    if not isinstance(first, nn.Identity):
        return at_full_stride(deepcopy(first)), backbone.semantic_channels
    fc6 = next(layer for layer in backbone.semantic if isinstance(layer, nn.Linear))
    window = round((fc6.in_features / backbone.trunk_channels) ** 0.5)
    conv6 = nn.Conv2d(backbone.trunk_channels, fc6.out_features, window, padding=window // 2)
    conv6.weight.copy_(fc6.weight.view_as(conv6.weight))
    conv6.bias.copy_(fc6.bias)
    return nn.Sequential(conv6, nn.ReLU(inplace=True), nn.Dropout()), fc6.out_features


class MRCNNDetector(Detector):
    """`Detector` with regions and segmentation; loss_seg comes to its losses."""

    heads = MultiRegionRoIHeads

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(config, backbone)
        self.segmentation = SegmentationNetwork(config, backbone)

    def attend(self, encoding: Encoding) -> Encoding:
        """F, zero outside the images, as f_loc; F and S side by side as f_cls."""
        f = encoding.f
        f = f * inside(encoding.images.image_sizes, f.shape[-2:]).to(f)
        return replace(encoding, f_loc=f, f_cls=torch.cat([f, self.segmentation(f)], dim=1))

    def losses(self, encoding: Encoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        losses = super().losses(encoding, targets)
        logits = self.segmentation.class_maps(encoding.f_cls.chunk(2, dim=1)[1])
        maps = box_filled_maps(targets, encoding.images.image_sizes, logits.shape[1:])
        return losses | {"loss_seg": attention_loss(logits, maps.to(logits.device))}


def inside(image_sizes: list[tuple[int, int]], grid: Sequence[int]) -> Tensor:
    """Which cells [B, 1, h, w] of a grid (h, w) have their centre in the image, not in padding."""
    y, x = (STRIDE * (torch.arange(side) + 0.5) for side in grid)
    cells = [(y[:, None] < height) & (x < width) for height, width in image_sizes]
    return torch.stack(cells)[:, None]


def box_filled_maps(
    targets: list[dict[str, Tensor]], image_sizes: list[tuple[int, int]], shape: Sequence[int]
) -> Tensor:
    """What the segmentation learns, of boxes alone: float [B, C, h, w] for `shape` (C, h, w).

    1 where a cell's centre lies in a box of the class, else 0; NaN in the padding.
    """
    classes, *grid = shape
    y, x = (STRIDE * (torch.arange(side) + 0.5) for side in grid)
    maps = torch.zeros(len(targets), classes, *grid)
    for own, target in zip(maps, targets, strict=True):
        for label, (x1, y1, x2, y2) in zip(
            target["labels"].tolist(), target["boxes"].tolist(), strict=True
        ):
            rows, columns = (y >= y1) & (y < y2), (x >= x1) & (x < x2)
            own[label - 1][rows[:, None] & columns] = 1.0
    return maps.masked_fill(~inside(image_sizes, grid), float("nan"))
