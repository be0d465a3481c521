"""An image and what is known about it, whatever layout it was read from."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL.Image import Image

from als.data.rle import Instances
from als.errors import InputError
from als.images import as_rgb, exif_orientation

TOLERANCE = 1.0
"""Pixels by which a box may leave its image (rounding); it is clipped. More is an error."""


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


@dataclass(frozen=True)
class CocoEntry:
    """What a COCO file says of an image, for COCO's measures.

    file: the JSON file. image_id: the image's id there.
    names: the file's categories, id -> name, by rising id.
    boxes: float64 [N, 4], x y width height of the record's objects as the file writes them.
    areas: float64 [N], in pixels, of the objects' masks where the file says so.
    """

    file: Path
    image_id: int | str
    names: dict[int | str, str]
    boxes: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Record:
    """An image and what is known about it.

    image_id: file name without its ending, with the subfolders that it lies in (cam1/0001);
        unique in a list of records.
    path: the image file.
    size: (height, width) in pixels as every viewer shows the image, EXIF's orientation applied;
        boxes and mask count in this frame.
    boxes: float32 [N, 4], x1 y1 x2 y2 in pixels, 0-based and half-open (x2 - x1 is the width).
    labels: int64 [N], 1 to C: the place in `classes`, plus one.
    difficult: bool [N], marked as hard to recognise, or a crowd in COCO; neither trained on nor
        counted.
    mask: where the segmentation is, None when there is none.
    coco: the image's entry in the COCO file that it was read from, None for other layouts.
    """

    image_id: str
    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    mask: MaskSource | None
    coco: CocoEntry | None = None


class Problem(InputError):
    """One file of a data set cannot be used: `file` is which, `problem` what is wrong with it.

    `str()` of it is a sentence, as of every InputError.
    """

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"{file}: {problem}.")
        self.file = file
        self.problem = problem

    @classmethod
    def of(cls, file: Path, error: InputError) -> "Problem":
        """A sentence about a file, taken apart again."""
        return cls(file, str(error).removeprefix(f"{file}: ").rstrip("."))


def refuse(problem: Problem) -> NoReturn:
    """Where every broken file ends what is done."""
    raise problem


def nothing_to_count(records: Iterable[Record]) -> str | None:
    """Why records can be neither trained nor judged on, or None: no object, or only difficult."""
    difficult = [mark for record in records for mark in record.difficult.tolist()]
    if not all(difficult):
        return None
    if not difficult:
        return "nothing to train on: it holds no object"
    return (
        f"nothing to train on: all {len(difficult)} objects are marked difficult or are crowds, "
        "which do not count; unmark some"
    )


def told_doubled(where: Path | str, records: Iterable[Record]) -> str | None:
    """The sentence about objects that stand twice in an image, as in merged files; None if none do.

    Only one of the two can be found.
    """
    doubled = []
    for record in records:
        rows = np.column_stack([record.boxes, record.labels])[~record.difficult]
        doubled += [record.image_id] * (len(rows) - len(np.unique(rows, axis=0)))
    if not doubled:
        return None
    return (
        f"{where}: {len(doubled)} objects stand twice, with one class and box, in images as "
        f"{doubled[0]}; each counts, and only one of the two can be found: take one out."
    )


def fingerprint(records: Iterable[Record]) -> str:
    """16 hex digits that name this ground truth: ids, sizes, boxes, labels, difficult marks.

    The same on every machine, below every root and in every order of the records.
    """
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.image_id):
        digest.update(f"{record.image_id} {record.size} {len(record.labels)}\n".encode())
        digest.update(record.boxes.astype("<f4").tobytes())
        digest.update(record.labels.astype("<i8").tobytes())
        digest.update(record.difficult.astype("u1").tobytes())
    return digest.hexdigest()[:16]


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N, 4] held to an image of (height, width), float32, and bool [N]: what has an area.

    A box without an area can be found by nobody, so that it is no object.
    """
    limits = np.array([size[1], size[0]] * 2, dtype=np.float64)
    clipped = np.asarray(boxes, np.float64).reshape(-1, 4).clip(0, limits).astype(np.float32)
    return clipped, (clipped[:, 2:] > clipped[:, :2]).all(axis=1)


def record_of(
    image_id: str,
    path: Path,
    size: tuple[int, int],
    objects: Sequence[Any],
    classes: Sequence[str],
) -> tuple[Record, list[int], list[int]]:
    """The objects of `classes` among those of an image, without a mask; boxes are clipped.

    objects: with a name, corners (x1 y1 x2 y2) and whether they are difficult.

    Returns the record, the places of its objects, and of those left out for want of area.
    """
    boxes, has_area = clip_boxes(np.array([one.corners for one in objects]), size)
    wanted = [place for place, one in enumerate(objects) if one.name in classes]
    kept = [place for place in wanted if has_area[place]]
    record = Record(
        image_id=image_id,
        path=path,
        size=size,
        boxes=boxes[kept],
        labels=np.array([classes.index(objects[place].name) + 1 for place in kept], np.int64),
        difficult=np.array([objects[place].difficult for place in kept], np.bool_),
        mask=None,
    )
    return record, kept, [place for place in wanted if not has_area[place]]


def told_without_area(path: Path, objects: Sequence[str]) -> str:
    """The sentence about objects that were left out because `clip_boxes` leaves them no area."""
    return (
        f"{path}: {len(objects)} objects have a box of no area inside their image "
        f"({', '.join(objects[:5])}); they are left out."
    )


def box_problem(box: Sequence[float], size: tuple[int, int], told: str) -> str | None:
    """What is wrong with a box (x1 y1 x2 y2) in an image of `size` (height, width), or None.

    told: what the sentence calls it.
    """
    x1, y1, x2, y2 = box
    height, width = size
    if not (x2 > x1 and y2 > y1):
        return f"{told} has no area; correct or remove it"
    if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
        return f"{told} lies outside the image of {width}x{height} pixels; correct or remove it"
    return None


def size_problem(path: Path, size: tuple[int, int], told: tuple[int, int]) -> str | None:
    """What is wrong when a photo of (height, width) `size` has an annotation that says `told`."""
    if size == told:
        return None
    if size == told[::-1] and exif_orientation(path) >= 5:
        return (
            f"EXIF turns it to {size[1]}x{size[0]} pixels but its annotation says "
            f"{told[1]}x{told[0]}, as it is stored; annotate it as viewers show it, or remove the "
            "orientation from its EXIF"
        )
    return (
        f"the image is {size[1]}x{size[0]} pixels but its annotation says {told[1]}x{told[0]}; "
        "correct one of them"
    )


def read_photo(path: Path, size: tuple[int, int] | None) -> Image:
    """The photo of an annotation that says (height, width) `size`, or None for any.

    Raises Problem when it does not decode to its end, or is of another size.
    """
    try:
        photo = as_rgb(path, name=str(path))
    except InputError as error:
        raise Problem.of(path, error) from error
    if size and (problem := size_problem(path, (photo.height, photo.width), size)):
        raise Problem(path, problem)
    return photo
