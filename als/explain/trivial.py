"""Maps that look at nothing, or only at what any detector knows: what others must beat."""

import numpy as np
import torch
import torch.nn.functional as F

from als.model import Detector, Encoding
from als.model.backbone import STRIDE
from als.model.grid import map_to_image

SIGMA = 0.25  # standard deviation of the Gaussians, as a share of each side


def box_gaussian(size: tuple[int, int], box) -> np.ndarray:
    """A Gaussian in the middle of a box [4] (xyxy, pixels), sigma a quarter of each of its sides.

    float32 [H, W] for a `size` (H, W), at most 1; a pixel's value is that at its centre.
    """
    height, width = size
    x1, y1, x2, y2 = (float(v) for v in box)
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / (SIGMA * (x2 - x1))
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / (SIGMA * (y2 - y1))
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)


@torch.inference_mode(False)
@torch.no_grad()
def objectness(detector: Detector, encoding: Encoding) -> np.ndarray:
    """The RPN's score of the best anchor at each place: what any two-stage detector knows.

    float32 [H, W], 0 to 1, at the original size of the encoding's one image.
    """
    (logits,), _ = detector.rpn.head([encoding.f_loc])
    return map_to_image(logits.amax(1, keepdim=True).sigmoid(), encoding)


def random(size: tuple[int, int], seed: int) -> np.ndarray:
    """Random values as coarse as the model's own maps: one for every 16 pixels, interpolated.

    float32 [H, W] in 0..1 for a `size` (H, W).
    """
    grid = [-(-side // STRIDE) for side in size]
    values = np.random.default_rng(seed).random(grid, dtype=np.float32)
    fine = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")
    return fine[0, 0].numpy()
