"""What scores say: how many of the sure detections are right, and whether a score is a chance."""

from typing import NamedTuple

import numpy as np

from als.errors import InputError
from als.evaluation.average_precision import Matches

SCORE = 0.5  # what a detection must score to be shown to somebody
BINS = 10
TEMPERATURES = np.geomspace(0.25, 4, 401)  # a step is 0.7%


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


def sure(found: Counted, n_images: int) -> dict[str, int]:
    """Counts of what somebody sees: detections that score 0.5 or more, and images without one."""
    shown = found.scores >= SCORE
    return {
        "detections": int(shown.sum()),
        "right": int(found.right[shown].sum()),
        "images": n_images,
        "images_without": n_images - len(np.unique(found.image[shown])),
    }


def reliability(scores: np.ndarray, right: np.ndarray) -> dict:
    """Expected calibration error and its ten bins (Guo et al., ICML 2017, equation 5).

    Args:
        scores: [N], 0 to 1. right: [N], whether each detection is.

    Returns:
        error: sum over bins of |share right - mean score|, weighted by detections (None without
        detections); bins: for each with detections "from", "to", "detections", "score", "right".
    """
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


def fit_temperature(logits: np.ndarray, labels: np.ndarray, right: np.ndarray) -> float:
    """The T under which softmax(logits / T) of the label says best how often it is right.

    Temperature scaling (Guo et al. 2017, section 4.2) of what a detection is: the likelihood is
    of being right, which its box decides too. The best of 401 between 1/4 and 4.

    Args:
        logits: [N, C + 1], background first. labels: [N], 1 to C. right: [N] bool.

    Raises:
        InputError: no detections, or all are right, or none is.
    """
    if len(right) == 0 or right.all() or not right.any():
        raise InputError("calibration: needs detections that are right and some that are not.")
    centred = logits - logits.max(axis=1, keepdims=True)
    losses = []
    for temperature in TEMPERATURES:
        powers = np.exp(centred / temperature)
        score = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
        score = score.clip(1e-7, 1 - 1e-7)
        losses.append(-np.log(np.where(right, score, 1 - score)).mean())
    return float(TEMPERATURES[np.argmin(losses)])
