"""Does a map lie where the object is? Measures of arrays, all 0 to 1.

Larger is better, but of leakage smaller is.

A map [H, W] is raw; values below 0 count as 0. A region is a boolean array of the same shape: the
object's box (`box_region`) or its mask. Energy, IoU and leakage take arrays of any shape, so that
void pixels can be left out: `energy(map[known], mask[known])`.

A map without a value over 0 is empty: it misses, and scores 0 (leakage: not a number).
"""

import numpy as np
from scipy.ndimage import distance_transform_edt

MARGIN = 15  # pixels


def box_region(box, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies in a box: bool [H, W].

    Args:
        box: [4] xyxy, pixels, half-open. size: (height, width).
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None, :] + 0.5
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def pointing_game(map: np.ndarray, region: np.ndarray, margin: float = MARGIN) -> float:
    """Does the map's peak hit the object? Zhang et al. 2018 (Excitation Backprop).

    A hit is a peak at most `margin` pixels from the region: 15 in the paper, 0 for none. Equal
    peaks count by the share that hits, which for a flat map is the chance of a random pixel.

    Args:
        map: [H, W]. region: bool [H, W] with a pixel set.
    """
    map = positive(map)
    if not map.any() or not region.any():
        return 0.0
    peaks = map == map.max()
    if margin == 0:
        return float(region[peaks].mean())
    # Only what is near a peak matters: most maps have one.
    window = _window(peaks, int(margin) + 1)
    peaks, region = peaks[window], region[window]
    if not region.any():
        return 0.0
    return float((distance_transform_edt(~region)[peaks] <= margin).mean())


def energy(map: np.ndarray, region: np.ndarray) -> float:
    """Share of the map's sum inside the region: Wang et al. 2020 (Score-CAM).

    The energy-based pointing game; in Quantus it is called relevance mass accuracy.
    """
    map = positive(map)
    total = map.sum()
    return float(map[region].sum() / total) if total > 0 else 0.0


def mask_iou(map: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> float:
    """IoU of the mask with the pixels at or over `threshold` times the map's maximum.

    Localization as in Zhou et al. 2016 (CAM), on the mask in place of a box.
    """
    map = positive(map)
    if not map.any():
        return 0.0
    chosen = map >= threshold * map.max()
    return float((chosen & mask).sum() / (chosen | mask).sum())


def best_mask_iou(map: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The largest `mask_iou` of all thresholds, and that threshold as a share of the maximum.

    Independent of how a map is scaled (as MaxBoxAcc of Choe et al. 2020 is, for boxes).
    """
    map = positive(map).ravel()
    inside = np.sort(map[mask.ravel()])
    if not map.any() or not inside.size:
        return 0.0, 0.0
    # The best threshold is the map's value at a pixel of the mask: between two such values a lower
    # one only adds pixels outside. Equal values are chosen together, hence the first of each.
    first = np.flatnonzero(np.append(True, inside[1:] > inside[:-1]))[::-1]
    thresholds, hits = inside[first], inside.size - first
    chosen = map.size - np.searchsorted(np.sort(map), thresholds)
    iou = hits / (chosen + inside.size - hits)
    best = int(iou.argmax())
    return float(iou[best]), float(thresholds[best] / map.max())


def leakage(map: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """Of the map's sum on objects, the share that lies on other instances; 0 is best.

    Pixels of both (overlapping boxes) count as the object's own. The energy-based pointing game
    between instances: is the explanation of this instance (as Zhao and Chan 2023, ODAM, want it)?

    Args:
        map: [H, W]. own: bool region of the explained object. others: of all other instances.

    Returns:
        0 to 1; not a number where there is no other instance, or nothing lies on any object.
    """
    map = positive(map)
    others = others & ~own
    total = map[own | others].sum()
    return float(map[others].sum() / total) if others.any() and total > 0 else float("nan")


def _window(chosen: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of [H, W] that holds all chosen pixels and `margin` pixels around them."""
    rows, columns = (np.flatnonzero(chosen.any(axis)) for axis in (1, 0))
    return tuple(slice(max(0, i[0] - margin), i[-1] + margin + 1) for i in (rows, columns))


def positive(map: np.ndarray) -> np.ndarray:
    """Float64, values below 0 cut; all zeros if a value is not finite (an empty map)."""
    map = np.asarray(map, dtype=np.float64)
    return np.maximum(map, 0) if np.isfinite(map).all() else np.zeros_like(map)
