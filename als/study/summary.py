"""Rows of a study -> means with intervals, paired differences, per class and per size."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from als.evaluation.bootstrap import Resampled, draw_weights, holm, resampled_mean
from als.explain.registry import EXPLAINERS
from als.study.measures import MEASURES

RESAMPLES = 2000
OBJECT = ["image_id", "object"]
NOTHING = Resampled(np.nan, np.full(1, np.nan)), 0, 0


def interval(values: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """Mean of values [N] over objects with a bootstrap interval over images [N], each one's image.

    NaN does not count. Returns mean, low, high (2.5th and 97.5th percentile), objects and images
    (counted).
    """
    return _interval(*_mean(values, images))


def _mean(values: np.ndarray, images: np.ndarray) -> tuple[Resampled, int, int]:
    """The mean, NaN of no object, and how many objects and images counted."""
    counted = np.isfinite(values)
    values, images = values[counted], images[counted]
    if len(values) == 0:
        return NOTHING
    photographs, index = np.unique(images, return_inverse=True)
    weights = draw_weights(len(photographs), RESAMPLES)
    return resampled_mean(values, index, weights), len(values), len(photographs)


def _interval(mean: Resampled, objects: int, images: int) -> dict[str, float]:
    low, high = mean.interval
    return {"mean": mean.whole, "low": low, "high": high, "objects": objects, "images": images}


def summarise(rows: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """map -> measure -> `interval`, in the order of the registries; of one checkpoint."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name, measure, group in _ordered(rows):
        values, images = group["value"].to_numpy(float), group["image_id"].to_numpy(str)
        summary.setdefault(name, {})[measure] = interval(values, images)
    return summary


def by_group(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """`interval` of each map and measure within each value of a column ("class" or "size")."""
    parts = []
    for name, measure, group in _ordered(rows):
        for value, some in group.groupby(column, sort=True):
            result = interval(some["value"].to_numpy(float), some["image_id"].to_numpy(str))
            parts.append({"map": name, "measure": measure, column: value, **result})
    columns = ["map", "measure", column, *_interval(*NOTHING)]
    return pd.DataFrame(parts, columns=columns)  # a header too where nothing was found


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired differences: for each measure and two maps, `interval` of first minus second.

    Over the objects that both maps have a value for. `separated`: 0 lies outside the interval.
    `p_holm`: of no difference, corrected for the number of pairs that the measure compares.
    """
    parts = []
    for measure, group in rows.groupby("measure", sort=False):
        if measure not in MEASURES:
            continue
        table = group.pivot_table(index=OBJECT, columns="map", values="value")
        images = table.index.get_level_values("image_id").to_numpy(str)
        pairs = list(combinations([name for name in EXPLAINERS if name in table], 2))
        means = [_mean((table[one] - table[two]).to_numpy(float), images) for one, two in pairs]
        p_values = holm(np.array([mean.p_value for mean, *_ in means]))
        for (first, second), told, p_value in zip(pairs, means, p_values, strict=True):
            line = {"measure": measure, "first": first, "second": second, **_interval(*told)}
            parts.append(line | {"separated": told[0].separated, "p_holm": p_value})
    columns = ["measure", "first", "second", *_interval(*NOTHING), "separated", "p_holm"]
    return pd.DataFrame(parts, columns=columns)  # a header too where nothing can be compared


def found_share(rows: pd.DataFrame) -> dict[str, float]:
    """How many of the annotated objects were found, and so measured."""
    found = rows[rows["measure"] == "found"]["value"]
    return {"objects": int(len(found)), "found": int(found.sum())}


def _ordered(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Map, measure, their rows; in the order of the registries."""
    groups = dict(list(rows.groupby(["map", "measure"])))
    for name in EXPLAINERS:
        for measure in MEASURES:
            if (name, measure) in groups:
                yield name, measure, groups[name, measure]
