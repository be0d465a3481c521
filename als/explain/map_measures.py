"""Where a map lies: on the object, on the whole of it or a part, and is that part its head?

Measures of arrays. A map [H, W] is raw; values below 0 count as 0. A region is a boolean array of
the same shape, and no other: the object's box (`box_region`) or its mask. Measures without a
neighbourhood take arrays of any shape, so that void pixels can be left out: `energy(heat[known],
mask[known])`.

A map without a value over 0 is empty: it misses, and scores 0. Of what is measured within the
object or between objects (all from `leakage` on) it has no value: not a number. Nor has a map with
nothing on the object, though it may have values elsewhere.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt

from als.errors import InputError

MARGIN = 15  # pixels


def box_region(box, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies in a half-open box [4] (xyxy, pixels): bool [H, W]."""
    x1, y1, x2, y2 = (float(v) for v in box)
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None, :] + 0.5
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def pointing_game(heat: np.ndarray, region: np.ndarray, margin: float = MARGIN) -> float:
    """Does the map's peak hit the object? Zhang et al. 2018 (Excitation Backprop). 0 to 1.

    A hit is a peak at most `margin` pixels from the region: 15 in the paper, 0 for none. Equal
    peaks count by the share that hits, which for a flat map is the chance of a random pixel.
    """
    heat = _positive(heat, region)
    if not heat.any() or not region.any():
        return 0.0
    peaks = heat == heat.max()
    if margin == 0:
        return float(region[peaks].mean())
    # Only what is near a peak matters: most maps have one.
    window = _window(peaks, int(margin) + 1)
    peaks, region = peaks[window], region[window]
    if not region.any():
        return 0.0
    return float((distance_transform_edt(~region)[peaks] <= margin).mean())


def energy(heat: np.ndarray, region: np.ndarray) -> float:
    """Share of the map's sum inside the region, 0 to 1: Wang et al. 2020 (Score-CAM).

    The energy-based pointing game; in Quantus it is called relevance mass accuracy.
    """
    heat = _positive(heat, region)
    total = heat.sum()
    return float(heat[region].sum() / total) if total > 0 else 0.0


def mask_iou(heat: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> float:
    """IoU of the mask with the pixels at or over `threshold` times the map's maximum.

    Localization as in Zhou et al. 2016 (CAM), on the mask in place of a box.
    """
    heat = _positive(heat, mask)
    if not heat.any():
        return 0.0
    chosen = heat >= threshold * heat.max()
    return float((chosen & mask).sum() / (chosen | mask).sum())


def best_mask_iou(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The largest `mask_iou` of all thresholds, and that threshold as a share of the maximum.

    Independent of how a map is scaled (as MaxBoxAcc of Choe et al. 2020 is, for boxes).
    """
    heat = _positive(heat, mask).ravel()
    inside = np.sort(heat[mask.ravel()])
    if not heat.any() or not inside.size:
        return 0.0, 0.0
    # The best threshold is the map's value at a pixel of the mask: between two such values a lower
    # one only adds pixels outside. Equal values are chosen together, hence the first of each.
    first = np.flatnonzero(np.append(True, inside[1:] > inside[:-1]))[::-1]
    thresholds, hits = inside[first], inside.size - first
    chosen = heat.size - np.searchsorted(np.sort(heat), thresholds)
    iou = hits / (chosen + inside.size - hits)
    best = int(iou.argmax())
    return float(iou[best]), float(thresholds[best] / heat.max())


def leakage(heat: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """Of the map's sum on objects, the share that lies on other instances; 0 is best, 1 worst.

    Pixels of both (overlapping boxes) count as the object's own. The energy-based pointing game
    between instances: is the explanation of this instance (as Zhao and Chan 2023, ODAM, want it)?

    Args:
        own: bool region of the explained object. others: of all other instances.
    """
    return odi(heat, own, others & ~own)


def odi(heat: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """Object discrimination index (Zhao and Chan 2023, ODAM): 0 is best, 1 worst.

    Energy in all other objects over that in all objects. Unlike in `leakage`, whose arguments it
    has, pixels of both count as the others' too.
    """
    heat = _positive(heat, own, others)
    total = heat[own | others].sum()
    return float(heat[others].sum() / total) if others.any() and total > 0 else float("nan")


def coverage(heat: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> float:
    """Share of the object's pixels at or over `threshold` times the whole map's maximum.

    'Activated on the entire region of the object' (paper, section 3.2) is 1; recall of the mask
    that `mask_iou` thresholds.
    """
    heat = _positive(heat, mask)
    if not heat[mask].any():
        return float("nan")
    return float((heat[mask] >= threshold * heat.max()).mean())


def entropy(heat: np.ndarray, mask: np.ndarray) -> float:
    """Shannon entropy of the map inside the mask, over that of an even map there: 0 to 1.

    With p = map / sum over the n pixels of the mask: -sum p log p / log n. 1 is an even map, 0
    one pixel. An object of one pixel has 1.
    """
    values = _positive(heat, mask)[mask]
    if values.sum() <= 0:
        return float("nan")
    p = values[values > 0] / values.sum()
    return float(-(p * np.log(p)).sum() / np.log(values.size)) if values.size > 1 else 1.0


def gini(heat: np.ndarray, mask: np.ndarray) -> float:
    """Gini coefficient of the map inside the mask: 0 is even, near 1 is one pixel.

    sum_i (2i - n - 1) x_i / (n sum x), x ascending, i from 1 (Hurley and Rickard 2009 compare
    measures of sparsity and choose it).
    """
    values = np.sort(_positive(heat, mask)[mask])
    if values.sum() <= 0:
        return float("nan")
    n = values.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * values).sum() / (n * values.sum()))


def head_focus(heat: np.ndarray, head: np.ndarray, mask: np.ndarray) -> float:
    """Mean of the map on the object's head, over its mean on the object: 1 is no preference.

    'Near the head of the animals' (paper, section 3.2) is over 1. Of the head [H, W] the part on
    the object counts.
    """
    heat, head = _positive(heat, head, mask), head & mask
    if not head.any() or not heat[mask].any():
        return float("nan")
    return float(heat[head].mean() / heat[mask].mean())


def peak_on_head(heat: np.ndarray, head: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Is the map's peak within the object on the head? (hit, chance), both 0 to 1.

    Equal peaks count by the share on the head. Chance is the head's share of the object's pixels:
    what a random pixel of the object hits. Arguments as in `head_focus`.
    """
    heat, head = _positive(heat, head, mask), head & mask
    if not head.any() or not heat[mask].any():
        return float("nan"), float("nan")
    peak = mask & (heat == heat[mask].max())
    return float(head[peak].mean()), float(head.sum() / mask.sum())


def _window(chosen: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of [H, W] that holds all chosen pixels and `margin` pixels around them."""
    rows, columns = (np.flatnonzero(chosen.any(axis)) for axis in (1, 0))
    return tuple(slice(max(0, i[0] - margin), i[-1] + margin + 1) for i in (rows, columns))


def _positive(heat: np.ndarray, *regions: np.ndarray) -> np.ndarray:
    """Float64, values below 0 cut; all zeros if a value is not finite (an empty map).

    Raises InputError where one of the regions is not boolean.
    """
    if wrong := [r for r in map(np.asarray, regions) if r.dtype != bool]:
        # numpy would take 0 and 1 for numbers of rows, and give some figure.
        raise InputError(f"a region of {wrong[0].dtype}: give a boolean array, as mask > 0.")
    heat = np.asarray(heat, dtype=np.float64)
    return np.maximum(heat, 0) if np.isfinite(heat).all() else np.zeros_like(heat)
