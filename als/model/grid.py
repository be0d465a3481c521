"""Between the conv4 grid, where maps are made, and the pixels of an image."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from als.model.backbone import STRIDE
from als.model.detector import Detector, Encoding


def map_to_image(grid: Tensor | None, encoding: Encoding, index: int = 0) -> np.ndarray | None:
    """A map on the conv4 grid [B, 1, h, w] -> float32 [H, W] at the original image's size.

    Bilinear; cells that lie in the padding of the batch are cut off, values stay raw.
    """
    if grid is None:
        return None
    return grids_to_image(grid[index : index + 1], encoding, index)[0]


def grids_to_image(grids: Tensor, encoding: Encoding, index: int = 0) -> np.ndarray:
    """Several maps [K, 1, h, w] of image `index` -> float32 [K, H, W], as `map_to_image`."""
    padded = tuple(encoding.images.tensors.shape[-2:])
    height, width = encoding.images.image_sizes[index]
    fine = F.interpolate(grids.detach().float(), padded, mode="bilinear", align_corners=False)
    fine = fine[..., :height, :width]
    original = encoding.original_sizes[index]
    resized = F.interpolate(fine, original, mode="bilinear", align_corners=False)
    return resized[:, 0].cpu().numpy()


def image_to_map(pixels: Tensor, detector: Detector, like: Tensor) -> Tensor:
    """A map [1, 1, H, W] at image size -> [1, 1, h, w] on the padded conv4 grid of `like`.

    Each cell gets the mean over its pixels of the resized image; the padding counts as 0.
    """
    resized, _ = detector.transform.resize(pixels[0], None)
    padded = (like.shape[-2] * STRIDE, like.shape[-1] * STRIDE)
    full = F.pad(
        resized[None], (0, padded[1] - resized.shape[-1], 0, padded[0] - resized.shape[-2])
    )
    return F.adaptive_avg_pool2d(full, tuple(like.shape[-2:]))
