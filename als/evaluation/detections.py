"""Detections and objects of images as plain arrays: all that evaluation takes, and their file."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from als.errors import InputError
from als.files import atomic_write

_MAPS = "map_"  # before the name of a figure of the maps, in a file
_EXTRAS = {"difficult": bool, "scores": np.float64}
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError)
DAMAGED += (zipfile.BadZipFile, zlib.error)
"""What numpy, zipfile and zlib raise for an .npz that is cut off or altered."""


@dataclass(frozen=True)
class GroundTruth:
    """The objects of one image.

    boxes [N, 4]: xyxy, absolute pixels, 0-based, half-open. labels [N]: integers 1..C. difficult
    [N]: True for objects that VOC leaves out of the count. Anything `np.asarray` takes will do,
    CPU tensors too; kept as float64, int64 and bool.
    Raises InputError on shapes that disagree and on boxes that are not finite or end before they
    start; a label's upper bound is checked where the classes are known.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

    def __post_init__(self) -> None:
        _check(self, "difficult")


@dataclass(frozen=True)
class Detections:
    """The detections of one image, in any order.

    boxes [K, 4] and labels [K] as in `GroundTruth`; scores [K], higher is surer, kept as float64.
    Raises InputError as `GroundTruth` does, and on NaN scores.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        _check(self, "scores")
        if np.isnan(self.scores).any():
            raise InputError("Detections: a score is NaN; mend what computes the scores.")


def flatten(
    images: Sequence[GroundTruth] | Sequence[Detections], extra: str, n_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All images in a row: boxes [M, 4], labels [M], `extra` [M] and image index [M], from 0.

    extra: "difficult" of ground truths or "scores" of detections. Raises InputError on a label
    outside 1..n_classes.
    """
    # An empty first part lets a list of no images pass.
    boxes = np.concatenate([np.zeros((0, 4)), *(i.boxes for i in images)])
    labels = np.concatenate([np.zeros(0, np.int64), *(i.labels for i in images)])
    extras = np.concatenate([np.zeros(0, _EXTRAS[extra]), *(getattr(i, extra) for i in images)])
    index = np.repeat(np.arange(len(images)), [len(i.boxes) for i in images])
    wrong = np.flatnonzero((labels < 1) | (labels > n_classes))
    if len(wrong):
        raise InputError(
            f"Image {index[wrong[0]]} of the list (from 0) has label {labels[wrong[0]]}; labels "
            f"must be 1 to {n_classes}, the number of classes."
        )
    return boxes, labels, extras, index


def class_numbers(classes: Sequence[str], kept: Sequence[str]) -> np.ndarray:
    """[C + 1]: by the label that a name has among `classes`, its label among `kept`, 0 for none.

    Raises InputError for a name of `kept` that is not among `classes`.
    """
    if unknown := [name for name in kept if name not in classes]:
        raise InputError(f"class '{unknown[0]}' is none of the detector's: {', '.join(classes)}.")
    numbers = np.zeros(len(classes) + 1, np.int64)
    numbers[[classes.index(name) + 1 for name in kept]] = np.arange(1, len(kept) + 1)
    return numbers


def of_classes(found: Detections, numbers: np.ndarray) -> Detections:
    """The detections of some classes, relabelled by `class_numbers`."""
    own = numbers[found.labels] > 0
    return Detections(found.boxes[own], numbers[found.labels[own]], found.scores[own])


def save_detections(
    path: Path,
    image_ids: Sequence[str],
    detections: Sequence[Detections],
    classes: Sequence[str] = (),
    maps: Sequence[dict[str, float]] = (),
    network: str = "",
) -> None:
    """Write the detections of each image as one compressed .npz, to be judged again.

    classes: label k is `classes[k - 1]`. maps: figures of the maps, the same for each image.
    network: what tells it apart from others.
    """
    figures = {name: np.array([one[name] for one in maps]) for name in (maps[0] if maps else ())}
    with atomic_write(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(
            file,
            image_ids=np.array(image_ids, dtype=str),
            counts=np.array([len(found.boxes) for found in detections], dtype=np.int64),
            boxes=np.concatenate([np.zeros((0, 4)), *(d.boxes for d in detections)]),
            labels=np.concatenate([np.zeros(0, np.int64), *(d.labels for d in detections)]),
            scores=np.concatenate([np.zeros(0), *(d.scores for d in detections)]),
            classes=np.array(classes, dtype=str),
            network=np.array(network),
            **{f"{_MAPS}{name}": values for name, values in figures.items()},
        )


class Judgeable(NamedTuple):
    """What `save_detections` wrote; by image id. Older files say of no network."""

    detections: dict[str, Detections]
    classes: tuple[str, ...]
    maps: list[dict[str, float]]
    network: str


def load_judgeable(path: Path) -> Judgeable:
    """All of a file of saved detections. Raises InputError for a file that is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = [np.split(arrays[name], ends) for name in ("boxes", "labels", "scores")]
        found = {
            str(image_id): Detections(*one)
            for image_id, *one in zip(arrays["image_ids"], *parts, strict=True)
        }
        figures = {k.removeprefix(_MAPS): v for k, v in arrays.items() if k.startswith(_MAPS)}
        rows = zip(*(values.tolist() for values in figures.values()), strict=True)
        maps = [dict(zip(figures, row, strict=True)) for row in rows]
        classes = tuple(arrays.get("classes", np.array([])).tolist())
        return Judgeable(found, classes, maps, str(arrays.get("network", "")))
    except (*DAMAGED, InputError) as error:
        raise InputError(f"{path}: holds no saved detections ({error}); evaluate again.") from error


def _check(record: GroundTruth | Detections, extra: str) -> None:
    """Put checked arrays in a frozen record; float64 boxes, so that areas in pixels are exact."""
    name = type(record).__name__
    boxes = np.asarray(record.boxes, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    labels = np.asarray(record.labels, np.int64)
    extras = np.asarray(getattr(record, extra), _EXTRAS[extra])
    rows = (len(boxes),)
    if boxes.shape != (*rows, 4) or labels.shape != rows or extras.shape != rows:
        raise InputError(
            f"{name}: boxes must be [N, 4], labels and {extra} [N], got shapes {boxes.shape}, "
            f"{labels.shape} and {extras.shape}."
        )
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise InputError(f"{name}: a box is not finite or ends before it starts; give x1 y1 x2 y2.")
    for field, value in (("boxes", boxes), ("labels", labels), (extra, extras)):
        object.__setattr__(record, field, value)
