"""Explanations through the predictor, and photos too thin to be resized as they are."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from app_server import scene, tiny_predictor

from als.errors import InputError
from als.explain import Target, best_proposal, grad_cam
from als.explain.gradcam import RoIScore
from als.model.boxes import rescaled


@pytest.fixture(scope="module")
def predictor():
    return tiny_predictor()


@pytest.fixture(scope="module")
def analysis(predictor):
    return predictor.analyse(scene(3))


def test_a_detection_is_explained_as_it_was_reported(predictor, analysis):
    found = analysis.prediction
    told = predictor.explain(analysis, detection=1)
    assert told.box.tolist() == found.boxes[1].tolist() and told.score == found.scores[1]
    assert told.name == found.names[1] and told.label == found.labels[1] and told.passed
    assert told.map.shape == found.size and told.map.dtype == np.float32 and told.map.min() >= 0


def test_a_scene_takes_any_rows(predictor, analysis):
    scenes = [predictor.scene(analysis, rows) for rows in ([1, 0], iter([1, 0]), np.array([1, 0]))]
    assert all(len(scene.boxes) == 2 for scene in scenes)
    assert all(np.array_equal(scene.boxes, scenes[0].boxes) for scene in scenes)


def test_any_class_can_be_explained(predictor, analysis):
    for label, name in enumerate(predictor.classes, start=1):
        told = predictor.explain(analysis, label=label)
        scores = analysis.found.logits.softmax(-1)[:, label]
        assert told.name == name and told.score == pytest.approx(float(scores.max()))
        row = best_proposal(analysis.found.logits, label)
        target = Target(analysis.found.proposals[row : row + 1], label)
        expected = grad_cam(predictor.detector, analysis.encoding, target)
        assert np.allclose(told.map, expected, atol=1e-6)


def test_a_box_is_explained_as_if_it_had_been_proposed(predictor, analysis):
    """The box of a proposal gives what that proposal gives, for a class or the likeliest one."""
    encoding, size = analysis.encoding, analysis.prediction.size
    row = int(analysis.found.rois[0])
    roi = analysis.found.proposals[row : row + 1]
    (box,) = rescaled(roi, encoding.images.image_sizes[0], size).tolist()
    scores = analysis.found.logits.softmax(-1)[row]
    for label in (None, 1, 2, 3):
        told = predictor.explain(analysis, box=box, label=label)
        assert told.label == (label or int(scores[1:].argmax()) + 1)
        assert told.score == pytest.approx(float(scores[told.label]), abs=1e-4)
        assert told.box.tolist() == pytest.approx(box, abs=1e-3)
        expected = grad_cam(predictor.detector, encoding, Target(roi, told.label))
        assert np.allclose(told.map, expected, atol=1e-4 * expected.max())


def test_a_class_below_the_threshold_is_said_to_be(predictor, analysis):
    strict = deepcopy(predictor)
    strict.detector.config = replace(strict.detector.config, score_threshold=0.999)
    nothing = strict.analyse(scene(3))
    assert len(nothing.prediction.boxes) == 0
    told = strict.explain(nothing)
    assert not told.passed
    assert told.score == pytest.approx(float(nothing.found.logits.softmax(-1)[:, 1:].max()))


def test_a_box_is_held_to_the_photo(predictor, analysis):
    height, width = analysis.prediction.size
    told = predictor.explain(analysis, box=(-50, 10, 2 * width, 2 * height))
    assert told.box.tolist() == [0, 10, width, height]
    assert np.array_equal(told.map, predictor.explain(analysis, box=told.box).map)


@pytest.mark.parametrize(
    "box",
    [
        *(
            (5, 5, 5, 9),
            (5, 5, 5.5, 90),
            (9, 9, 5, 12),
            (900, 0, 950, 9),
            (-9, -9, 0, 0),
            (0, 0, 9),
        ),
        *((0, 0, float("nan"), 9), (0, 0, 10**400, 9), ("a", 0, 9, 9)),
    ],
)
def test_a_box_without_area_in_the_photo_cannot_be_explained(predictor, analysis, box):
    with pytest.raises(InputError, match="box.*x1 y1 x2 y2"):
        predictor.explain(analysis, box=box)


def test_what_is_explained_matters(predictor, analysis):
    maps = [predictor.explain(analysis, 0, kind=kind).map for kind in ("logit", "dx", "dh")]
    maps.append(predictor.explain(analysis, 0, explainer="gradact").map)
    for i, first in enumerate(maps):
        for second in maps[i + 1 :]:
            assert not np.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"detection": 999},
        {"detection": -1},
        {"label": 0},
        {"label": 9},
        {"label": "cat"},
        {"label": 1.5},
        {"box": (0, 0, 9, 9), "label": 9},
        {"detection": 0, "label": 1},
        {"detection": 0, "box": (0, 0, 9, 9)},
    ],
)
def test_what_is_not_there_cannot_be_explained(predictor, analysis, wrong):
    with pytest.raises(InputError, match=r"\d"):
        predictor.explain(analysis, **wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["product", "competition"])
def test_what_was_found_under_autocast_can_be_explained(dtype, form):
    predictor = tiny_predictor(attention_form=form)
    for explainer in ("gradcam", "layercam", "gradcam++", "eigencam", "class_weights"):
        with torch.autocast("cpu", dtype):
            analysis = predictor.analyse(scene(3))
            predictor.explain(analysis, 0, explainer=explainer)
        assert np.isfinite(predictor.explain(analysis, 0, explainer=explainer).map).all()


@pytest.mark.parametrize("asked", [{"label": 2}, {"detection": 1}])
def test_a_whole_number_of_another_type_is_that_number(predictor, analysis, asked):
    ((name, value),) = asked.items()
    told = predictor.explain(analysis, **{name: float(value)})
    assert told.score == predictor.explain(analysis, **asked).score


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 300)])
def test_thin_photos(predictor, shape):
    analysis = predictor.analyse(np.full((*shape, 3), 120, np.uint8))
    found = analysis.prediction
    assert found.size == shape and found.localization_map.shape == shape
    assert (found.boxes[:, 2] <= shape[1]).all() and (found.boxes[:, 3] <= shape[0]).all()
    assert predictor.explain(analysis).map.shape == shape


def test_a_thin_map_can_replace_a_map(predictor):
    photo = np.full((1, 800, 3), 120, np.uint8)
    replaced = predictor.predict(photo, localization_map=np.ones((1, 800), np.float32))
    assert replaced.localization_map.min() > 0.9


@pytest.mark.parametrize("form", ["product", "residual", "competition"])
def test_class_weights_are_what_the_class_branch_multiplies_by(form):
    """Given F and no map, RoI features times these weights give the logits of the detector."""
    predictor = tiny_predictor(attention_form=form)
    analysis = predictor.analyse(scene(3))
    detector, encoding, found = predictor.detector, analysis.encoding, analysis.found
    roi = found.proposals[found.rois[:1]]
    told = predictor.explain(analysis, 0, explainer="class_weights")
    x1, y1, x2, y2 = rescaled(roi, encoding.images.image_sizes[0], analysis.prediction.size)[0]
    inside = told.map[int(y1) + 1 : int(y2), int(x1) + 1 : int(x2)]
    assert (inside > 0).all() and told.map.sum() == pytest.approx(inside.sum(), rel=0.5)
    if form == "competition":
        assert inside.mean() == pytest.approx(1, abs=0.1)
        assert inside.max() > 1 > inside.min()
    else:
        low, high = (0, 1) if form == "product" else (1, 2)
        assert low < inside.min() <= inside.max() < high
    for layer in ("F", "F_cls"):
        target = Target(roi, int(found.labels[0]))
        score = RoIScore(detector, encoding, [target], layer)
        with torch.no_grad():
            (value,) = score(score.start())
        assert value == pytest.approx(float(found.logits[found.rois[0], target.label]), abs=1e-4)
