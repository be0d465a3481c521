"""Detections of a whole test set as one file, so that they can be judged again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from als.errors import InputError
from als.evaluation import Detections
from als.files import atomic_write


def save_detections(path: Path, image_ids: Sequence[str], detections: Sequence[Detections]) -> None:
    """Write the detections of each image as one compressed .npz, whole or not at all."""
    with atomic_write(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(
            file,
            image_ids=np.array(image_ids, dtype=str),
            counts=np.array([len(found.boxes) for found in detections], dtype=np.int64),
            boxes=np.concatenate([np.zeros((0, 4)), *(d.boxes for d in detections)]),
            labels=np.concatenate([np.zeros(0, np.int64), *(d.labels for d in detections)]),
            scores=np.concatenate([np.zeros(0), *(d.scores for d in detections)]),
        )


def load_detections(path: Path) -> dict[str, Detections]:
    """Detections by image id, in the order saved. Raises InputError for a file that is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = [np.split(arrays[name], ends) for name in ("boxes", "labels", "scores")]
        return {
            str(image_id): Detections(*found)
            for image_id, *found in zip(arrays["image_ids"], *parts, strict=True)
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: holds no saved detections ({error}); evaluate again.") from error
