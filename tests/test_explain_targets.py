import math

import numpy as np
import pytest
import torch
from explain_toys import encoded, tiny_detector

from als.errors import InputError
from als.explain import KINDS, Target, best_proposal, boxes_of_class, grad_cam
from als.inference import Predictor
from als.model.boxes import rescaled

ROI = torch.tensor([[0.0, 0, 10, 10]])


def test_values_by_hand():
    logits = torch.tensor([0.0, math.log(2), math.log(5)])  # softmax 1/8, 2/8, 5/8
    assert Target(ROI, 1, "softmax").value(logits).item() == pytest.approx(0.25)
    assert Target(ROI, 2, "logit").value(logits).item() == pytest.approx(math.log(5))
    assert Target(ROI, 2, "margin").value(logits).item() == pytest.approx(math.log(2.5))
    assert Target(ROI, 1, "margin").value(logits).item() == pytest.approx(-math.log(2.5))
    deltas = torch.arange(12.0)
    assert [Target(ROI, 2, kind).value(deltas).item() for kind in KINDS[3:]] == [8, 9, 10, 11]


def test_bad_targets_are_refused():
    with pytest.raises(InputError, match="unknown"):
        Target(ROI, 1, "x1")
    with pytest.raises(InputError, match=r"\(1, 4\)"):
        Target(ROI[0], 1)


def test_targets_are_told_apart_by_which_they_are():
    one, two = Target(ROI, 1), Target(ROI, 1)
    assert one == one != two and len({one, two}) == 2


def test_equal_scores_are_told_apart_by_the_box():
    """Every RoI has the same logits; the RoI of each detection is still its own."""
    detector = tiny_detector()
    with torch.no_grad():
        detector.roi_heads.cls_score.weight.zero_()
        encoding, proposals, _ = encoded(detector)
        (found,) = detector.detect(encoding)
        boxes = [boxes_of_class(detector, encoding, proposals, label) for label in (1, 2)]
    assert len(found.rois) > 5 and len(found.scores.unique()) == 2
    for box, label, roi in zip(found.boxes, found.labels, found.rois, strict=True):
        assert torch.allclose(boxes[label - 1][roi], box, atol=0.01)


def test_grad_cam_of_a_detection_is_that_of_its_roi():
    predictor = Predictor(tiny_detector(), {})
    analysis = predictor.analyse(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8))
    found = analysis.found
    for row in (0, 3, len(found.rois) - 1):
        target = Target(found.proposals[found.rois[row]][None], int(found.labels[row]))
        expected = grad_cam(predictor.detector, analysis.encoding, target)
        told = predictor.explain(analysis, row)
        np.testing.assert_allclose(told.map, expected, atol=1e-6 * expected.max())


def test_best_proposal_needs_no_threshold():
    logits = torch.tensor([[9.0, 0, 0], [9, 1, 0], [9, 0.5, 2]])
    assert [best_proposal(logits, label) for label in (1, 2)] == [1, 2]
    with pytest.raises(InputError, match="no region"):
        best_proposal(logits[:0], 1)


def test_boxes_go_back_to_the_original_image():
    whole = torch.tensor([[0.0, 0, 123, 96], [0, 0, 61.5, 24]])
    expected = torch.tensor([[0.0, 0, 90, 70], [0, 0, 45, 17.5]])
    encoding, _, _ = encoded(tiny_detector())
    back = rescaled(whole, encoding.images.image_sizes[0], encoding.original_sizes[0])
    assert torch.allclose(back, expected)
