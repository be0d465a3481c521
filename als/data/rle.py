"""COCO's objects as runs (RLE): outlines and crowds in, one label per pixel out.

Polygons and RLE are turned into pycocotools' compressed runs once: a few hundred bytes an object,
which go to a worker cheaply.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from als.data.fields import number, numbers, shown

VOID = 255
"""Pixel value of borders and of regions that nobody labelled; no loss and no measure counts it."""

LONGEST_OUTLINE = 1_000_000
"""Pixels along a polygon, and to its farthest point: pycocotools takes 80 bytes of memory each."""

_LONGEST_COUNT = 35  # bits of a compressed count


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

    def draw(self, size: tuple[int, int], labels: Sequence[int]) -> np.ndarray:
        """The label of every pixel, uint8 [H, W] for `size` (height, width); 0 is background.

        labels: the label of each class; objects of a class with label 0 are not drawn at all, so
            that they cover neither objects nor background. An object covers void, a smaller object
            a larger one.
        """
        drawn = np.zeros(size, dtype=np.uint8)
        objects = []
        for place, runs, void in zip(self.classes, self.runs, self.void, strict=True):
            if place is not None and labels[place] == 0:
                continue
            if void or place is None:
                drawn[read_runs(runs, size)] = VOID
            else:
                objects.append((area(runs, size), labels[place], runs))
        # By area alone: the sort is stable. Drawn one by one, each is as large as the image.
        for _, label, runs in sorted(objects, key=lambda entry: entry[0], reverse=True):
            drawn[read_runs(runs, size)] = label
        return drawn


def pack(segmentation: list | dict, size: tuple[int, int]) -> bytes:
    """COCO's polygons ([[x, y, x, y, ...], ...], pixels) or RLE as compressed runs.

    size: (height, width) of the image. Raises ValueError, which says what to do, for a segmentation
    that is none: pycocotools, which is C, would read past the end of its memory or ask for all.
    """
    height, width = size
    if isinstance(segmentation, dict):
        runs = _checked_runs(segmentation, size)
        whole = {"size": [height, width], "counts": runs}
        return _coco_mask().frPyObjects(whole, height, width)["counts"]
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation is {shown(segmentation)}; write polygons or an RLE")
    polygons = [_checked_polygon(polygon) for polygon in segmentation]
    return _coco_mask().merge(_coco_mask().frPyObjects(polygons, height, width))["counts"]


def _checked_polygon(polygon: Any) -> list[float]:
    """A polygon that pycocotools can draw within `LONGEST_OUTLINE`."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        # pycocotools takes four numbers for a box and reads past an odd end.
        told = "a polygon of fewer than three points or of an odd number of values"
        raise ValueError(f"segmentation has {told}: {shown(polygon)}; correct or remove it")
    if set(map(type, polygon)) <= {int, float}:  # at once: one by one takes a minute for train2017
        with suppress(OverflowError):
            farthest = float(np.abs(np.array(polygon, dtype=np.float64)).max())
            if farthest * len(polygon) <= LONGEST_OUTLINE:  # as nearly all are; never of NaN
                return polygon
    values = np.array([number(v, "a value of a polygon of its segmentation") for v in polygon])
    points = values.reshape(-1, 2)
    with np.errstate(over="ignore"):  # infinite is too long as well
        outline = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if max(outline, np.abs(points).max()) > LONGEST_OUTLINE:
        raise ValueError(
            f"segmentation has a polygon {shown(polygon)} that reaches or runs over more than "
            f"{LONGEST_OUTLINE:,} pixels; correct or remove it"
        )
    return values.tolist()


def _checked_runs(rle: dict, size: tuple[int, int]) -> list[int]:
    """The counts of a plain or compressed RLE, which fill an image of `size`."""
    sides = numbers(rle.get("size"), ("height", "width"), "size of the RLE")
    if sides != list(size):
        told = f"segmentation is an RLE of size {shown(rle['size'])}, not {list(size)}"
        raise ValueError(f"{told}, that of the image; correct or remove it")
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = _decoded_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        told = "write whole numbers, or COCO's code of them"
        raise ValueError(f"counts of the RLE are {shown(counts)}; {told}")
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        # pycocotools would fill what is lacking with whatever lies in memory.
        told = f"{shown(sum(counts))} pixels, not {size[0]} x {size[1]}"
        raise ValueError(f"segmentation is an RLE of {told}; correct or remove it")
    return counts


def _decoded_counts(code: str) -> list[int]:
    """COCO's compressed counts as numbers.

    Each is written from its low end, five bits a character ("0" + bits + 32 if more follow), in
    two's complement; from the fourth on it is the difference to the one before the last.
    """
    counts: list[int] = []
    value = place = 0
    for bits in (ord(character) - ord("0") for character in code):
        if not 0 <= bits < 64 or place == _LONGEST_COUNT:
            break
        value |= (bits & 31) << place
        place += 5
        if bits < 32:
            value -= (bits >> 4) << place
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = place = 0
    else:
        if counts and not place:
            return counts
    raise ValueError(f"counts of the RLE are {shown(code)}, which is not COCO's code of them")


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
