"""Does the detection need the pixels that the map names? Insertion and deletion (Petsiuk 2018).

Both change the image from one state to another, the pixels of the largest map values first, and
follow the detection's score (`detection_score`, as in D-RISE, Petsiuk et al. 2021).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from als.explain.blackbox import BATCH_SIZE, BlackBox, detection_score
from als.explain.registry import Scene, black_box_of
from als.model.interface import IMAGENET_MEAN

STEPS = 20  # a twentieth of the pixels changes from one image to the next
BLUR_SIGMA = 10.0  # pixels
# The first and the last image of each curve. Insertion: the blurred image gets its pixels back,
# high is good. Deletion: the image loses them to ImageNet's mean colour, which is 0 for the
# network, as in RISE; low is good.
CURVES = {"insertion": ("blurred", "whole"), "deletion": ("whole", "plain")}


class Curve(NamedTuple):
    """A detection's score while pixels change, best pixels of the map first.

    shares: share of the pixels changed, [steps + 1], from 0 to 1. scores: at each of them.
    auc: area under the curve by the trapezoid rule, 0 to 1.
    """

    shares: np.ndarray
    scores: np.ndarray
    auc: float


class Curves:
    """The curves of a scene's detections; those of all maps begin and end with the same images.

    Each image has its first 100 proposals: a detection at a later one begins with a lower score.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.detect, self.detections = black_box_of(scene)
        image = scene.image
        self.images = {"blurred": blurred(image), "whole": image, "plain": plain(image)}

    @cached_property
    def found(self) -> dict[str, dict[str, Tensor]]:
        """Name -> what is detected in the image."""
        return {name: self.detect(image[None])[0] for name, image in self.images.items()}

    def areas(self, maps: np.ndarray, measure: str) -> list[float]:
        """Area under the curve `measure` (of `CURVES`) of each detection, for its map [K, H, W]."""
        if not len(maps):
            return []
        groups = [(heat, [one]) for heat, one in zip(maps, self.detections, strict=True)]
        if all(np.array_equal(heat, maps[0]) for heat in maps[1:]):  # the same images for all
            groups = [(maps[0], self.detections)]
        start, end = (self.images[name] for name in CURVES[measure])
        ends = [self.found[name] for name in CURVES[measure]]
        return [
            curve.auc
            for heat, some in groups
            for curve in change_curves(
                self.detect, start, end, heat, some, seed=self.scene.seed, ends=ends
            )
        ]


def change_curves(
    detect: BlackBox,
    start: Tensor,
    end: Tensor,
    heat: np.ndarray,
    detections: Sequence[tuple[np.ndarray, int]],
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    ends: Sequence[dict[str, Tensor]] | None = None,
) -> list[Curve]:
    """Scores while `start` becomes `end` [3, H, W] in falling order of a map [H, W].

    Args:
        detections: box [4] xyxy pixels and label of each detection; all share the passes.
        steps: changes from the first image to the last. batch_size: images in one forward pass.
        seed: equal values of the map come in random order, so that a flat map is a random one.
        ends: what `detect` finds in `start` and in `end`, where it is known.
    """
    rank = torch.from_numpy(pixel_ranks(heat, seed)).to(start.device)
    shares = np.linspace(0, 1, steps + 1)
    counts = np.round(shares * heat.size).astype(int)[slice(1, -1) if ends else slice(None)]
    found = []
    for begin in range(0, len(counts), batch_size):
        images = [torch.where(rank < c, end, start) for c in counts[begin : begin + batch_size]]
        found += detect(torch.stack(images))
    if ends:
        found = [ends[0], *found, ends[1]]
    scores = [[detection_score(f, box, label) for f in found] for box, label in detections]
    return [Curve(shares, np.array(s), float(np.trapezoid(s, shares))) for s in scores]


def pixel_ranks(heat: np.ndarray, seed: int) -> np.ndarray:
    """Rank of each pixel [H, W], 0 for the largest value; equal values in random order."""
    noise = np.random.default_rng(seed).random(heat.size)
    order = np.lexsort((noise, -np.asarray(heat, np.float64).ravel()))  # 8 bit would wrap
    ranks = np.empty(heat.size, dtype=np.int64)
    ranks[order] = np.arange(heat.size)
    return ranks.reshape(heat.shape)


def blurred(image: Tensor) -> Tensor:
    """The image [3, H, W] without detail: a Gaussian of sigma 10 pixels, cut at two sigma."""
    down, along = (int(min(2 * BLUR_SIGMA, side - 1)) for side in image.shape[-2:])
    for kernel in ([2 * along + 1, 1], [1, 2 * down + 1]):  # 82 products a pixel, not 41 x 41
        image = tv.gaussian_blur(image, kernel, [BLUR_SIGMA] * 2)
    return image


def plain(image: Tensor) -> Tensor:
    """ImageNet's mean colour in the shape of the image [3, H, W]."""
    return image.new_tensor(IMAGENET_MEAN)[:, None, None].expand_as(image)
