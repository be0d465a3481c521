"""Segmentation masks of an image, whatever file they come from, as one label per pixel.

The localization attention map is trained on a binary map, "1 for pixels of objects and 0 otherwise"
(paper, section 2.1). An image without a mask has no such target: the functions here return None
for it, never an empty map, because an empty map would teach that nothing is there.

COCO outlines each object by polygons, and crowds by runs (RLE). Both are turned into pycocotools'
compressed runs once: a few hundred bytes an object, which go to a worker cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.io

from als.data.fields import number, numbers, shown
from als.errors import InputError
from als.images import open_image

if TYPE_CHECKING:  # record.py imports this module
    from als.data.record import Record

VOID = 255
"""Pixel value of borders and of regions that nobody labelled; no loss and no measure counts it."""

LONGEST_OUTLINE = 1_000_000
"""Pixels along a polygon, and to its farthest point: pycocotools takes 80 bytes of memory each."""

_LONGEST_COUNT = 7  # characters of a compressed count: 35 bits


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


@dataclass(frozen=True)
class MaskSource:
    """Where the mask of an image lies and what its pixel values mean.

    kind: "png", or "sbd-class" or "sbd-instance" for the .mat files of the Semantic Boundaries
        Dataset (Hariharan et al. 2011), or "coco" for objects that are drawn when asked for.
    path: the file.
    names: `names[value - 1]` is the class of a pixel of that value. For a class map these are the
        data set's classes, for an object map the classes of the objects in the order of the XML.
    instances: the objects to draw; None for a mask in a file of its own.
    """

    kind: str
    path: Path
    names: tuple[str, ...]
    instances: Instances | None = None


def find_masks(
    folder: Path, image_id: str, class_names: Sequence[str], object_names: Sequence[str]
) -> list[MaskSource]:
    """All masks of an image in a folder of the VOC layout; the first is the one to use.

    The order is SegmentationClass/ID.png, SegmentationObject/ID.png, SBD/cls/ID.mat,
    SBD/inst/ID.mat.

    class_names: the data set's classes; pixel value k of a class map is `class_names[k - 1]`.
    object_names: classes of all objects in the image's XML, in its order.
    """
    classes, objects = tuple(class_names), tuple(object_names)
    candidates = (
        MaskSource("png", folder / "SegmentationClass" / f"{image_id}.png", classes),
        MaskSource("png", folder / "SegmentationObject" / f"{image_id}.png", objects),
        MaskSource("sbd-class", folder / "SBD" / "cls" / f"{image_id}.mat", classes),
        MaskSource("sbd-instance", folder / "SBD" / "inst" / f"{image_id}.mat", classes),
    )
    return [source for source in candidates if source.path.is_file()]


def read_class_map(record: Record, classes: Sequence[str]) -> np.ndarray | None:
    """The label of every pixel: uint8 [H, W], or None when the image has no mask.

    k is `classes[k - 1]`, as in `record.labels`; 0 is the background and every class outside
    `classes`; 255 is void. Where COCO's objects overlap, the smaller is on top.

    Raises InputError when the mask cannot be read, has values without a meaning, or has not the
    size of the image.
    """
    source = record.mask
    if source is None:
        return None
    known = {name: label for label, name in enumerate(classes, start=1)}
    labels = [known.get(name, 0) for name in source.names]
    if source.instances is not None:
        return source.instances.draw(record.size, labels)
    values = _read_values(source)
    if values.shape != record.size:
        raise InputError(
            f"{source.path}: the mask is {values.shape[1]}x{values.shape[0]} pixels but the image "
            f"is {record.size[1]}x{record.size[0]}; replace the mask or remove it."
        )
    highest = np.bincount(values.ravel(), minlength=256)[:VOID].nonzero()[0].max(initial=0)
    if highest > len(source.names):
        raise InputError(
            f"{source.path}: pixel value {highest} has no meaning, the highest that has one is "
            f"{len(source.names)}; replace the mask or remove it."
        )
    table = np.zeros(256, dtype=np.uint8)
    table[VOID] = VOID
    labels = labels[: VOID - 1]  # a file has no values for more
    table[1 : len(labels) + 1] = labels
    return table[values]


def read_instances(record: Record, labels: np.ndarray) -> list[np.ndarray]:
    """The pixels of each object, bool [H, W], where a data set tells objects apart; else none.

    So do COCO, whose crowds are no object, and SegmentationObject/ in VOC's layout. `labels` as of
    `read_class_map`: what is void or of no class there is no object's. Raises InputError as that.
    """
    source = record.mask
    if source is not None and source.instances is not None:
        told = zip(source.instances.runs, source.instances.void, strict=True)
        whole = [read_runs(runs, record.size) for runs, void in told if not void]
    elif source is not None and source.kind == "png":
        folder = source.path.parents[1 + record.image_id.count("/")]
        values = read_object_numbers(record, folder, highest=VOID - 1)
        if values is None:
            return []
        whole = [values == value for value in np.unique(values) if value not in (0, VOID)]
    else:
        return []
    return [pixels & (labels > 0) & (labels != VOID) for pixels in whole]


def read_object_numbers(record: Record, folder: Path, highest: int) -> np.ndarray | None:
    """The number of the object of each pixel, uint8 [H, W], in the order of the XML, 255 void.

    It lies in FOLDER/SegmentationObject; None where it does not. Raises InputError as
    `read_class_map` does, too for a number above `highest`.
    """
    path = folder / "SegmentationObject" / f"{record.image_id}.png"
    if not path.is_file():
        return None
    names = tuple(f"object {number}" for number in range(1, highest + 1))
    # Read as a class map of which every object is a class of its own.
    return read_class_map(replace(record, mask=MaskSource("png", path, names)), names)


def shown_classes(source: MaskSource) -> set[str]:
    """The names of the classes that have a pixel in a mask of a file of its own.

    A value that means no class is "value 9". Raises InputError when the mask cannot be read.
    """
    values = np.unique(_read_values(source)).tolist()
    known = dict(enumerate(source.names, start=1))
    return {known.get(value, f"value {value}") for value in values if value not in (0, VOID)}


def read_object_map(record: Record, classes: Sequence[str]) -> np.ndarray | None:
    """The target of the localization attention map (paper, section 2.1), or None without a mask.

    uint8 [H, W] at the size of the image: 1 for pixels of an object of `classes`, 0 otherwise,
    255 void. Raises InputError as `read_class_map` does.
    """
    labels = read_class_map(record, classes)
    if labels is None:
        return None
    return np.where(labels == VOID, VOID, labels > 0).astype(np.uint8)


def fill(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether each pixel of an image of `size` (height, width) is touched by a box: bool [H, W].

    boxes: float [N, 4], x1 y1 x2 y2 in pixels.
    """
    inside = np.zeros(size, dtype=bool)
    low = np.floor(boxes[:, :2]).clip(0).astype(int)
    high = np.ceil(boxes[:, 2:]).clip(0).astype(int)
    for (x1, y1), (x2, y2) in zip(low, high, strict=True):
        inside[y1:y2, x1:x2] = True
    return inside


def _read_values(source: MaskSource) -> np.ndarray:
    """The pixel values as stored: uint8 [H, W]. SBD's instances become the class of each."""
    try:
        if source.kind == "png":
            return _read_png(source.path)
        mat = scipy.io.loadmat(source.path)
        if source.kind == "sbd-class":
            return mat["GTcls"]["Segmentation"][0, 0].astype(np.uint8)
        instances = mat["GTinst"]["Segmentation"][0, 0]
        categories = mat["GTinst"]["Categories"][0, 0].ravel()
        return np.concatenate([[0], categories])[instances].astype(np.uint8)
    except InputError:
        raise
    except Exception as error:  # scipy and PIL raise many kinds for a broken file
        raise InputError(
            f"{source.path}: the mask cannot be read ({error}); replace it or remove it."
        ) from error


def _read_png(path: Path) -> np.ndarray:
    with open_image(path, f"{path}: the mask cannot be read", formats=("PNG",)) as image:
        if image.mode not in ("P", "L"):
            raise InputError(
                f"{path}: the mask holds colours (mode {image.mode}) where one index per pixel is "
                "needed; save it as a palette PNG."
            )
        return np.array(image)


def palette() -> bytes:
    """VOC's colours: the bits of a value are dealt to red, green, blue, highest bit first."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for value in range(256):
        for bit in range(8):
            colours[value, bit % 3] |= ((value >> bit) & 1) << (7 - bit // 3)
    return colours.tobytes()


def pack(segmentation: list | dict, size: tuple[int, int]) -> bytes:
    """COCO's polygons ([[x, y, x, y, ...], ...], pixels) or RLE as compressed runs.

    size: (height, width) of the image. Raises ValueError, which says what to do, for a segmentation
    that is none: pycocotools, which is C, would read past the end of its memory or ask for all.
    """
    height, width = size
    if isinstance(segmentation, dict):
        runs = _checked_runs(segmentation, size)
        return _coco_mask().frPyObjects({"size": [height, width], "counts": runs}, height, width)[
            "counts"
        ]
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
    values = _as_array(polygon)
    if values is not None and float(np.abs(values).max()) * len(values) <= LONGEST_OUTLINE:
        return polygon  # as nearly all are; NaN is not below anything
    if values is None or not np.isfinite(values).all():
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


def _as_array(values: list) -> np.ndarray | None:
    """Plain numbers at once, None where one is none: one by one takes a minute for train2017."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return None


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
    bits = np.frombuffer(code.encode(errors="replace"), dtype=np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(bits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    outside = ((bits < 0) | (bits > 63)).any()
    if outside or not len(ends) or ends[-1] != len(bits) - 1 or lengths.max() > _LONGEST_COUNT:
        raise ValueError(f"counts of the RLE are {shown(code)}, which is not COCO's code of them")
    starts = ends - lengths + 1
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((bits & 31) << 5 * place, starts)
    counts -= np.where(bits[ends] & 16, np.int64(1) << 5 * lengths, 0)
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return counts.tolist()


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
