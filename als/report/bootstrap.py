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
from als.evaluation.average_precision import Matches, class_mean, measures

INTERVAL = (2.5, 97.5)
# Standard errors by which an effect must differ from 0 so that four tests in five call it
# significant at 5%: the normal distribution's 97.5% point plus its 80% point.
POWER = 1.96 + 0.84


@dataclass(frozen=True)
class Resampled:
    """Measures of one detector, fractions: whole on all images, resampled [R] each."""

    whole: dict[str, float]
    resampled: dict[str, np.ndarray]


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
    """The measures of `matches` (`VocResult`) under weights [R, images]."""
    drawn = [_means(matches, one) for one in weights]
    whole = _means(matches, None)
    return Resampled(whole, {name: np.array([one[name] for one in drawn]) for name in whole})


def _means(matches: Matches, weights: np.ndarray | None) -> dict[str, float]:
    per_class = measures(matches, weights)
    return {name: float(class_mean(values)) for name, values in per_class.items()}


def paired_difference(
    first: Mapping[int, Resampled], second: Mapping[int, Resampled]
) -> dict[str, dict]:
    """second minus first, the mean over the seeds that both have.

    Both must come from the same weights. Returns for each measure: difference, low and high
    (95% of the resamples), half_width of that interval, detectable (the smallest true difference
    that this test set would have shown four times in five), separated (0 is outside the
    interval), per_seed and seed_spread (sample standard deviation, None for one seed).
    Raises InputError when no seed is in both.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise InputError("the two rows have no seed in common; run both with the same --seeds.")
    pairs = [(first[seed], second[seed]) for seed in seeds]
    found = {}
    for name in pairs[0][0].whole:
        whole = np.array([b.whole[name] - a.whole[name] for a, b in pairs])
        drawn = np.mean([b.resampled[name] - a.resampled[name] for a, b in pairs], axis=0)
        found[name] = _summary(whole, drawn, seeds)
    return found


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
