"""What became of detections and objects, and where objects were lost, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from app_server import scene, tiny_predictor

from als.evaluation import Detections, GroundTruth
from als.evaluation.missed import SAYS, STEPS, lost_at, outcomes, why_lost

OBJECT = np.array([0, 0, 10, 10])
# Of the object: all of it, 0.8 of it, 0.6, 0.5, 0.4, nothing.
ALL, MOST, SOME, HALF, LESS, NONE = (
    [0, 0, width, 10] if width else [20, 20, 30, 30] for width in (10, 8, 6, 5, 4, 0)
)
# Background, the object's class, another; at a threshold of 0.5.
PASSES, FAILS = [0.2, 0.7, 0.1], [0.2, 0.3, 0.5]


def lost(*proposals) -> tuple[str, int | None]:
    """Step and row for proposals of (RoI, scores, box, kept)."""
    rois, scores, boxes, kept = (np.array(column) for column in zip(*proposals, strict=True))
    told = lost_at(OBJECT, 1, rois, scores, boxes, kept, 0.5)
    assert told.step in SAYS
    return told.step, told.proposal


def test_each_step_is_the_first_that_no_proposal_passes():
    assert lost((LESS, PASSES, ALL, True), (NONE, PASSES, ALL, True)) == ("RPN", 0)
    assert lost((NONE, PASSES, ALL, True), (SOME, FAILS, ALL, True)) == ("class", 1)
    assert lost((SOME, PASSES, LESS, True)) == ("box", 0)
    assert lost((SOME, PASSES, MOST, False)) == ("NMS", 0)
    assert lost((SOME, PASSES, MOST, True)) == ("match", 0)
    assert lost((HALF, PASSES, HALF, False)) == ("NMS", 0), "an IoU of 0.5 is enough"


def test_the_proposal_that_came_furthest_tells_and_of_equals_the_best_by_iou():
    best_fails = (ALL, FAILS, ALL, False)
    assert lost(best_fails, (SOME, PASSES, LESS, False)) == ("box", 1)
    assert lost(best_fails, (SOME, PASSES, LESS, False), (HALF, PASSES, ALL, False)) == ("NMS", 2)
    assert lost((SOME, FAILS, ALL, False), (MOST, FAILS, ALL, False)) == ("class", 1)
    # One passes the class and another one would fit: no single one does both.
    assert lost((SOME, PASSES, LESS, True), (MOST, FAILS, ALL, True)) == ("box", 0)


def test_the_numbers_are_of_the_proposal_that_is_told():
    given = [np.array([one]) for one in (SOME, FAILS, MOST, False)]
    told = lost_at(OBJECT, 1, *given, threshold=0.5)
    assert told.iou == pytest.approx(0.6) and told.box_iou == pytest.approx(0.8)
    assert told.roi.tolist() == SOME and told.box.tolist() == MOST
    assert told.scores.tolist() == FAILS


def test_without_a_proposal_the_rpn_lost_it():
    none = np.zeros((0, 4)), np.zeros((0, 3)), np.zeros((0, 4)), np.zeros(0, bool)
    told = lost_at(OBJECT, 1, *none, threshold=0.5)
    assert (told.step, told.proposal, told.iou) == ("RPN", None, 0)


def test_outcomes_by_hand():
    """A true one, its double, one on a difficult object, one of the wrong class, one on nothing."""
    found = Detections([ALL, MOST, [50, 0, 60, 10], [30, 0, 40, 10], NONE], [1, 1, 2, 2, 1],
                       [0.7, 0.9, 0.8, 0.6, 0.5])  # fmt: skip
    objects = [ALL, [50, 0, 60, 10], [30, 0, 40, 10], [70, 0, 80, 10]]
    truth = GroundTruth(objects, [1, 2, 1, 2], [False, True, False, True])
    told = outcomes(found, truth, 2)
    assert told.true.tolist() == [False, True, False, False, False]  # the surer one is true
    assert told.false.tolist() == [True, False, False, True, True]
    assert told.missed.tolist() == [False, False, True, False]


def test_outcomes_of_nothing():
    nothing = Detections(np.zeros((0, 4)), [], [])
    told = outcomes(nothing, GroundTruth([ALL], [1], [False]), 2)
    assert told.missed.tolist() == [True] and not len(told.true)
    empty = GroundTruth(np.zeros((0, 4)), [], [])
    told = outcomes(Detections([ALL], [1], [0.5]), empty, 2)
    assert told.false.tolist() == [True] and not len(told.missed)


@pytest.fixture(scope="module")
def analysis():
    return tiny_predictor().analyse(scene(5))


def test_a_box_that_is_detected_is_lost_after_nms_or_by_it(analysis):
    """What is detected went through every step; taken out of the detections, NMS lost it."""
    found, prediction, covered = analysis.found, analysis.prediction, 0
    suppressed = replace(analysis, found=replace(found, labels=found.labels * 0))
    for row, box in enumerate(prediction.boxes[:4]):
        label, threshold = int(prediction.labels[row]), float(prediction.scores[row]) - 1e-4
        told = why_lost(tiny_predictor(), analysis, box, label, threshold)
        if told.step == "match":
            covered += 1
            lost = why_lost(tiny_predictor(), suppressed, box, label, threshold)
            assert lost.step == "NMS" and lost.proposal == told.proposal
            assert told.scores[label] >= threshold and told.box_iou >= 0.5 <= told.iou
    assert covered > 0


def test_a_strict_threshold_and_a_far_object_name_class_and_rpn(analysis):
    predictor = tiny_predictor()
    proposals = analysis.found.proposals.float().cpu().numpy()
    scale = analysis.prediction.size[0] / analysis.encoding.images.image_sizes[0][0]
    told = why_lost(predictor, analysis, proposals[3] * scale, 2, 1.01)
    assert told.step == STEPS[1] and told.iou == pytest.approx(1, abs=0.05)
    expected = analysis.found.logits.softmax(-1)[told.proposal]
    assert np.allclose(told.scores, expected)
    told = why_lost(predictor, analysis, np.array([0, 0, 1, 1]), 2, 0.0)
    assert told.step == "RPN" and told.iou < 0.5
