import math

import pytest
import torch
from explain_toys import encoded, tiny_detector

from als.errors import InputError
from als.explain import KINDS, Target, best_proposal, find_proposal
from als.explain.targets import boxes_to_original, decode_boxes

ROI = torch.tensor([[0.0, 0, 10, 10]])


def test_values_by_hand():
    logits = torch.tensor([0.0, math.log(2), math.log(5)])  # softmax 1/8, 2/8, 5/8
    assert Target(ROI, 1, "class").value(logits).item() == pytest.approx(0.25)
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


@pytest.mark.parametrize("options", [{}, {"separation": False}, {"attention": False}])
def test_each_detection_finds_its_proposal(options):
    """The proposal found for a detection has its score and decodes into its box."""
    detector = tiny_detector(**options)
    encoding, proposals, logits = encoded(detector)
    with torch.no_grad():
        found = detector.detect(encoding)[0]
    assert len(found["boxes"]) > 5
    for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
        index = find_proposal(
            detector, encoding, proposals, logits, box.numpy(), int(label), float(score)
        )
        assert logits[index].softmax(-1)[label].item() == pytest.approx(float(score), abs=1e-4)
        with torch.no_grad():
            decoded = decode_boxes(detector, encoding, proposals[index : index + 1], int(label))
        assert torch.allclose(decoded[0], box, atol=0.01)


def test_equal_scores_are_told_apart_by_the_box():
    detector = tiny_detector()
    encoding, proposals, logits = encoded(detector)
    logits = logits[:1].repeat(len(proposals), 1)
    score = float(logits[0].softmax(-1)[1])
    with torch.no_grad():
        boxes = decode_boxes(detector, encoding, proposals, 1)
    for index in (0, 3, len(boxes) - 1):
        found = find_proposal(detector, encoding, proposals, logits, boxes[index], 1, score)
        assert torch.allclose(boxes[found], boxes[index])


def test_a_detection_of_another_image_is_refused():
    detector = tiny_detector()
    encoding, proposals, logits = encoded(detector)
    with pytest.raises(InputError, match="no proposal scores"):
        find_proposal(detector, encoding, proposals, logits, [0, 0, 9, 9], 1, 1.5)


def test_best_proposal_needs_no_threshold():
    logits = torch.tensor([[9.0, 0, 0], [9, 1, 0], [9, 0.5, 2]])
    assert [best_proposal(logits, label) for label in (1, 2)] == [1, 2]
    with pytest.raises(InputError, match="no region"):
        best_proposal(logits[:0], 1)


def test_boxes_go_back_to_the_original_image():
    encoding, _, _ = encoded(tiny_detector())
    height, width = encoding.images.image_sizes[0]
    whole = torch.tensor([[0.0, 0, width, height], [0, 0, width / 2, height / 4]])
    expected = torch.tensor([[0.0, 0, 90, 70], [0, 0, 45, 17.5]])
    assert torch.allclose(boxes_to_original(whole, encoding), expected)
