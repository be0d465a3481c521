"""Does the detection need the pixels that the map names? Insertion and deletion (Petsiuk 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from als.explain.blackbox import BATCH_SIZE, BlackBox, detection_score
from als.model.interface import IMAGENET_MEAN

STEPS = 50
BLUR_SIGMA = 10.0  # pixels


@dataclass(frozen=True)
class Curve:
    """A detection's score while pixels change, best pixels of the map first.

    shares: share of the pixels changed, [steps + 1], from 0 to 1. scores: `detection_score` at
    each. auc: area under the curve by the trapezoid rule, 0 to 1.
    """

    shares: np.ndarray
    scores: np.ndarray
    auc: float


def insertion(
    detect: BlackBox,
    image: Tensor,
    map: np.ndarray,
    box,
    label: int,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Curve:
    """The blurred image gets its pixels back, those of the largest map values first: high is good.

    Petsiuk et al. 2018 (RISE), for a detection as in D-RISE (Petsiuk et al. 2021): the
    score is the largest IoU x class score of a detection in the changed image.

    Args:
        detect: images [B, 3, H, W] -> detections. image: [3, H, W] in 0..1. map: [H, W].
        box: [4] xyxy pixels of the detection. label: its class.
        steps: changes from the first image to the last. batch_size: images in one forward pass.
        seed: equal values of the map come in random order, so that a flat map is a random one.
    """
    return change_curve(detect, blurred(image), image, map, box, label, steps, batch_size, seed)


def deletion(
    detect: BlackBox,
    image: Tensor,
    map: np.ndarray,
    box,
    label: int,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Curve:
    """The image loses its pixels to a plain colour, largest map values first: low is good.

    The colour is ImageNet's mean, which is 0 for the network, as in RISE. See `insertion`.
    """
    return change_curve(detect, image, plain(image), map, box, label, steps, batch_size, seed)


def change_curve(
    detect: BlackBox,
    start: Tensor,
    end: Tensor,
    map: np.ndarray,
    box,
    label: int,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Curve:
    """Score while `start` becomes `end` [3, H, W], pixel by pixel in falling order of the map."""
    return change_curves(detect, start, end, map, [(box, label)], steps, batch_size, seed)[0]


def change_curves(
    detect: BlackBox,
    start: Tensor,
    end: Tensor,
    map: np.ndarray,
    detections: Sequence[tuple[np.ndarray, int]],
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    ends: Sequence[dict[str, Tensor]] | None = None,
) -> list[Curve]:
    """`change_curve` of each detection (box [4], label) for one map: all share the passes.

    ends: what `detect` finds in `start` and in `end`, where it is known.
    """
    rank = torch.from_numpy(pixel_ranks(map, seed)).to(start.device)
    shares = np.linspace(0, 1, steps + 1)
    counts = np.round(shares * map.size).astype(int)[slice(1, -1) if ends else slice(None)]
    found = []
    for begin in range(0, len(counts), batch_size):
        images = [torch.where(rank < c, end, start) for c in counts[begin : begin + batch_size]]
        found += detect(torch.stack(images))
    if ends:
        found = [ends[0], *found, ends[1]]
    scores = [[detection_score(f, box, label) for f in found] for box, label in detections]
    return [Curve(shares, np.array(s), float(np.trapezoid(s, shares))) for s in scores]


def pixel_ranks(map: np.ndarray, seed: int) -> np.ndarray:
    """Rank of each pixel [H, W], 0 for the largest value; equal values in random order."""
    noise = np.random.default_rng(seed).random(map.size)
    order = np.lexsort((noise, -map.ravel()))
    ranks = np.empty(map.size, dtype=np.int64)
    ranks[order] = np.arange(map.size)
    return ranks.reshape(map.shape)


def blurred(image: Tensor) -> Tensor:
    """The image [3, H, W] without detail: a Gaussian of sigma 10 pixels, cut at two sigma."""
    reach = int(min(2 * BLUR_SIGMA, *(side - 1 for side in image.shape[-2:])))
    for kernel in ([2 * reach + 1, 1], [1, 2 * reach + 1]):  # 82 products a pixel, not 41 x 41
        image = tv.gaussian_blur(image, kernel, [BLUR_SIGMA] * 2)
    return image


def plain(image: Tensor) -> Tensor:
    """ImageNet's mean colour in the shape of the image [3, H, W]."""
    return image.new_tensor(IMAGENET_MEAN)[:, None, None].expand_as(image)
