"""How good detections are: the VOC devkit's measure (`voc`) and COCO's (`coco`).

Both take one `Detections` and one `GroundTruth` per image, plain arrays, and know no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from als.errors import InputError

_EXTRAS = {"difficult": bool, "scores": np.float64}


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
