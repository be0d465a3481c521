"""Explanations and studies of photographs as they come: large, thin, turned by their EXIF tag."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from explain_toys import tiny_detector
from PIL import Image
from test_study import MANY, detector, predictor, records, root  # noqa: F401  (fixtures)
from tiny import lively_detector

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.explain import EXPLAINERS, Explainer, make_maps
from als.explain.blackbox import black_box, detection_score
from als.explain.registry import black_box_of
from als.images import as_rgb
from als.inference import Predictor
from als.model.grid import map_to_image
from als.study import interventions
from als.study.interventions import intervene, read_arrays
from als.study.measures import MEASURES, Measure
from als.study.sanity import under_randomization
from als.study.study_figures import class_table, forest, map_row
from als.study.study_rows import run_study
from als.study.summary import by_group, interval, summarise

LARGE, THIN = (1200, 1804), (40, 2000)  # (height, width); the detector's max_size is 96


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def masked(records):  # noqa: F811
    return [record for record in records if record.mask is not None][:2]


def stretched(record, size: tuple[int, int], folder):
    """A record whose photograph and mask have another size."""
    (height, width), (old_height, old_width) = size, record.size
    paths = [folder / f"{record.image_id}{end}" for end in (".jpg", ".png")]
    as_rgb(record.path).resize((width, height)).save(paths[0])
    Image.open(record.mask.path).resize((width, height), Image.Resampling.NEAREST).save(paths[1])
    scale = np.array([width / old_width, height / old_height] * 2, np.float32)
    mask = replace(record.mask, path=paths[1])
    return replace(record, path=paths[0], size=size, boxes=record.boxes * scale, mask=mask)


def kept(predictor, some, folder, monkeypatch) -> list[dict]:  # noqa: F811
    """What `intervene` found in each photograph, row by row of its table."""
    monkeypatch.setattr(interventions, "RESAMPLES", 5)
    intervene(predictor, some, progress=False, folder=folder)
    before = [some[-1], *some[:-1]]
    names = [f"{a.image_id},{b.image_id}.npz" for a, b in zip(some, before, strict=True)]
    return [read_arrays(folder / name) for name in names]


@pytest.mark.parametrize("size", [LARGE, THIN, (64, 96)])
def test_a_map_replaced_by_itself_gives_the_boxes_of_predict(
    predictor,  # noqa: F811
    masked,
    size,
    tmp_path,
    monkeypatch,
):
    some = [stretched(record, size, tmp_path) for record in masked]
    for record, found in zip(some, kept(predictor, some, tmp_path / "a", monkeypatch), strict=True):
        expected = predictor.predict(record.path)
        assert len(expected.boxes) > 5
        np.testing.assert_array_equal(found["", ""]["boxes"], expected.boxes)
        np.testing.assert_array_equal(found["", ""]["labels"], expected.labels)
        # Other maps give other boxes, but in the same frame.
        reach = found["localization", "mask"]["boxes"].max(0)
        assert reach[2] > 0.8 * size[1] and reach[3] > 0.8 * size[0]


@pytest.mark.parametrize("form", ["product", "residual"])
def test_a_neutral_map_is_detection_on_f_alone(form, masked, tmp_path, monkeypatch):
    predictor = Predictor(lively_detector(attention_form=form, **MANY).float(), {})  # noqa: F811
    found = kept(predictor, masked, tmp_path, monkeypatch)[0]["both", "neutral"]
    encoding = predictor.encode(masked[0].path)
    with torch.no_grad():
        (plain,) = predictor.detector.detect(replace(encoding, f_loc=encoding.f, f_cls=encoding.f))
    assert len(plain.boxes) > 5
    np.testing.assert_allclose(found["boxes"], plain.boxes, atol=1e-3)
    np.testing.assert_allclose(found["scores"], plain.scores, atol=1e-5)


def turned(record, folder):
    """The record of the same photograph, stored on its side with the tag that says so."""
    upright = as_rgb(record.path)
    tag = Image.Exif()
    tag[0x0112] = 6  # turn by 90 degrees clockwise to see it
    path = folder / record.path.name
    upright.transpose(Image.Transpose.ROTATE_90).save(path, format="PNG", exif=tag)
    assert Image.open(path).size == upright.size[::-1]
    np.testing.assert_array_equal(as_rgb(path), upright)
    return replace(record, path=path)


def test_a_turned_photograph_is_studied_as_it_is_seen(
    predictor,  # noqa: F811
    records,  # noqa: F811
    masked,
    tmp_path,
    monkeypatch,
):
    folder = tmp_path / "VOC2012" / "JPEGImages"
    folder.mkdir(parents=True)
    lying = [turned(record, folder) for record in records]
    maps, measures = ["localization", "gradcam_conv5"], ["energy_box", "energy_mask"]
    rows = [
        run_study({"toy": predictor}, some, tmp_path / name, maps, measures, progress=False)
        for some, name in ((records, "upright"), (lying, "lying"))
    ]
    assert (rows[0]["value"] > 0).sum() > 5
    pd.testing.assert_frame_equal(*rows)
    lying_masked = [record for record in lying if record.mask is not None][:2]
    for one, two in zip(
        kept(predictor, masked, tmp_path / "a", monkeypatch),
        kept(predictor, lying_masked, tmp_path / "b", monkeypatch),
        strict=True,
    ):
        for row in one:
            np.testing.assert_array_equal(one[row]["boxes"], two[row]["boxes"])


def test_the_black_box_and_the_sanity_checks_see_what_predict_sees(predictor):  # noqa: F811
    """Of a photograph over twice the network's size, all average its pixels first."""
    analysis = predictor.analyse(noise((300, 410)))
    scene = predictor.scene(analysis, [0, 1, 2])
    expected = analysis.prediction
    (found,) = black_box(predictor.detector)(scene.image[None])
    assert len(found["boxes"]) == len(expected.boxes) > 5
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
    for name in ("localization", "gradcam"):
        same = under_randomization(scene, predictor.detector)(name, make_maps(name, scene))
        assert same == pytest.approx([1.0] * 3)


def test_the_black_box_is_the_network_whose_maps_are_replaced():
    own = Predictor(lively_detector(rpn_post_nms_test=50).float(), {})
    analysis = own.analyse(noise((96, 128)), np.linspace(0, 1, 128)[None].repeat(96, 0), 1.0)
    scene = own.scene(analysis, [0, 1])
    detect, pairs = black_box_of(scene)
    for image in detect(scene.image[None].repeat(2, 1, 1, 1)):  # in a batch too
        for (box, label), score in zip(pairs, analysis.prediction.scores, strict=False):
            assert detection_score(image, box, label) == pytest.approx(score, abs=1e-4)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    options = {"backbone": "resnet50", "weights": None, "attention_width": 8, "pool_size": 7}
    options |= {"min_size": 96, "max_size": 160, "anchor_sizes": (32, 64), "score_threshold": 0.0}
    config = ModelConfig(classes=("cat", "dog"), rpn_post_nms_test=20, **options)
    return Predictor(build_detector(config), {})


@pytest.mark.parametrize("size", [(192, 192), (40, 2000)])
def test_conv5_of_a_deep_resnet_is_explained_whatever_the_size(resnet, size):
    """Evaluation goes around the modules of its conv5 where RoIs have more bins than the photo."""
    analysis = resnet.analyse(noise(size))
    told = resnet.explain(analysis, 0, explainer="gradcam_conv5")
    assert told.map.shape == size and np.isfinite(told.map).all() and not told.empty


def test_hooks_on_conv5_fire_when_gradients_are_asked_for(resnet):
    encoding = resnet.encode(noise((192, 192)))
    heads, seen = resnet.detector.roi_heads, []
    rois = [torch.tensor([[8.0, 8, 80, 80], [20, 4, 90, 60]])]
    hook = heads.conv5_cls.register_forward_hook(lambda *_: seen.append(1))
    try:
        logits, _ = heads.classify(encoding.f_cls, rois)
    finally:
        hook.remove()
    assert seen and logits.requires_grad


@pytest.mark.parametrize("kind", ["logit", "softmax"])
def test_grad_cam_is_the_gradient_of_its_scalar(kind):
    predictor = Predictor(tiny_detector(), {})  # noqa: F811
    analysis = predictor.analyse(noise((70, 90)))
    scene = predictor.scene(analysis, [0, 3])
    names = {"logit": ("gradcam", "gradact"), "softmax": ("gradcam_softmax", "gradact_softmax")}
    made = [make_maps(name, scene) for name in names[kind]]
    for row, (roi, label) in enumerate(zip(scene.rois, scene.labels, strict=True)):
        feature = analysis.encoding.f_cls.clone().requires_grad_()
        logits = predictor.detector.roi_heads.classify(feature, [roi[None]])[0][0]
        scalar = (logits if kind == "logit" else logits.softmax(-1))[int(label)]
        (gradient,) = torch.autograd.grad(scalar, feature)
        weights = gradient.mean((2, 3), keepdim=True)
        for maps, by in zip(made, (weights, gradient), strict=True):
            grid = (by * feature).sum(1, keepdim=True).relu()
            expected = map_to_image(grid, analysis.encoding)
            assert expected.max() > 0
            np.testing.assert_allclose(maps[row], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_one_entry_is_a_map_or_a_measure_more(predictor, records, tmp_path, monkeypatch):  # noqa: F811
    def left_half(scene, kind):
        heat = np.zeros(scene.size, np.float32)
        heat[:, : scene.size[1] // 2] = 1
        return heat

    monkeypatch.setitem(EXPLAINERS, "left", Explainer("The left half", left_half, per_object=False))
    quarter = Measure("A quarter", "where", "higher", lambda heat, case: heat.mean() / 2)
    of_photo = Measure("Seen", "where", "", of_photo=lambda photo: lambda _, m: [1.0] * len(m))
    monkeypatch.setitem(MEASURES, "quarter", quarter)
    monkeypatch.setitem(MEASURES, "seen", of_photo)
    given = [records, tmp_path, ["left", "uniform"], ["quarter", "seen"]]
    rows = run_study({"toy": predictor}, *given, progress=False)
    summary = summarise(rows)
    assert summary["left"]["quarter"]["mean"] == pytest.approx(0.25)
    assert summary["left"]["seen"]["mean"] == 1
    axis = forest(summary).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Uniform", "The left half"]
    assert class_table(by_group(rows, "class"), ["quarter"]).axes[0].get_title() == "A quarter"
    figure = map_row(predictor, records[0].path, ["left"])
    assert figure.axes[1].get_title() == "The left half"


def test_a_photograph_without_a_detection_is_drawn_alone(records):  # noqa: F811
    silent = Predictor(lively_detector(score_threshold=1.0).float(), {})
    figure = map_row(silent, records[0].path, ["localization"])
    assert [axis.get_title() for axis in figure.axes] == ["nothing is detected"]


def test_equal_values_whose_mean_is_rounded_are_drawn():
    value = interval(np.full(30, 0.7), np.repeat(np.arange(10), 3))
    assert not value["low"] <= value["mean"] <= value["high"]
    axis = forest({"gradcam": {"energy_box": value}}).axes[0]
    (drawn,) = axis.collections[0].get_segments()
    assert drawn[:, 0].tolist() == [value["low"], value["high"]]
    assert axis.get_lines()[0].get_xdata() == [value["mean"]]


def test_a_record_with_names_of_its_own_is_drawn():
    value = {"mean": 0.5, "low": 0.4, "high": 0.6}
    names = ["gradcam_F_softmax", "gradcam_softmax", "a_map_of_old"]
    axis = forest({name: {"energy_box": value} for name in names}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "Grad-CAM, softmax score, layer F",
        "Grad-CAM, softmax score",
        "a map of old",
    ]
