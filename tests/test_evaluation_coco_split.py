"""A COCO split is judged on its own file: pycocotools' summary, crowds and areas of masks."""

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from coco_reference import NAMES, pycocotools_summary
from pycocotools.coco import COCO
from tiny import lively_detector

from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.evaluation.coco_measures import coco_metrics
from als.evaluation.detections import Detections
from als.evaluation.evaluate import evaluate, judge

COCO_MINI = Path(__file__).parents[2] / "shared" / "data" / "coco-mini"


def some_detections(records, n_classes: int, seed: int = 0) -> list[Detections]:
    """Shaken true boxes, some of a wrong class, some doubled, some far off."""
    rng = np.random.default_rng(seed)
    found = []
    for record in records:
        boxes = np.repeat(record.boxes, 2, axis=0).astype(float)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += rng.normal(0, 0.06, boxes.shape) * sides
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.repeat(record.labels, 2)
        labels = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(1, n_classes + 1))
        found.append(Detections(boxes, labels, rng.random(len(labels))))
    return found


def summary(path: Path, records, detections, classes) -> list[float]:
    """What pycocotools says of the JSON file and of results by its category ids."""
    content = json.loads(path.read_text())
    ids = {category["name"]: category["id"] for category in content["categories"]}
    image_id_of = {entry["file_name"]: entry["id"] for entry in content["images"]}
    rows = [
        {
            "image_id": image_id_of[record.path.name],
            "category_id": ids[classes[label - 1]],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for record, found in zip(records, detections, strict=True)
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.tolist(), found.labels, found.scores.tolist(), strict=True
        )
    ]
    return pycocotools_summary(path, rows)


def test_the_figures_are_pycocotools_own(toy_coco):
    path = toy_coco / "annotations" / "instances_trainval.json"
    shuffled = TOY_CLASSES[::-1]  # the model's order of classes need not be the file's
    records = load_records("toy:trainval", toy_coco.parent, shuffled)
    detections = some_detections(records, 3)
    metrics, per_class = judge(detections, records, shuffled)
    expected = summary(path, records, detections, shuffled)
    for name, value in zip(NAMES, expected, strict=True):
        given = metrics[f"COCO_{name}"]
        assert (math.isnan(given) and value == -1) or given == value
    assert 0.1 < metrics["COCO_AP"] < 0.9
    assert set(per_class) == set(TOY_CLASSES) and 0.1 < metrics["AP50_area"] < 0.95


def test_areas_are_those_of_masks_and_some_classes_may_be_left_out(toy_coco):
    records = load_records("toy:trainval", toy_coco.parent, TOY_CLASSES)
    path = toy_coco / "annotations" / "instances_trainval.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a | {"area": 10} for a in content["annotations"]]
    small = toy_coco.parent / "small" / "annotations"
    small.mkdir(parents=True)
    (small / path.name).write_text(json.dumps(content))
    (small.parent / "trainval").symlink_to(toy_coco / "trainval")
    detections = some_detections(records, 3)
    judged = {}
    for name in ("toy", "small"):
        own = load_records(f"{name}:trainval", toy_coco.parent, TOY_CLASSES)
        judged[name], _ = judge(detections, own, TOY_CLASSES)
    assert judged["toy"]["COCO_AP"] == judged["small"]["COCO_AP"]
    # All objects are small now; false detections of other sizes do not count against these.
    assert judged["small"]["COCO_APs"] >= judged["small"]["COCO_AP"]
    assert math.isnan(judged["small"]["COCO_APm"]) and not math.isnan(judged["toy"]["COCO_APm"])

    with contextlib.redirect_stdout(io.StringIO()):
        truth, ids = COCO(str(path)), [record.coco.image_id for record in records]
    with pytest.raises(InputError, match="no category 'cube'"):
        coco_metrics(detections, truth, ids, ["cube"])


def test_a_detector_is_judged_on_the_file_and_on_boxes_elsewhere(toy_coco, toy_root):
    detector = lively_detector(classes=TOY_CLASSES).float()
    records = load_records("toy:trainval", toy_coco.parent, TOY_CLASSES)[:4]
    record = evaluate(detector, records, workers=0, progress=False)
    assert record["data"]["COCO_areas"] == "masks"
    assert {"AP50_11point", "AP50_area", "COCO_AP", "COCO_APs"} <= set(record["metrics"])
    boxes = load_records("VOC2012:trainval", toy_root, TOY_CLASSES)[:4]
    plain = evaluate(detector, boxes, workers=0, progress=False)
    assert plain["data"]["COCO_areas"] == "boxes"
    assert plain["metrics"]["AP50_area"] == pytest.approx(
        record["metrics"]["AP50_area"], nan_ok=True
    )
    assert plain["data"]["fingerprint"] == record["data"]["fingerprint"]


def test_the_real_split_gives_pycocotools_summary():
    if not COCO_MINI.is_dir():
        pytest.skip("needs the photographs in ../shared/data/coco-mini, which are not here")
    path = COCO_MINI / "annotations" / "instances_val2017.json"
    classes = tuple(c["name"] for c in json.loads(path.read_text())["categories"])
    records = load_records("coco-mini:val2017", COCO_MINI.parent, classes)
    detections = some_detections(records, len(classes))
    metrics, _ = judge(detections, records, classes)
    expected = summary(path, records, detections, classes)
    assert [metrics[f"COCO_{name}"] for name in NAMES] == expected
    assert 0.2 < expected[0] < 0.9 and min(expected) > 0
