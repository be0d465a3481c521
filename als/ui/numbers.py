"""Figures of maps beside their pictures; numpy and scipy only."""

import numpy as np
from scipy.stats import spearmanr

from als.drawing import sampled

GRID = (96, 96)  # rank correlations are of maps sampled on this grid: they are smooth


def share_inside(map: np.ndarray, box: np.ndarray) -> float:
    """Share of a map's sum [H, W] that lies inside a box [4] (xyxy pixels), 0 to 1.

    NaN for a map that is zero everywhere. An even map gets the box's share of the image.
    """
    total = float(map.sum(dtype=np.float64))
    rows, columns = _cut(map, box)
    inside = float(map[rows, columns].sum(dtype=np.float64))
    return inside / total if total > 0 else float("nan")


def share_of_area(size: tuple[int, int], box: np.ndarray) -> float:
    """A box's share of the image of (height, width): what `share_inside` gives an even map."""
    return share_inside(np.broadcast_to(np.float32(1), size), box)


def iou_at_half(map: np.ndarray, box: np.ndarray) -> float:
    """IoU of a box with the pixels that reach half of the map's highest value.

    0.5 is relative to the maximum, because Grad-CAM has no scale of its own. NaN for a map that is
    zero everywhere.
    """
    highest = float(map.max())
    if not highest > 0:
        return float("nan")
    over = map >= 0.5 * highest
    rows, columns = _cut(map, box)
    inside = np.count_nonzero(over[rows, columns])
    area = over[rows, columns].size
    return inside / (np.count_nonzero(over) + area - inside)


def rank_correlations(maps: dict[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """Spearman's rank correlation of each two maps [H, W]; NaN where one of them is constant."""
    names = list(maps)
    values = {name: sampled(map, GRID).ravel() for name, map in maps.items()}
    result = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            constant = np.ptp(values[first]) == 0 or np.ptp(values[second]) == 0
            result[first, second] = (
                float("nan") if constant else float(spearmanr(values[first], values[second])[0])
            )
    return result


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box [4] with boxes [N, 4] -> [N]."""
    corner = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    sides = np.clip(corner[1] - corner[0], 0, None)
    both = sides[:, 0] * sides[:, 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    own = (box[2] - box[0]) * (box[3] - box[1])
    return both / np.maximum(areas + own - both, 1e-9)


def _cut(map: np.ndarray, box: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose centres lie in the box, at least one of each."""
    height, width = map.shape
    spans = []
    for low, high, size in ((box[1], box[3], height), (box[0], box[2], width)):
        start = int(np.clip(np.ceil(low - 0.5), 0, size - 1))
        spans.append(slice(start, int(np.clip(np.ceil(high - 0.5), start + 1, size))))
    return spans[0], spans[1]
