"""Sanity of maps: do they follow the weights, and do they stay when the photograph hardly changes?

Weights: cascading randomization (Adebayo et al. 2018, 'Sanity checks for saliency maps'): from the
output back to the input, one group of layers more each time. The same proposal and class are
explained; a map that stays the same does not show what the network learnt.
Photograph: a mirrored one, and one that lost 8 pixels at the left and the top, half a cell of the
conv4 grid, are detected on anew; the map of the same detection should come along.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.stats import spearmanr
from torchvision.ops import box_iou

from als.explain.registry import Scene, make_maps
from als.images import photo_of
from als.inference import Predictor
from als.model import Detector
from als.study.cases import MATCH_IOU

Compare = Callable[[str, np.ndarray], list[float]]
"""(Name of a map, maps [K, H, W] as they are) -> similarity of each with the one after a change."""

SHIFT = 8  # pixels
SAMPLED = 4  # every so many pixels are compared; maps are smooth

CASCADE = {
    "random_head": ("roi_heads.cls_score", "roi_heads.bbox_pred", "rpn."),
    "random_conv5": ("roi_heads.conv5",),
    "random_attention": ("attention_",),
    "random_trunk": ("trunk.",),
}


def similarity(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation of two maps [H, W], -1 to 1; not a number if one is constant."""
    one, two = (heat[::SAMPLED, ::SAMPLED].ravel() for heat in (one, two))
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return float("nan")
    return float(spearmanr(one, two).statistic)


@torch.no_grad()
def randomized(detector: Detector, seed: int) -> dict[str, Detector]:
    """Copies of the detector, each with one group of layers of `CASCADE` more at random.

    The values of every tensor are shuffled: random weights of the very distribution.
    """
    generator = torch.Generator().manual_seed(seed)
    copies, current = {}, detector
    for stage, prefixes in CASCADE.items():
        current = deepcopy(current)
        for name, tensor in current.named_parameters():
            if name.startswith(prefixes):
                order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view_as(tensor))
        copies[stage] = current
    return copies


@torch.no_grad()
def under_randomization(scene: Scene, stage: Detector) -> Compare:
    """Against the maps that `stage` makes of the same proposals."""
    encoding = stage.encode([photo_of(scene.image, stage.config.max_size)])
    changed = replace(scene, detector=stage, encoding=encoding)
    everyone = list(range(len(scene.boxes)))
    return lambda name, maps: _compare(name, maps, changed, everyone)


def scene_again(
    predictor: Predictor, image: Image.Image, boxes: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[Scene, list[int]]:
    """The scene of a changed photograph, for those detections that are still made in it, and which
    of the K each of them is. boxes: [K, 4], where they should be now. labels: [K]."""
    analysis = predictor.analyse(image)
    found = analysis.prediction
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(found.boxes)).numpy()
    iou[labels[:, None] != found.labels[None]] = 0
    kept = [k for k in range(len(boxes)) if iou.shape[1] and iou[k].max() >= MATCH_IOU]
    return predictor.scene(analysis, [int(iou[k].argmax()) for k in kept], seed), kept


def under_flip(predictor: Predictor, image: Image.Image, scene: Scene) -> Compare:
    """The same for the mirrored photograph; not a number where the detection is gone."""
    x1, y1, x2, y2 = scene.boxes.T
    boxes = np.stack([image.width - x2, y1, image.width - x1, y2], 1)
    changed = scene_again(predictor, ImageOps.mirror(image), boxes, scene.labels, scene.seed)
    return lambda name, maps: _compare(name, maps, *changed, mirrored=True)


def under_shift(predictor: Predictor, image: Image.Image, scene: Scene) -> Compare:
    """The same for a photograph without its leftmost and topmost 8 pixels; NaN if none are left."""
    if min(image.size) <= SHIFT:
        return lambda name, maps: [float("nan")] * len(maps)
    crop = image.crop((SHIFT, SHIFT, image.width, image.height))
    boxes = np.maximum(scene.boxes - SHIFT, 0)
    changed = scene_again(predictor, crop, boxes, scene.labels, scene.seed)
    return lambda name, maps: _compare(name, maps[:, SHIFT:, SHIFT:], *changed)


def _compare(
    name: str, maps: np.ndarray, changed: Scene, kept: list[int], mirrored: bool = False
) -> list[float]:
    values = [float("nan")] * len(maps)
    if kept:
        for k, heat in zip(kept, make_maps(name, changed), strict=True):
            values[k] = similarity(maps[k], heat[:, ::-1] if mirrored else heat)
    return values
