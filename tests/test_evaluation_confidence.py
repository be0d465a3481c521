"""Scores against what they promise, on cases counted by hand and on scores drawn to a rule."""

import numpy as np
import pytest

from als.errors import InputError
from als.evaluation.average_precision import match
from als.evaluation.confidence import Calibration, counted, fit_calibration, reliability, sure
from als.evaluation.detections import Detections, GroundTruth

BOX, FAR, FARTHER = [0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 95]


def test_what_somebody_sees_is_counted():
    truths = [
        GroundTruth([BOX, FAR], [1, 2], [False, True]),
        GroundTruth([BOX], [1], [False]),
        GroundTruth([], [], []),
        GroundTruth([], [], []),
        GroundTruth([BOX], [1], [False]),
    ]
    found = [
        # right; a second box of the same cat; on a difficult dog (no count); too low a score
        Detections([BOX, BOX, FAR, FARTHER], [1, 1, 2, 2], [0.9, 0.6, 0.8, 0.4]),
        Detections([BOX], [2], [0.5]),  # another class
        Detections([], [], []),
        Detections([BOX, FAR], [1, 2], [0.7, 0.2]),  # where there is nothing to find
        Detections([], [], []),  # silent where there is something
    ]
    kept = counted(match(found, truths, ("cat", "dog")))
    assert sure(kept, np.array([False, False, True, True, False])) == {
        "detections": 4,
        "right": 1,
        "images": 5,
        "images_without": 2,
        "empty_images": 2,
        "empty_images_without": 1,
    }
    assert dict(zip(kept.given.tolist(), kept.right.tolist(), strict=True)) == {
        0: True,
        1: False,
        3: False,
        4: False,
        5: False,
        6: False,
    }


def test_the_calibration_error_of_a_case_done_by_hand():
    scores = np.array([0.95, 0.85, 0.85, 1.0])
    told = reliability(scores, np.array([True, True, False, False]))
    # 0.8 to 0.9: 0.5 right of 0.85; 0.9 to 1: 0.5 right of 0.975
    assert told["error"] == pytest.approx((2 * 0.35 + 2 * 0.475) / 4)
    assert [b["detections"] for b in told["bins"]] == [2, 2]
    assert reliability(np.zeros(0), np.zeros(0, bool)) == {"error": None, "bins": []}


@pytest.mark.parametrize("score", [87.5, 1e300, -2.0])
def test_scores_that_are_no_chances_have_no_calibration_error(score):
    """COCO's results may be scored in percent or by logits; AP asks for their order alone."""
    told = reliability(np.array([0.5, score]), np.array([True, False]))
    assert told == {"error": None, "bins": []}


@pytest.mark.parametrize("known", [Calibration(0.5, 0), Calibration(1, 1.3), Calibration(2, -1)])
def test_temperature_and_shift_are_found_again(known):
    """Detections are right as often as the calibrated score says."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 4))
    labels = rng.integers(1, 4, len(logits))
    chance = known(logits)[np.arange(len(labels)), labels]
    right = rng.random(len(labels)) < chance
    fitted = fit_calibration(logits, labels, right)
    assert fitted.temperature == pytest.approx(known.temperature, rel=0.08)
    assert fitted.shift == pytest.approx(known.shift, abs=0.15)
    assert reliability(chance, right)["error"] < 0.01


def test_calibrated_probabilities_by_hand():
    """Logits 2, 4 over T 2, the background up by 1: equal."""
    assert Calibration(2, 1)(np.array([[2.0, 4.0]])).tolist() == [[0.5, 0.5]]


def test_calibration_needs_right_and_wrong_detections():
    with pytest.raises(InputError, match="right"):
        fit_calibration(np.zeros((2, 3)), np.array([1, 2]), np.array([True, True]))
