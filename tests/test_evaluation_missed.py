"""What became of detections and objects, and where objects were lost, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from app_server import scene, tiny_predictor
from torchvision.ops import box_iou

from als.evaluation import Detections, GroundTruth
from als.evaluation.missed import SAYS, STEPS, lost_at, outcomes, why_lost
from als.model.boxes import rescaled

OBJECT = np.array([0, 0, 10, 10])
# Of the object: all of it, 0.8 of it, 0.6, 0.5, 0.4, nothing.
ALL, MOST, SOME, HALF, LESS, NONE = (
    [0, 0, width, 10] if width else [20, 20, 30, 30] for width in (10, 8, 6, 5, 4, 0)
)
# Background, the object's class, another; at a threshold of 0.5.
PASSES, FAILS = [0.2, 0.7, 0.1], [0.2, 0.3, 0.5]


def lost(*proposals) -> tuple[str, int | None]:
    """Step and row for proposals of (RoI, scores, box, whether NMS left it, a detection)."""
    told = lost_at(OBJECT, 1, *map(np.array, zip(*proposals, strict=True)), 0.5)
    assert told.step in SAYS
    return told.step, told.proposal


def test_each_step_is_the_first_that_no_proposal_passes():
    yes = True, True
    assert lost((LESS, PASSES, ALL, *yes), (NONE, PASSES, ALL, *yes)) == ("RPN", 0)
    assert lost((NONE, PASSES, ALL, *yes), (SOME, FAILS, ALL, *yes)) == ("class", 1)
    assert lost((SOME, PASSES, LESS, *yes)) == ("box", 0)
    assert lost((SOME, PASSES, MOST, False, False)) == ("NMS", 0)
    assert lost((SOME, PASSES, MOST, True, False)) == ("limit", 0)
    assert lost((SOME, PASSES, MOST, *yes)) == ("match", 0)
    assert lost((HALF, PASSES, HALF, False, False)) == ("NMS", 0), "an IoU of 0.5 is enough"


def test_the_proposal_that_came_furthest_tells_and_of_equals_the_best_by_iou():
    no = False, False
    best_fails = (ALL, FAILS, ALL, *no)
    assert lost(best_fails, (SOME, PASSES, LESS, *no)) == ("box", 1)
    assert lost(best_fails, (SOME, PASSES, LESS, *no), (HALF, PASSES, ALL, *no)) == ("NMS", 2)
    assert lost((SOME, FAILS, ALL, *no), (MOST, FAILS, ALL, *no)) == ("class", 1)
    # One passes the class and another one would fit: no single one does both.
    assert lost((SOME, PASSES, LESS, True, True), (MOST, FAILS, ALL, True, True)) == ("box", 0)


def test_the_numbers_are_of_the_proposal_that_is_told():
    given = [np.array([one]) for one in (SOME, FAILS, MOST, False, False)]
    told = lost_at(OBJECT, 1, *given, threshold=0.5)
    assert told.iou == pytest.approx(0.6) and told.box_iou == pytest.approx(0.8)
    assert told.roi.tolist() == SOME and told.box.tolist() == MOST
    assert told.scores.tolist() == FAILS


def test_without_a_proposal_the_rpn_lost_it():
    none = np.zeros((0, 4)), np.zeros((0, 3)), np.zeros((0, 4)), *np.zeros((2, 0), bool)
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


def test_a_detected_box_matches_and_is_lost_by_a_surer_one_or_beyond_the_limit(analysis):
    found, prediction, covered = analysis.found, analysis.prediction, 0
    network = analysis.encoding.images.image_sizes[0]
    rois = rescaled(found.proposals, network, prediction.size)
    for row, box in enumerate(prediction.boxes[:4]):
        label, threshold = int(prediction.labels[row]), float(prediction.scores[row]) - 1e-4

        def told(**changes):
            other = replace(analysis, found=replace(found, **changes))
            return why_lost(tiny_predictor(), other, box, label, threshold)  # noqa: B023

        whole = told()
        if whole.step != "match":  # its own proposal overlaps it too little
            continue
        covered += 1
        assert whole.scores[label] >= threshold and whole.box_iou >= 0.5 <= whole.iou
        fields = ("boxes", "labels", "scores", "rois")
        fewer = told(**{name: getattr(found, name)[:row] for name in fields})
        # Every detection surer than it was, and of a proposal that is not near.
        far = int(box_iou(torch.from_numpy(box)[None], rois)[0].argmin())
        surer = told(scores=found.scores + 1, rois=torch.full_like(found.rois, far))
        assert (fewer.step, surer.step) == ("limit", "NMS")
        assert fewer.proposal == surer.proposal == whole.proposal
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
