"""Calibration on real detections: the class layer is divided, and scores follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_config

from als.checkpoint import build_detector, load_checkpoint
from als.data.record import Record
from als.errors import InputError
from als.evaluation.calibration import calibrate
from als.evaluation.evaluate import detect_all
from als.images import as_rgb
from als.photographs import package_photographs


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """scikit-image's cat, labelled where the shipped model sees it, and pictures without one."""
    made = []
    for path in package_photographs()[:4]:
        width, height = as_rgb(path).size
        cat = path.stem == "chelsea"
        boxes = np.array([[57.0, 0, 429, 299]] if cat else np.zeros((0, 4)), np.float32)
        labels = np.ones(len(boxes), np.int64)
        none = np.zeros(len(boxes), bool)
        made.append(Record(path.stem, path, (height, width), boxes, labels, none, None))
    return made


def test_the_class_layer_is_changed_and_the_scores_follow(records):
    """Persons that are no cats: it is too sure."""
    detector, _ = load_checkpoint("animals")
    layer = detector.roi_heads.cls_score
    weight, bias = layer.weight.clone(), layer.bias.clone()
    first, _ = detect_all(detector, records, workers=0, progress=False)
    told = calibrate(detector, records, workers=0, progress=False)
    torch.testing.assert_close(layer.weight * told["temperature"], weight)
    bias = bias / told["temperature"]
    bias[0] += told["shift"]
    torch.testing.assert_close(layer.bias, bias)
    second, _ = detect_all(detector, records, workers=0, progress=False)
    assert first[0].labels[0] == second[0].labels[0] == 1
    sums = [sum(some.scores.sum() for some in found) for found in (first, second)]
    assert sums[1] < sums[0]
    assert told["after"]["error"] < told["before"]["error"]


def test_a_threshold_of_zero_stays(records, recwarn):
    detector, _ = load_checkpoint("animals")
    detector.config = replace(detector.config, score_threshold=0.0)
    calibrate(detector, records, workers=0, progress=False)
    assert detector.config.score_threshold == 0
    assert not [one for one in recwarn if "log" in str(one.message)]


def test_other_families_are_refused(records):
    options = {"family": "rfcn", "attention": False, "separation": False, "attention_width": 2048}
    detector = build_detector(tiny_config(**options))
    with pytest.raises(InputError, match="family"):
        calibrate(detector, records, workers=0, progress=False)
