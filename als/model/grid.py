"""Between the conv4 grid, where maps are made, and the pixels of an image."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from als.images import stretch_thin  # noqa: F401  (until its importers name als.images)
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
    size = encoding.original_sizes[index]
    return enlarge(grids.detach().float(), encoding, size, index).cpu().numpy()


def enlarge(grids: Tensor, encoding: Encoding, size: tuple[int, int], index: int = 0) -> Tensor:
    """Maps [K, 1, h, w] of image `index` -> [K, H, W], `size` being the original (H, W).

    Bilinear to the padded image, cut to the image, bilinear to its original size. All three act on
    rows and columns apart, so they are two matrix products, which take less time for large images.
    """
    padded = encoding.images.tensors.shape[-2:]
    kept = encoding.images.image_sizes[index]
    lengths = zip((2, 3), padded, kept, size, strict=True)
    rows, columns = (_shares(grids, *of_side) for of_side in lengths)
    return rows @ (grids[:, 0] @ columns.T)


def _shares(grids: Tensor, side: int, padded: int, kept: int, size: int) -> Tensor:
    """[size, cells]: what each cell along a side (2 or 3) of `grids` gives to each pixel."""
    cells = torch.eye(grids.shape[side], dtype=grids.dtype, device=grids.device)[None]
    fine = F.interpolate(cells, padded, mode="linear", align_corners=False)[..., :kept]
    return F.interpolate(fine, size, mode="linear", align_corners=False)[0].T


def image_to_map(
    pixels: Tensor, detector: Detector, like: Tensor, beyond: Literal["edge", "zero"] = "zero"
) -> Tensor:
    """A map [1, 1, H, W] at image size -> [1, 1, h, w] on the padded conv4 grid of `like`.

    Each cell gets the mean over its pixels of the resized image. The padding counts as 0, as for
    a mask, since no object is there; or with beyond="edge" as the image's last row and column.
    """
    resized, _ = detector.transform.resize(pixels[0], None)
    padded = (like.shape[-2] * STRIDE, like.shape[-1] * STRIDE)
    missing = (0, padded[1] - resized.shape[-1], 0, padded[0] - resized.shape[-2])
    full = F.pad(resized[None], missing, mode="replicate" if beyond == "edge" else "constant")
    return F.adaptive_avg_pool2d(full, tuple(like.shape[-2:]))
