"""What is taken for what, on cases counted by hand."""

import numpy as np
import pytest

from als.errors import InputError
from als.evaluation.confusion import confusion
from als.evaluation.detections import Detections, GroundTruth, class_numbers, of_classes

CLASSES = ("cat", "dog")
BOX, FAR, FARTHER = [0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 95]


def test_an_object_is_what_its_surest_detection_says():
    truth = GroundTruth([BOX, FAR], [1, 2], [False, False])
    found = Detections([BOX, BOX, FAR, FARTHER], [1, 2, 2, 1], [0.6, 0.9, 0.4, 0.7])
    counts = confusion([found], [truth], CLASSES)
    # The cat is called a dog, more surely than a cat; the dog's own detection scores too little.
    assert counts["taken_for"] == {"cat": {"dog": 1}, "dog": {"missed": 1}}
    assert counts["false_alarms"] == {"cat": 1, "dog": 0}
    assert counts["found"]["2 or 3 objects"] == {"objects": 2, "found": 0}


def test_difficult_objects_are_no_objects_and_no_false_alarms():
    truth = GroundTruth([BOX, FAR], [1, 1], [True, False])
    found = Detections([BOX, FAR], [1, 1], [0.9, 0.9])
    counts = confusion([found], [truth], CLASSES)
    assert counts["taken_for"] == {"cat": {"cat": 1}, "dog": {}}
    assert counts["false_alarms"] == {"cat": 0, "dog": 0}
    assert counts["found"]["1 object"] == {"objects": 1, "found": 1}


def test_an_overlap_of_a_half_counts_and_less_does_not():
    truth = GroundTruth([BOX], [1], [False])
    half = Detections([[0, 0, 10, 5]], [1], [0.9])
    less = Detections([[0, 0, 10, 4.9]], [1], [0.9])
    assert confusion([half], [truth], CLASSES)["taken_for"]["cat"] == {"cat": 1}
    assert confusion([less], [truth], CLASSES)["taken_for"]["cat"] == {"missed": 1}


def test_images_without_objects_or_detections():
    nothing = GroundTruth(np.zeros((0, 4)), [], [])
    silent = Detections(np.zeros((0, 4)), [], [])
    counts = confusion([silent], [nothing], CLASSES)
    assert counts["taken_for"] == {"cat": {}, "dog": {}}


def test_some_of_the_classes_are_judged_alone():
    found = Detections([BOX, FAR, FARTHER], [1, 2, 3], [0.9, 0.8, 0.7])
    some = of_classes(found, class_numbers(("cat", "dog", "cow"), ("cow", "cat")))
    assert some.labels.tolist() == [2, 1] and some.scores.tolist() == [0.9, 0.7]
    with pytest.raises(InputError, match="'bus'"):
        class_numbers(("cat", "dog", "cow"), ("bus",))
