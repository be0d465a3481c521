"""Bootstrap over images: how much of a figure, or of a difference, is the choice of images?

Images are drawn with replacement, each with all of its objects, which are not independent. Two
figures from the same draws are paired: what both find easy or hard there cancels in their
difference (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13). It
says nothing of another training: that is what seeds are for.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import norm

from als.evaluation.average_precision import Matches, class_mean, measures

INTERVAL = (2.5, 97.5)  # percentiles of the draws
# Standard errors by which an effect must differ from 0 so that four tests in five call it
# significant at 5%: the normal distribution's 97.5% point plus its 80% point.
POWER = 1.96 + 0.84


@dataclass(frozen=True)
class Resampled:
    """A figure: `whole` on all images, `drawn` [R] on each resample of them, NaN without one.

    What it says of chance is NaN, and nothing is `separated`, where no resample has a figure.
    """

    whole: float
    drawn: np.ndarray

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The paired difference; both must come from the same weights."""
        return Resampled(self.whole - other.whole, self.drawn - other.drawn)

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high): between them lie 95% of the resamples that have a figure."""
        known = self.drawn[np.isfinite(self.drawn)]
        low, high = np.percentile(known, INTERVAL) if len(known) else (np.nan, np.nan)
        return float(low), float(high)

    @property
    def separated(self) -> bool:
        """Whether 0 is outside the interval."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference: the normal distribution with the resamples' spread."""
        spread = self._spread
        if spread == 0:
            return float(self.whole == 0)
        return float(2 * norm.sf(abs(self.whole) / spread))

    @property
    def detectable(self) -> float:
        """The smallest true difference that these images would have shown four times in five."""
        return POWER * self._spread

    @property
    def _spread(self) -> float:
        known = self.drawn[np.isfinite(self.drawn)]
        return float(np.std(known, ddof=1)) if len(known) > 1 else np.nan


@lru_cache(maxsize=2)  # tens of megabytes for thousands of images
def draw_weights(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each image is in each resample: int64 [resamples, images], read-only."""
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.int64)
    for row in weights:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    weights.setflags(write=False)
    return weights


def resampled_mean(values: np.ndarray, image: np.ndarray, weights: np.ndarray) -> Resampled:
    """The mean of values [N] over objects; image [N] is the index of each one's image.

    weights [R, images]. NaN for a resample without an object.
    """
    images = weights.shape[1]
    sums, counts = np.bincount(image, values, images), np.bincount(image, minlength=images)
    with np.errstate(invalid="ignore"):
        return _resampled(float(np.mean(values)), (weights @ sums) / (weights @ counts), images)


def _resampled(whole: float, drawn: np.ndarray, images: int) -> Resampled:
    """One image is all of each resample: it says nothing of chance."""
    return Resampled(whole, drawn if images > 1 else np.full(drawn.shape, np.nan))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p values [N] of a family of tests, corrected for their number (Holm 1979). NaN counts not."""
    order = np.argsort(p_values)  # NaN last
    left = np.isfinite(p_values).sum() - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.sort(p_values) * left), 1)
    return np.where(np.isfinite(p_values), corrected, np.nan)


def resampled_ap(matches: Matches, weights: np.ndarray) -> dict[str, Resampled]:
    """Measure -> its mean over classes, for those that `average_precision.measures` gives.

    weights [R, images].
    """
    whole, *drawn = (
        {name: float(class_mean(values)) for name, values in measures(matches, one).items()}
        for one in (None, *weights)
    )
    images = weights.shape[1]
    return {n: _resampled(whole[n], np.array([d[n] for d in drawn]), images) for n in whole}
