"""docs/checks.md: what other people's code and worked examples say of the same boxes and maps.

More of it stands where the measures are tested: pycocotools in test_evaluation_coco.py, Quantus in
test_explain_map_measures.py and test_explain_blackbox.py, grad-cam in test_explain_cam_library.py
and test_other_tools.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from als.data.layouts import load_records
from als.evaluation.average_precision import average_precisions, match
from als.evaluation.coco_measures import as_coco
from als.evaluation.detections import Detections, GroundTruth, load_judgeable
from als.evaluation.evaluate import judge, truths_of
from als.explain.faithfulness import change_curves
from benchmarks import checks
from benchmarks.checks_maps import SIDE, SceneOfOne, microsoft, torchcam

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "results" / "table2-compact" / "proposed-seed1.npz"
TOLD = json.loads(KEPT.with_suffix(".json").read_text())
CLASSES = tuple(TOLD["per_class"])
EXTRA = "needs the extra `checks`"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# The example of rafaelpadilla/Object-Detection-Metrics (samples/sample_2): 15 objects, x y width
# height, and 24 detections, score first, in seven images of 200 x 200 pixels.
OBJECTS = """
    25 16 38 56, 129 123 41 62 | 123 11 43 55, 38 132 59 45 |
    16 14 35 48, 123 30 49 44, 99 139 47 47 | 53 42 40 52, 154 43 31 34 |
    59 31 44 51, 48 128 34 52 | 36 89 52 76, 62 58 44 67 | 28 31 55 63, 58 67 50 58
"""
FOUND = """
    .88 5 67 31 48, .70 119 111 40 67, .80 124 9 49 67 |
    .71 64 111 64 58, .54 26 140 60 47, .74 19 18 43 35 |
    .18 109 15 77 39, .67 86 63 46 45, .38 160 62 36 53, .91 105 131 47 47, .44 18 148 40 44 |
    .35 83 28 28 26, .78 28 68 42 67, .45 87 89 25 39, .14 10 155 60 26 |
    .62 50 38 28 46, .44 95 11 53 28, .95 29 131 72 29, .23 29 163 72 29 |
    .45 43 48 74 38, .84 17 155 29 35, .43 95 110 25 42 | .48 16 20 101 88, .95 33 116 37 49
"""


def rows(text: str) -> list[np.ndarray]:
    """Of each image an array, a row a box."""
    return [np.array([line.split() for line in s.split(",")], float) for s in text.split("|")]


def padilla(last_pixel: int) -> tuple[list[Detections], list[GroundTruth]]:
    """The example; last_pixel is 1 where x + width still belongs to the box, as it does there."""

    def corners(boxes):
        return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + last_pixel])

    truths = [GroundTruth(corners(b), np.ones(len(b)), np.zeros(len(b))) for b in rows(OBJECTS)]
    found = [Detections(corners(b[:, 1:]), np.ones(len(b)), b[:, 0]) for b in rows(FOUND)]
    assert sum(len(t.boxes) for t in truths) == 15 and sum(len(d.boxes) for d in found) == 24
    return found, truths


def test_padilla_s_example_gives_its_published_figures():
    """As tests/test_case_1.py of review_object_detection_metrics prints them."""
    thresholds = 0.1, 0.3, 0.5, 0.75
    ap = average_precisions(match(*padilla(1), ["object"], thresholds))
    area = [0.3371980676, 0.2456866804, 0.0222222222, 0]
    assert ap.area[:, 0] == pytest.approx(area, abs=1e-10)
    eleven = [0.3333333333, 0.2683982683, 0.0303030303, 0]
    assert ap.eleven_point[1:, 0] == pytest.approx(eleven[1:], abs=1e-10)
    # At 0.1 nine of 15 objects are found: recall 0.6, which numpy's level 0.6000000000000001
    # misses there. Ours counts the level, with the precision 9 / 23.
    assert ap.eleven_point[0, 0] == pytest.approx(eleven[0] + 9 / 23 / 11, abs=1e-10)


def test_padilla_s_example_beside_object_detection_metrics():
    pytest.importorskip("podm.metrics", reason=EXTRA)
    found, truths = padilla(0)
    ap = average_precisions(match(found, truths, ["object"], (0.5, 0.75)))
    ours = {"AP50_area": ap.area[0, 0], "AP50_11point": ap.eleven_point[0, 0], "AP75": 0}
    assert checks.podm(found, truths) == pytest.approx(ours, abs=1e-12) and ap.area[1, 0] == 0


# ---- the detections of a record, on 700 photographs


@pytest.fixture(scope="module")
def judged(shared_voc):
    """(our figures, detections, ground truths, the same as COCO's JSON)."""
    records = load_records("VOC2012:test", shared_voc, CLASSES)
    found, truths = load_judgeable(KEPT).detections, truths_of(records)
    detections = [found[record.image_id] for record in records]
    ours = judge(detections, records, CLASSES)[0]
    assert ours == pytest.approx(TOLD["metrics"])
    coco = as_coco(truths, [r.size for r in records], CLASSES)
    return ours, detections, truths, coco.dataset


def assert_coco(theirs: dict, ours: dict, tolerance: float) -> None:
    assert theirs == pytest.approx({n: ours[f"COCO_{n}"] for n in theirs}, abs=tolerance)
    assert set(theirs) == set(checks.COCO_NAMES)


@pytest.mark.parametrize("package", ["faster_coco_eval", "hotcoco"])
def test_coco_s_measures_beside_other_implementations(package, judged):
    pytest.importorskip(package, reason=EXTRA)
    ours, detections, _, dataset = judged
    assert_coco(getattr(checks, package)(dataset, detections), ours, 1e-12)


def test_coco_s_measures_beside_torchmetrics(judged):
    """Its 101 recall levels are float32, 36 a little too high: who reaches one exactly misses."""
    pytest.importorskip("torchmetrics", reason=EXTRA)
    assert (torch.linspace(0, 1, 101).double().numpy() > np.linspace(0, 1, 101)).sum() == 36
    ours, detections, truths, _ = judged
    theirs = checks.torchmetrics(detections, truths)
    assert_coco(theirs["float64"], ours, 1e-7)
    assert_coco(theirs["float32"], ours, 2e-4)


def test_voc_s_measures_beside_object_detection_metrics(judged):
    """Its eleven levels are numpy's, of which three are a rounding error over the decimal."""
    pytest.importorskip("podm.metrics", reason=EXTRA)
    ours, detections, truths, _ = judged
    theirs = checks.podm(detections, truths)
    assert theirs.pop("AP50_11point") == pytest.approx(ours["AP50_11point"], abs=1e-4)
    assert theirs == pytest.approx({name: ours[name] for name in theirs}, abs=1e-12)
    matches = match(detections, truths, CLASSES, (0.5,))
    horse = CLASSES.index("horse")
    own = slice(*matches.class_starts[horse : horse + 2])
    assert matches.objects.sum(0)[horse] == 160 and matches.true_positive[0, own].sum() >= 112
    assert all(count / 160 < np.linspace(0, 1, 11)[count // 16] for count in (48, 96, 112))


# ---- maps, of a detector that sees brightness in a box


def toy_scene(side: int) -> SceneOfOne:
    """Noise, and a detector whose score is the mean colour of a box that it always finds."""
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    x1, y1, x2, y2 = box = np.array([0.2, 0.3, 0.7, 0.6]) * side // 1

    def detect(images):
        seen = images[:, :, int(y1) : int(y2), int(x1) : int(x2)].mean((1, 2, 3))
        boxes, labels = torch.tensor(box)[None].float(), torch.tensor([1])
        return [{"boxes": boxes, "labels": labels, "scores": score[None]} for score in seen]

    heat = np.random.default_rng(0).random((side, side), np.float32)
    heat[int(y1) : int(y2), int(x1) : int(x2)] += 0.5
    return SceneOfOne(detect, image, box, 1, heat)


def test_curves_beside_torchcam():
    pytest.importorskip("torchcam.metrics", reason=EXTRA)
    for name, (ours, theirs) in torchcam(toy_scene(SIDE)).items():
        assert ours == pytest.approx(theirs, abs=1e-6), name


def test_curves_follow_rise_s_definition():
    """Its code is on no package index. Four pixels, by hand: the mean of the middle two."""
    image = torch.tensor([[[0.8, 0.4, 0.2, 0.6]]]).expand(3, 1, 4)

    def detect(images):
        boxes, labels = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([1])
        return [
            {"boxes": boxes, "labels": labels, "scores": one[0, 0, 1:3].mean()[None]}
            for one in images
        ]

    heat = np.array([[0.1, 0.9, 0.3, 0.6]])  # the order: pixels 1, 3, 2, 0
    given = [(np.array([0, 0, 4, 1]), 1)]
    (deleted,) = change_curves(detect, image, torch.zeros(3, 1, 4), heat, given, steps=4)
    assert deleted.scores == pytest.approx([0.3, 0.1, 0.1, 0, 0])
    # RISE's `auc`: (sum - first / 2 - last / 2) / (number - 1).
    assert deleted.auc == pytest.approx((0.5 - 0.15 - 0) / 4)


def test_drise_beside_microsoft_s():
    reason = "vision-explanation-methods asks for matplotlib < 3.7: pip install --no-deps"
    pytest.importorskip("vision_explanation_methods", reason=reason)
    told = microsoft(toy_scene(64), masks=40)
    assert told["our masks, unexplained"] < 1e-4


# ---- the page


def test_the_page_s_figures_are_the_record_s():
    record = json.loads((ROOT / "results" / "checks.json").read_text())
    page = (ROOT / "docs" / "checks.md").read_text()
    assert record["als"] == pytest.approx(TOLD["metrics"])
    shown = [record["als"]["COCO_AP"], record["torchmetrics"]["float32"]["AP"]]
    shown += [record[who]["AP50_11point"] for who in ("als", "object-detection-metrics")]
    assert [f"{value:.6f}" for value in shown if f"{value:.6f}" not in page] == []
    for package in set(record) - {"detections", "masks", "als", "machine", "revision", "rise"}:
        assert record[package]["version"] in page, package
    for name in ("ours, two seeds", "theirs, two seeds", "ours with theirs"):
        for one in record["vision-explanation-methods"]["photographs"]:
            assert f"{one[name]:.2f}" in page
