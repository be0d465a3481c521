"""What scores say: how many of the sure detections are right, and whether a score is a chance."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from als.errors import InputError
from als.evaluation.average_precision import Matches

SCORE = 0.5  # what a detection must score to be shown to somebody
BINS = 10
# Of the temperature's logarithm and the shift: a few detections that scores part without a fault
# would ask for any.
BOUNDS = ((np.log(0.5), np.log(2)), (-3, 3))


class Counted(NamedTuple):
    """Detections that count, N of them: all but those on difficult objects.

    given [N]: place in the list of all detections, image after image. image [N]. scores [N].
    right [N] bool: a true positive at IoU 0.5.
    """

    given: np.ndarray
    image: np.ndarray
    scores: np.ndarray
    right: np.ndarray


def counted(matches: Matches) -> Counted:
    """The detections that count, by the matching of `average_precision` at IoU 0.5."""
    row = matches.iou_thresholds.index(0.5)
    right, wrong = matches.true_positive[row], matches.false_positive[row]
    counts = right | wrong
    kept = (a[counts] for a in (matches.given, matches.image, matches.scores, right))
    return Counted(*kept)


def sure(found: Counted, empty: np.ndarray) -> dict[str, int]:
    """Counts of what somebody sees: detections that score 0.5 or more, and images without one.

    One on a difficult object is not among them.
    empty: [images] bool, those with no object of the classes; to be silent there is right.
    """
    shown = found.scores >= SCORE
    silent = ~np.isin(np.arange(len(empty)), found.image[shown])
    return {
        "detections": int(shown.sum()),
        "right": int(found.right[shown].sum()),
        "images": len(empty),
        "images_without": int(silent.sum()),
        "empty_images": int(empty.sum()),
        "empty_images_without": int((silent & empty).sum()),
    }


def reliability(scores: np.ndarray, right: np.ndarray) -> dict:
    """Expected calibration error and its ten bins (Guo et al., ICML 2017, equation 5).

    Args:
        scores: [N]. right: [N], whether each detection is.

    Returns:
        error: sum over bins of |share right - mean score|, weighted by detections (None without
        detections, or where a score is no chance, outside 0 to 1: others' may be anything);
        bins: for each with detections "from", "to", "detections", "score", "right".
    """
    if ((scores < 0) | (scores > 1)).any():
        return {"error": None, "bins": []}
    index = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = []
    for i in np.unique(index):
        own = index == i
        bins.append(
            {
                "from": i / BINS,
                "to": (i + 1) / BINS,
                "detections": int(own.sum()),
                "score": float(scores[own].mean()),
                "right": float(right[own].mean()),
            }
        )
    gaps = [b["detections"] * abs(b["right"] - b["score"]) for b in bins]
    return {"error": sum(gaps) / len(scores) if bins else None, "bins": bins}


class Calibration(NamedTuple):
    """How class logits become chances: softmax(logits / temperature + shift of the background)."""

    temperature: float
    shift: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities [N, C + 1] of logits [N, C + 1], background first."""
        moved = logits / self.temperature
        moved[:, 0] += self.shift
        powers = np.exp(moved - moved.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def fit_calibration(logits: np.ndarray, labels: np.ndarray, right: np.ndarray) -> Calibration:
    """The calibration under which the label's score says best how often it is right.

    Temperature scaling (Guo et al. 2017, section 4.2), and a shift of the background: training
    samples a quarter of the RoIs on objects, in a photograph they are far fewer (Saerens et al.
    2002, equation 2.4). The likelihood is of being right, which the box decides too.

    Args:
        logits: [N, C + 1], background first. labels: [N], 1 to C. right: [N] bool.

    Raises:
        InputError: no detections, or all are right, or none is.
    """
    if len(right) == 0 or right.all() or not right.any():
        raise InputError("calibration: needs detections that are right and some that are not.")
    rows = np.arange(len(labels))

    def loss(given: np.ndarray) -> float:
        score = Calibration(float(np.exp(given[0])), float(given[1]))(logits)[rows, labels]
        score = score.clip(1e-7, 1 - 1e-7)
        return float(-np.log(np.where(right, score, 1 - score)).mean())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", bounds=BOUNDS).x
    return Calibration(float(np.exp(best[0])), float(best[1]))
