"""Paired bootstrap: is the difference of two detectors more than the choice of test images?

Both are judged on the same resample of the test set's images, again and again; what both find
easy or hard there cancels in their difference (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, chapters 6 and 13). It says nothing of another training: that is what seeds are
for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from als.errors import InputError
from als.evaluation.voc import Matches, average_precisions, class_mean

MEASURES = ("AP50_11point", "AP50_area")
INTERVAL = (2.5, 97.5)
# Standard errors by which an effect must differ from 0 so that four tests in five call it
# significant at 5%: the normal distribution's 97.5% point plus its 80% point.
POWER = 1.96 + 0.84


@dataclass(frozen=True)
class Resampled:
    """AP50 of one detector, a fraction: whole [2] on all images, resampled [R, 2]; see MEASURES."""

    whole: np.ndarray
    resampled: np.ndarray


def draw_weights(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each image is in each resample: integers [resamples, images]."""
    drawn = np.random.default_rng(seed)
    return np.stack(
        [
            np.bincount(drawn.integers(images, size=images), minlength=images)
            for _ in range(resamples)
        ]
    )


def resample(matches: Matches, weights: np.ndarray) -> Resampled:
    """AP50 of a detector on each resample. `matches` at an IoU of 0.5 first."""
    return Resampled(_ap50(matches, None), np.stack([_ap50(matches, w) for w in weights]))


def _ap50(matches: Matches, weights: np.ndarray | None) -> np.ndarray:
    ap = average_precisions(matches, weights)
    return np.array([class_mean(ap.eleven_point[0]), class_mean(ap.area[0])])


def paired_difference(
    first: Mapping[int, Resampled], second: Mapping[int, Resampled]
) -> dict[str, dict]:
    """second minus first, the mean over the seeds that both have.

    Both must come from the same weights. Returns for each of MEASURES: difference, low and high
    (95% of the resamples), half_width of that interval, detectable (the smallest true difference
    that this test set would have shown four times in five), separated (0 is outside the
    interval), per_seed and seed_spread (sample standard deviation, None for one seed).
    Raises InputError when no seed is in both.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise InputError("the two rows have no seed in common; run both with the same --seeds.")
    whole = np.stack([second[seed].whole - first[seed].whole for seed in seeds])
    drawn = np.mean([second[seed].resampled - first[seed].resampled for seed in seeds], axis=0)
    return {
        measure: _summary(whole[:, k], drawn[:, k], seeds) for k, measure in enumerate(MEASURES)
    }


def _summary(whole: np.ndarray, drawn: np.ndarray, seeds: Sequence[int]) -> dict:
    low, high = np.nanpercentile(drawn, INTERVAL)
    return {
        "difference": float(whole.mean()),
        "low": float(low),
        "high": float(high),
        "half_width": float(high - low) / 2,
        "detectable": POWER * float(np.nanstd(drawn, ddof=1)),
        "separated": bool(low > 0 or high < 0),
        "per_seed": {str(seed): float(value) for seed, value in zip(seeds, whole, strict=True)},
        "seed_spread": float(whole.std(ddof=1)) if len(seeds) > 1 else None,
    }
