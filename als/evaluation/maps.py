"""Plain figures of an attention map; they know no model."""

import numpy as np


def object_iou(attention: np.ndarray, object_map: np.ndarray, threshold: float = 0.5) -> float:
    """IoU of the pixels where `attention` [H, W] is over `threshold` with the object's pixels.

    object_map: uint8 [H, W], 1 object, 0 background, 255 void, which does not count. NaN where
    neither has a pixel.
    """
    known = object_map != 255
    over, inside = (attention > threshold) & known, object_map == 1
    union = (over | inside).sum()
    return float((over & inside).sum() / union) if union else float("nan")


def spread(attention: np.ndarray) -> float:
    """95th minus 5th percentile of a map [H, W]; 0 for a constant."""
    low, high = np.percentile(attention, [5, 95])
    return float(high - low)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two maps [H, W]; 0 where one is constant, up to rounding."""
    first, second = np.ravel(first).astype(np.float64), np.ravel(second).astype(np.float64)
    if min(first.std(), second.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
