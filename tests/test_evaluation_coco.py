"""COCO's measures against pycocotools used by hand, and against VOC's."""

import json
import math

import numpy as np
import pytest
from coco_reference import NAMES, pycocotools_summary
from pycocotools.coco import COCO

from als.errors import InputError
from als.evaluation.average_precision import average_precisions, match, voc_ap
from als.evaluation.coco_measures import Written, as_coco, coco_metrics
from als.evaluation.detections import Detections, GroundTruth

CATEGORIES = {3: "cat", 7: "dog", 90: "bird"}  # ids with gaps, as COCO's own


def random_case(seed, image_ids):
    """A COCO annotation dict with small, medium and large objects, some crowds, and detections."""
    rng = np.random.default_rng(seed)
    sides = np.array([[24, 24], [28, 20], [60, 60], [80, 50], [130, 130], [150, 120]])
    annotations, detections = [], []
    for image_id in image_ids:
        n = 6
        corner, side = rng.uniform(0, 300, (n, 2)), sides * rng.uniform(0.9, 1.1, (n, 2))
        labels = rng.integers(1, 4, n)
        for box, label in zip(np.concatenate([corner, side], axis=1), labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": list(CATEGORIES)[label - 1],
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * 0.8),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
        boxes = np.repeat(np.concatenate([corner, corner + side], axis=1), 3, axis=0)
        boxes = boxes + rng.normal(0, 3, boxes.shape)
        guess = np.where(rng.random(3 * n) < 0.8, labels.repeat(3), rng.integers(1, 4, 3 * n))
        detections.append(Detections(boxes, guess, rng.random(3 * n)))
    dataset = {
        "info": {},
        "images": [{"id": i, "height": 500, "width": 500} for i in image_ids],
        "categories": [{"id": k, "name": name} for k, name in reversed(CATEGORIES.items())],
        "annotations": annotations,
    }
    return dataset, detections


def write(tmp_path, dataset, detections, image_ids):
    rows = [
        {
            "image_id": image_id,
            "category_id": list(CATEGORIES)[label - 1],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for image_id, d in zip(image_ids, detections, strict=True)
        for box, label, score in zip(
            d.boxes.tolist(), d.labels.tolist(), d.scores.tolist(), strict=True
        )
    ]
    gt_file, dt_file = tmp_path / "gt.json", tmp_path / "dt.json"
    gt_file.write_text(json.dumps(dataset))
    dt_file.write_text(json.dumps(rows))
    return gt_file, dt_file


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_summary_of_pycocotools(seed, tmp_path, capsys):
    image_ids = [139, 42, 581781, 7, 1000]
    dataset, detections = random_case(seed, image_ids)
    gt_file, dt_file = write(tmp_path, dataset, detections, image_ids)
    coco = COCO(str(gt_file))
    capsys.readouterr()
    metrics = coco_metrics(detections, coco, image_ids)
    assert capsys.readouterr().out == ""

    stats = pycocotools_summary(gt_file, dt_file, image_ids)
    assert [metrics[name] for name in NAMES] == pytest.approx(stats, abs=1e-12)
    assert min(stats) > 0  # every size occurs: -1 and NaN have their own test
    assert 0 < metrics["AP"] < metrics["AP50"] < 1
    for label, (category, name) in enumerate(CATEGORIES.items(), start=1):
        own = [(d, d.labels == label) for d in detections]
        own = [Detections(d.boxes[k], np.ones(k.sum(), int), d.scores[k]) for d, k in own]
        alone = pycocotools_summary(gt_file, dt_file, image_ids, category)[0]
        metrics = coco_metrics(own, coco, image_ids, [name])
        assert metrics["AP"] == pytest.approx(alone, abs=1e-12)


def test_only_the_given_images_are_judged(tmp_path):
    dataset, detections = random_case(0, [1, 2, 3])
    gt_file, dt_file = write(tmp_path, dataset, detections, [1, 2, 3])
    some = coco_metrics([detections[2], detections[0]], COCO(str(gt_file)), [3, 1])
    stats = pycocotools_summary(gt_file, dt_file, [1, 3])
    assert [some[name] for name in NAMES] == pytest.approx(stats, abs=1e-12)


def test_the_evaluation_may_be_repeated(tmp_path):
    # pycocotools writes into the ground truth it is given; that must not change the next result.
    dataset, detections = random_case(1, [1, 2])
    coco = COCO(str(write(tmp_path, dataset, detections, [1, 2])[0]))
    assert coco_metrics(detections, coco, [1, 2]) == coco_metrics(detections, coco, [1, 2])


SMALL, LARGE = [0, 0, 20, 20], [100, 100, 300, 300]  # areas 400 < 32^2 and 40000 > 96^2


def test_as_coco_perfect_detections_by_size():
    objects = GroundTruth([SMALL, LARGE], [1, 2], [False, False])
    coco = as_coco([objects], [(400, 500)], ["cat", "dog"])
    assert coco.imgs[1]["height"] == 400
    metrics = coco_metrics([Detections([SMALL, LARGE], [1, 2], [0.9, 0.8])], coco, [1])
    ones = [metrics[name] for name in ("AP", "AP50", "AP75", "APs", "APl")]
    assert ones == pytest.approx([1.0] * 5)
    assert math.isnan(metrics["APm"])  # no medium object


def test_as_coco_difficult_objects_count_neither_way():
    # Two leading detections of the difficult LARGE; then SMALL, the one object that counts.
    objects = GroundTruth([SMALL, LARGE], [1, 1], [False, True])
    coco = as_coco([objects], [(400, 500)], ["cat", "dog"])
    detections = Detections([LARGE, LARGE, SMALL], [1, 1, 1], [0.9, 0.8, 0.7])
    assert coco_metrics([detections], coco, [1])["AP"] == pytest.approx(1.0)
    # Were LARGE an ordinary object or absent, the leaders would count: the flag is what forgives.
    alone = as_coco([GroundTruth([SMALL], [1], [False])], [(400, 500)], ["cat", "dog"])
    assert coco_metrics([detections], alone, [1])["AP"] == pytest.approx(1 / 3)


def test_boxes_and_areas_are_those_written_in_the_file():
    """The file's box lies beside the one that was read; its area, of a mask, makes it small."""
    written = Written(["dog", "cat"], [np.array([[100, 100, 200, 150]])], [np.array([500])])
    objects = GroundTruth([LARGE], [1], [False])
    coco = as_coco([objects], [(400, 500)], ["cat", "dog"], written)
    found = Detections([[100, 100, 300, 250]], [1], [0.9])
    metrics = coco_metrics([found], coco, [1], ["cat", "dog"])
    assert metrics["AP"] == metrics["APs"] == pytest.approx(1.0) and math.isnan(metrics["APl"])


def test_as_coco_forgives_a_part_of_a_difficult_object():
    # The difference to VOC that the docstring names: a quarter of LARGE has IoU 1/4, but lies
    # wholly inside the crowd.
    objects = GroundTruth([SMALL, LARGE], [1, 1], [False, True])
    coco = as_coco([objects], [(400, 500)], ["cat"])
    part = Detections([[100, 100, 200, 200], SMALL], [1, 1], [0.9, 0.8])
    assert coco_metrics([part], coco, [1])["AP50"] == pytest.approx(1.0)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    nothing = Detections([], [], [])
    coco = as_coco([GroundTruth([SMALL], [1], [False])], [(400, 500)], ["cat"])
    assert coco_metrics([nothing], coco, [1])["AP"] == 0.0
    empty = as_coco([GroundTruth([], [], [])], [(400, 500)], ["cat"])
    assert math.isnan(coco_metrics([nothing], empty, [1])["AP"])


def test_errors_pass_through_the_silence(capsys):
    coco = as_coco([GroundTruth([SMALL], [1], [False])], [(400, 500)], ["cat"])
    del coco.anns[1]["area"]
    with pytest.raises(KeyError, match="area"):
        coco_metrics([Detections([SMALL], [1], [0.9])], coco, [1])
    print("heard again")
    assert capsys.readouterr().out == "heard again\n"


def test_labels_without_a_class_and_missing_sizes_are_said_in_a_sentence():
    objects = GroundTruth([SMALL], [1], [False])
    coco = as_coco([objects], [(400, 500)], ["cat"])
    with pytest.raises(InputError, match="label 2"):
        coco_metrics([Detections([SMALL], [2], [0.9])], coco, [1])
    with pytest.raises(InputError, match="label 1"):
        as_coco([objects], [(400, 500)], [])


# ---- VOC's area and COCO's 101 points, where the definitions meet


def apart(seed, n_images, objects_each):
    """No difficult objects, objects far apart (no detection reaches two), no ties: VOC's and COCO's
    matching then agree, and only the way of averaging over recall is left to differ.
    """
    rng = np.random.default_rng(seed)
    detections, ground_truths = [], []
    for _ in range(n_images):
        corner = np.stack([np.arange(objects_each) * 100.0, np.zeros(objects_each)], axis=1)
        boxes = np.concatenate([corner, corner + rng.uniform(20, 60, corner.shape)], axis=1)
        ground_truths.append(GroundTruth(boxes, np.ones(len(boxes)), np.zeros(len(boxes))))
        near = np.repeat(boxes, 3, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        detections.append(Detections(near, np.ones(len(near)), rng.random(len(near))))
    return detections, ground_truths


def coco_ap50(detections, ground_truths):
    coco = as_coco(ground_truths, [(100, 2000)] * len(ground_truths), ["thing"])
    return coco_metrics(detections, coco, range(1, len(ground_truths) + 1))["AP50"]


@pytest.mark.parametrize("seed", range(8))
def test_four_objects_tie_area_and_101_points_exactly(seed):
    # With 4 objects the precision envelope is constant on (0, 1/4], (1/4, 1/2], ... Each piece
    # holds 25 of COCO's levels 0.01 to 1; level 0 adds the highest precision p of the curve. So
    # 101 AP_coco = 100 AP_area + p. (k / 4 and the levels 0.25, 0.5, 0.75, 1 are exact in floats.)
    detections, ground_truths = apart(seed, n_images=2, objects_each=2)
    matches = match(detections, ground_truths, ["thing"], (0.5,))
    area = average_precisions(matches).area[0, 0]
    hits = matches.true_positive[0]
    highest = (np.cumsum(hits) / np.arange(1, len(hits) + 1)).max()
    expected = (100 * area + highest) / 101
    assert coco_ap50(detections, ground_truths) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_101_points_stay_within_a_hundredth_of_the_area(seed):
    # The envelope falls from p(0) to p(1), both in [0, 1]. Sums over the levels 0 to 0.99 and 0.01
    # to 1, divided by 100, bound its integral from above and below; AP_coco is the sum over all 101
    # divided by 101. Hence (101 AP_coco - p(0)) / 100 <= AP_area <= (101 AP_coco - p(1)) / 100.
    detections, ground_truths = apart(seed, n_images=30, objects_each=3)
    area = voc_ap(detections, ground_truths, ["thing"]).mean["AP50_area"]
    coco = coco_ap50(detections, ground_truths)
    assert 0.1 < area < 0.99
    assert (101 * coco - 1) / 100 - 1e-9 <= area <= 101 * coco / 100 + 1e-9


def test_detections_and_image_ids_of_another_number_are_refused():
    truth = GroundTruth([[0, 0, 9, 9]], [1], [False])
    made, found = as_coco([truth] * 3, [(20, 20)] * 3, ["cat"]), Detections([], [], [])
    for images in (2, 4):
        with pytest.raises(InputError, match=f"{images} images but 3 image ids"):
            coco_metrics([found] * images, made, [1, 2, 3], ["cat"])
