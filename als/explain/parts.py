"""Does a map lie on the whole object or on a part of it, and is that part the head?

The paper says that the localization map is 'activated on the entire region of the object', and
that the classification map focuses 'on the most sensible object part (e.g. near the head of the
animals)' (section 3.2). Measures of arrays; maps and regions as in `als.explain.localization`.
All are "not a number" for an object without pixels and for a map that is 0 on the object.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from als.errors import InputError
from als.explain.localization import positive

HEAD = ("left_eye", "right_eye", "nose", "left_ear", "right_ear")
SMALLEST_HEAD = 0.15  # radius, as a share of the square root of the box's area
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Animal:
    """Keypoints of one object (Animal-Pose, Cao et al. 2019).

    name: class. box: float32 [4] xyxy. keypoints: (x, y) of the visible ones by name. In 0-based
    pixels of the image.
    """

    name: str
    box: np.ndarray
    keypoints: dict[str, tuple[float, float]]


def read_animals(path: Path) -> dict[str, list[Animal]]:
    """Animals of each image id, from `Keypoints/animal_keypoints.json` of a VOC-layout folder.

    The file: image id -> list of {"name", "bbox": [xmin, ymin, xmax, ymax], "keypoints": {name:
    [x, y]}}.

    Raises:
        InputError: the file is missing or of another form.
    """
    try:
        return {
            image_id: [
                Animal(a["name"], np.array(a["bbox"], np.float32).reshape(4), a["keypoints"])
                for a in animals
            ]
            for image_id, animals in json.loads(Path(path).read_text()).items()
        }
    except OSError as error:
        raise InputError(f"{path}: no keypoints can be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a keypoints file ({type(error).__name__}: {error}); it must map image "
            "ids to lists of name, bbox and keypoints."
        ) from error


def match_animal(animals: list[Animal], box, name: str) -> Animal | None:
    """The animal of class `name` whose box fits `box` [4] best; None below IoU 0.5."""
    best, best_iou = None, MATCH_IOU
    for animal in animals:
        overlap = _box_iou(np.asarray(box, dtype=np.float64), animal.box)
        if animal.name == name and overlap >= best_iou:
            best, best_iou = animal, overlap
    return best


def head_disc(animal: Animal, size: tuple[int, int]) -> np.ndarray | None:
    """The head: a disc around the mean of the eyes, nose and ears that are visible.

    It reaches to the farthest of them, and at least 0.15 of the square root of the box's area,
    for a head seen from the side or by one point. None without a head keypoint.

    Args:
        size: (height, width) of the image.

    Returns:
        bool [H, W] or None.
    """
    points = np.array([animal.keypoints[n] for n in HEAD if n in animal.keypoints], dtype=float)
    if len(points) == 0:
        return None
    centre = points.mean(0)
    x1, y1, x2, y2 = animal.box
    smallest = SMALLEST_HEAD * np.sqrt(float(x2 - x1) * float(y2 - y1))
    radius = max(smallest, np.linalg.norm(points - centre, axis=1).max())
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None, :] + 0.5
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def coverage(map: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> float:
    """Share of the object's pixels at or over `threshold` times the whole map's maximum.

    'Activated on the entire region' is 1; recall of the mask that `mask_iou` thresholds.
    """
    map = positive(map)
    if not mask.any() or not map[mask].any():
        return float("nan")
    return float((map[mask] >= threshold * map.max()).mean())


def entropy(map: np.ndarray, mask: np.ndarray) -> float:
    """Shannon entropy of the map inside the mask, over that of an even map there: 0 to 1.

    With p = map / sum over the n pixels of the mask: -sum p log p / log n. 1 is an even map, 0
    one pixel. An object of one pixel has 1.
    """
    values = positive(map)[mask]
    if values.sum() <= 0:
        return float("nan")
    p = values[values > 0] / values.sum()
    return float(-(p * np.log(p)).sum() / np.log(values.size)) if values.size > 1 else 1.0


def gini(map: np.ndarray, mask: np.ndarray) -> float:
    """Gini coefficient of the map inside the mask: 0 is even, near 1 is one pixel.

    sum_i (2i - n - 1) x_i / (n sum x), x ascending, i from 1 (Hurley and Rickard 2009 compare
    measures of sparsity and choose it).
    """
    values = np.sort(positive(map)[mask])
    if values.sum() <= 0:
        return float("nan")
    n = values.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * values).sum() / (n * values.sum()))


def head_focus(map: np.ndarray, head: np.ndarray, mask: np.ndarray) -> float:
    """Mean of the map on the object's head, over its mean on the object: 1 is no preference.

    Args:
        map: [H, W]. head: bool [H, W] (`head_disc`), of which the part on the object counts.
        mask: bool [H, W] of the object.
    """
    map, head = positive(map), head & mask
    if not head.any() or not map[mask].any():
        return float("nan")
    return float(map[head].mean() / map[mask].mean())


def peak_on_head(map: np.ndarray, head: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Is the map's peak within the object on the head? (hit, chance), both 0 to 1.

    Equal peaks count by the share on the head. Chance is the head's share of the object's pixels:
    what a random pixel of the object hits. Arguments as in `head_focus`.
    """
    map, head = positive(map), head & mask
    if not head.any() or not map[mask].any():
        return float("nan"), float("nan")
    peak = mask & (map == map[mask].max())
    return float(head[peak].mean()), float(head.sum() / mask.sum())


def _box_iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    total = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / total if total > 0 else 0.0
