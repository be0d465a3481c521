"""Detections as COCO's results JSON: a list of {image_id, category_id, bbox, score}.

bbox is x, y, width, height in pixels, 0-based; `pycocotools.coco.COCO.loadRes` and COCO's server
take such files. An image in which nothing was found is not in it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from als.data.coco_ids import CocoIds, Id
from als.data.fields import number, numbers, shown
from als.errors import InputError
from als.evaluation.detections import Detections
from als.files import atomic_write

FIELDS = ("x", "y", "width", "height")
ENDS = ("x", "y", "x + width", "y + height")


def result_rows(
    image_id: Id, boxes: np.ndarray, names: Iterable[str], scores: np.ndarray, ids: CocoIds
) -> list[dict[str, Any]]:
    """The rows of an image's detections; boxes [K, 4] xyxy, the names of their classes."""
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    columns = zip(sides, names, np.asarray(scores).tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": ids.categories[name], "bbox": box, "score": score}
        for box, name, score in columns
    ]


def write_results(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of `result_rows`, one a line, whole or not at all."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    with atomic_write(path) as aside:
        aside.write_text(f"[\n{lines}\n]\n")


def read_results(path: Path, ids: CocoIds, classes: Sequence[str]) -> dict[str, Detections]:
    """Detections by image id of the records; label k is `classes[k - 1]`, others are left out.

    Raises InputError for a file that is no such list, whoever wrote it: an image or a category that
    the data set has not, a box or a score that is no finite number, a negative side.
    """
    image_of = {id_: name for name, id_ in ids.images.items()}
    name_of = {id_: name for name, id_ in ids.categories.items()}
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    found: dict[str, list[tuple[list[float], int, float]]] = defaultdict(list)
    for place, row in enumerate(_rows(path)):
        try:
            image = image_of[_known(row, "image_id", image_of, "images")]
            name = name_of[_known(row, "category_id", name_of, "categories")]
            x, y, width, height = numbers(row.get("bbox"), FIELDS, "bbox")
            if min(width, height) < 0:
                raise ValueError(f"bbox is {shown(row['bbox'])}; write {', '.join(FIELDS)}")
            box = numbers([x, y, x + width, y + height], ENDS, "bbox")
            score = number(row.get("score"), "score")
        except ValueError as error:
            raise InputError(f"{path}: result {place} (from 0): {error}.") from error
        if name in label_of:
            found[image].append((box, label_of[name], score))
    return {image: Detections(*zip(*some, strict=True)) for image, some in found.items()}


def _rows(path: Path) -> list[dict]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as COCO's results ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{path}: holds no COCO results, which are a list of "
            "{image_id, category_id, bbox, score}; annotations go to `als data`."
        )
    return rows


def _known(row: dict, key: str, ids: dict[Id, str], told: str) -> Id:
    """An id of the data set; True, which equals 1, is none. Raises ValueError."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value not in ids:
        raise ValueError(f"{key} is {shown(value)}, which is none of the data set's {told}")
    return value
