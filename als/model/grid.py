"""Between the conv4 grid, where maps are made, and the pixels of an image."""

import math
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from als.images import reduced_size, stretch_thin
from als.model.backbone import STRIDE
from als.model.detector import Detector, Encoding


def map_to_image(
    grid: Tensor | None, encoding: Encoding, index: int = 0, longest: float = math.inf
) -> np.ndarray | None:
    """A map on the conv4 grid [B, 1, h, w] -> float32 [H, W] at the original image's size.

    Bilinear; cells that lie in the padding of the batch are cut off, values stay raw. longest: of
    the map's sides, in pixels; that of a larger image is made as for the image `reduced` to it.
    """
    if grid is None:
        return None
    return grids_to_image(grid[index : index + 1], encoding, index, longest)[0]


def grids_to_image(
    grids: Tensor, encoding: Encoding, index: int = 0, longest: float = math.inf
) -> np.ndarray:
    """Several maps [K, 1, h, w] of image `index` -> float32 [K, H, W], as `map_to_image`."""
    size = reduced_size(encoding.original_sizes[index], longest)
    return enlarge(grids.detach().float(), encoding, size, index).cpu().numpy()


def enlarge(grids: Tensor, encoding: Encoding, size: tuple[int, int], index: int = 0) -> Tensor:
    """Maps [K, 1, h, w] of image `index` -> [K, H, W], `size` being the photo's (H, W).

    Bilinear to the padded image, cut to the image, bilinear to the photo's size.
    """
    height, width = encoding.images.image_sizes[index]
    padded = tuple(encoding.images.tensors.shape[-2:])
    fine = F.interpolate(grids, padded, mode="bilinear")[..., :height, :width]
    return F.interpolate(fine, size, mode="bilinear")[:, 0]


def shrunk(pixels: Tensor, detector: Detector) -> Tensor:
    """A map [1, H, W], made no larger than the photo that the network gets.

    As `photo_of` averages photos, but not in 8 bit.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    small = reduced_size(size, 2 * detector.config.max_size)
    return pixels if small == size else F.interpolate(pixels[None], small, mode="area")[0]


def image_to_map(
    pixels: Tensor, detector: Detector, like: Tensor, beyond: Literal["edge", "zero"] = "zero"
) -> Tensor:
    """A map [1, H, W] at the photo's size -> [1, 1, h, w] on the padded conv4 grid of `like`.

    Each cell gets the mean over its pixels of the resized image. The padding counts as 0, as for
    a mask, since no object is there; or with beyond="edge" as the image's last row and column.
    """
    pixels = stretch_thin(shrunk(pixels, detector), detector.config.max_size)
    resized, _ = detector.transform.resize(pixels, None)
    padded = (like.shape[-2] * STRIDE, like.shape[-1] * STRIDE)
    missing = (0, padded[1] - resized.shape[-1], 0, padded[0] - resized.shape[-2])
    full = F.pad(resized[None], missing, mode="replicate" if beyond == "edge" else "constant")
    return F.adaptive_avg_pool2d(full, tuple(like.shape[-2:]))
