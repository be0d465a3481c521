"""Segmented objects of an image as COCO writes them, kept small until they are drawn.

COCO outlines each object by polygons, and crowds by runs (RLE). Both are turned into pycocotools'
compressed runs once: a few hundred bytes an object, which go to a worker cheaply, and which
pycocotools draws as it draws its own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Instances:
    """The segmented objects of one image, in the order of the file.

    classes: of each object the place of its class in the names of its `MaskSource`, from 0; None
        for pixels that are void whatever the class.
    runs: of each object its pixels, as the `counts` of a compressed RLE at the image's size.
    void: whether the pixels of each object are void: a crowd, an object of no area.
    """

    classes: tuple[int | None, ...]
    runs: tuple[bytes, ...]
    void: tuple[bool, ...]

    def draw(self, size: tuple[int, int], labels: Sequence[int], void_value: int) -> np.ndarray:
        """The label of every pixel, uint8 [H, W] for `size` (height, width); 0 is background.

        labels: the label of each class; objects of a class with label 0 are not drawn at all, so
            that they cover neither objects nor background.
        void_value: value of void pixels. An object covers void, a smaller object a larger one.
        """
        drawn = np.zeros(size, dtype=np.uint8)
        objects = []
        for place, runs, void in zip(self.classes, self.runs, self.void, strict=True):
            if place is not None and labels[place] == 0:
                continue
            inside = read_runs(runs, size)
            if void or place is None:
                drawn[inside] = void_value
            else:
                objects.append((inside.sum(), labels[place], inside))
        # By area alone: the sort is stable and must not compare masks.
        for _, label, inside in sorted(objects, key=lambda entry: entry[0], reverse=True):
            drawn[inside] = label
        return drawn


def pack(segmentation: list | dict, size: tuple[int, int]) -> bytes:
    """COCO's polygons ([[x, y, x, y, ...], ...], pixels) or RLE as compressed runs.

    size: (height, width) of the image. Raises ValueError when an RLE has another size or does not
    fill it, and what pycocotools raises for a segmentation that is none.
    """
    height, width = size
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"an RLE of size {segmentation['size']}, not {[height, width]}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if min(counts) < 0 or sum(counts) != height * width:
                # pycocotools would fill what is lacking with whatever lies in memory.
                raise ValueError(f"an RLE of {sum(counts)} pixels, not {height} x {width}")
            return _coco_mask().frPyObjects(segmentation, height, width)["counts"]
        return counts.encode() if isinstance(counts, str) else counts
    if not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation):
        # pycocotools takes four numbers for a box and reads past an odd end.
        raise ValueError("a polygon of fewer than three points or of an odd number of values")
    return _coco_mask().merge(_coco_mask().frPyObjects(segmentation, height, width))["counts"]


def write_runs(inside: np.ndarray) -> dict:
    """A bool [H, W] as COCO's compressed RLE, ready for JSON: {"size": [H, W], "counts": str}."""
    runs = _coco_mask().encode(np.asfortranarray(inside, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


def read_runs(runs: bytes, size: tuple[int, int]) -> np.ndarray:
    """Compressed runs as a bool [H, W] for `size` (height, width)."""
    return _coco_mask().decode({"size": list(size), "counts": runs}).astype(bool)


def area(runs: bytes, size: tuple[int, int]) -> int:
    """Pixels in compressed runs."""
    return int(_coco_mask().area({"size": list(size), "counts": runs}))


def _coco_mask():
    """pycocotools, imported when a COCO mask is first used: VOC's data need no such package."""
    from pycocotools import mask

    return mask
