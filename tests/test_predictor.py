"""The predictor: a picture in, detections and maps at its size out; maps can be replaced."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, lively_detector

import als
from als.checkpoint import save_checkpoint
from als.data.record import Record
from als.errors import InputError
from als.evaluation.evaluate import detect_all
from als.explain import make_maps
from als.inference import Predictor, load, predict_many
from als.model.grid import map_to_image

HEIGHT, WIDTH = 90, 75  # resized to 77 x 64, in a batch of 96 x 64


@pytest.fixture(scope="module")
def predictor():
    return Predictor(lively_detector(0).float(), {"epochs": 1})


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_prediction_of_an_array(predictor, image):
    found = predictor.predict(image)
    count = len(found.scores)
    assert count > 3 and found.size == (HEIGHT, WIDTH)
    assert found.boxes.shape == (count, 4) and found.boxes.dtype == np.float32
    assert found.labels.shape == (count,) and found.labels.dtype == np.int64
    assert found.scores.dtype == np.float32 and (np.diff(found.scores) <= 0).all()
    assert found.names == [CLASSES[label - 1] for label in found.labels]
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= WIDTH + 1e-3).all() and (found.boxes[:, 3] <= HEIGHT + 1e-3).all()
    for name in ("localization_map", "classification_map"):
        values = getattr(found, name)
        assert values.shape == (HEIGHT, WIDTH) and values.dtype == np.float32
        assert 0 < values.min() < values.max() < 1


def test_prediction_is_what_the_detector_finds(predictor, image):
    found = predictor.predict(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    with torch.no_grad():
        (expected,) = predictor.detector([tensor])
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-5)
    assert found.labels.tolist() == expected["labels"].tolist()


def test_maps_are_those_of_the_network_at_the_photos_size(predictor, image):
    analysis = predictor.analyse(image)
    found, encoding = analysis.prediction, analysis.encoding
    assert encoding.a_loc.shape == (1, 1, 6, 4)  # cells of 16 pixels over 96 x 64
    assert np.array_equal(found.localization_map, map_to_image(encoding.a_loc, encoding))
    assert np.array_equal(found.classification_map, map_to_image(encoding.a_cls, encoding))


def test_numbers_replace_maps(predictor, image):
    found = predictor.predict(image, localization_map=0.25, classification_map=1)
    np.testing.assert_allclose(found.localization_map, 0.25, atol=1e-6)
    np.testing.assert_allclose(found.classification_map, 1.0, atol=1e-6)
    assert not np.allclose(found.scores[:3], predictor.predict(image).scores[:3], atol=1e-4)


def test_names_replace_maps(predictor, image):
    plain = predictor.predict(image)
    swapped = predictor.predict(image, "classification", "localization")
    np.testing.assert_array_equal(swapped.localization_map, plain.classification_map)
    np.testing.assert_array_equal(swapped.classification_map, plain.localization_map)
    same = predictor.predict(image, "localization", "classification")
    np.testing.assert_array_equal(same.boxes, plain.boxes)


def test_arrays_replace_maps(predictor, image):
    wanted = np.zeros((HEIGHT, WIDTH), np.float64)
    wanted[:, WIDTH // 2 :] = 1
    found = predictor.predict(image, classification_map=wanted)
    assert found.classification_map[:60, :20].max() < 0.05
    assert found.classification_map[:60, -20:].min() > 0.95
    plain = predictor.predict(image)
    np.testing.assert_array_equal(found.localization_map, plain.localization_map)
    constant = predictor.predict(image, classification_map=np.full((HEIGHT, WIDTH), 0.5))
    number = predictor.predict(image, classification_map=0.5)  # also where the image ends in a cell
    np.testing.assert_allclose(constant.classification_map, 0.5, atol=1e-5)
    np.testing.assert_allclose(constant.scores, number.scores, atol=1e-5)


def test_a_mirrored_map_replaces_a_map(predictor, image):
    turned = predictor.predict(image).classification_map[:, ::-1]
    (one, two) = (predictor.predict(image, classification_map=m) for m in (turned, turned.copy()))
    np.testing.assert_array_equal(one.boxes, two.boxes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_boxes_are_exact_under_autocast(predictor, image, dtype):
    with torch.autocast("cpu", dtype):
        found = predictor.predict(image)
    assert found.boxes.dtype == found.scores.dtype == np.float32 and len(found.boxes)
    assert (found.boxes % 0.25 != 0).any()


def test_an_explanations_map_may_be_written_to(predictor, image):
    told = predictor.explain(predictor.analyse(image), explainer="localization")
    told.map[:] = 0


def test_results_are_compared_and_kept_by_which_they_are(predictor, image):
    one, two = predictor.analyse(image), predictor.analyse(image)
    assert one != two and len({one, two, one.prediction, one.encoding, one.found}) == 5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p, i: p.predict(i, score_threshold="0.5"), "score threshold 0.5"),
        (lambda p, i: p.explain(p.analyse(i), detection="cat"), "detection cat"),
        (lambda p, i: p.explain(p.analyse(i), detection=0.5), "detection 0.5"),
        (lambda p, i: Predictor(p.detector, {}, None), "device 'None'"),
    ],
)
def test_a_value_of_another_kind_is_refused(predictor, image, call, says):
    with pytest.raises(InputError, match=says):
        call(predictor, image)


def test_the_classification_map_follows(predictor, image):
    plain = predictor.predict(image)
    assert not np.allclose(
        predictor.predict(image, localization_map=0.1).classification_map, plain.classification_map
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gradcam", "'gradcam' is unknown"),
        (np.ones((WIDTH, HEIGHT)), r"\(75, 90\) does not fit the image.*\(90, 75\)"),
        (np.ones((HEIGHT, WIDTH, 1)), "does not fit"),
        (
            np.full((HEIGHT, WIDTH), 255, np.uint8),
            "values from 255 to 255; give values from 0 to 1",
        ),
        (np.full((HEIGHT, WIDTH), np.nan), "give values from 0 to 1"),
        (float("nan"), "give values from 0 to 1"),
        (-5, "values from -5 to -5; give values from 0 to 1"),
        ([[1, 2], [3]], "is unknown; give a number, an array"),
    ],
)
def test_maps_that_do_not_fit(predictor, image, value, said):
    with pytest.raises(InputError, match=f"localization_map: .*{said}"):
        predictor.predict(image, localization_map=value)
    with pytest.raises(InputError, match="classification_map"):
        predictor.predict(image, classification_map=value)


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan")])
def test_a_threshold_in_percent_is_refused(predictor, image, tmp_path, threshold):
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    with pytest.raises(InputError, match="give a number from 0 to 1"):
        predictor.predict(image, score_threshold=threshold)
    with pytest.raises(InputError, match="give a number from 0 to 1"):
        list(predict_many(predictor, [path], score_threshold=threshold))


def test_evaluation_sees_a_large_photo_as_predict_does(predictor, tmp_path):
    """Both average it first: the network's own resizing would read a pixel in sixty."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    box = np.array([[10, 10, 200, 200]], np.float32)
    size = (700, 900)
    record = Record("a", tmp_path / "a.png", size, box, np.array([1]), np.array([False]), None)
    (found,), maps = detect_all(predictor.detector, [record], workers=0, progress=False)
    expected = predictor.predict(tmp_path / "a.png")
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert maps[0]["cls_mean"] == pytest.approx(expected.classification_map.mean(), abs=1e-4)


def test_a_map_for_a_large_photo_is_not_rounded(predictor):
    """A map whose values are small is not in 8 bit on its way to the grid."""
    photo = np.zeros((300, 400, 3), np.uint8)
    small = np.full((300, 400), 0.0015, np.float32)
    found = predictor.predict(photo, localization_map=small)
    np.testing.assert_allclose(found.localization_map, small, rtol=1e-4)


def test_nothing_to_explain_gives_no_map(predictor, image):
    scene = predictor.scene(predictor.analyse(image), [])
    for name in ("gradcam", "drise", "box_gaussian", "localization"):
        assert make_maps(name, scene).shape == (0, HEIGHT, WIDTH)


def test_evaluation_puts_the_mode_back(predictor, tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    box = np.array([[10, 10, 50, 50]], np.float32)
    record = Record("a", tmp_path / "a.png", (64, 96), box, np.array([1]), np.array([False]), None)
    try:
        detect_all(predictor.detector.train(), [record], workers=0, progress=False)
        assert predictor.detector.training
        with pytest.raises(InputError):
            missing = replace(record, path=tmp_path / "b.png")
            detect_all(predictor.detector, [missing], workers=0, progress=False)
        assert predictor.detector.training
    finally:
        predictor.detector.eval()


def test_a_model_without_maps(image):
    predictor = Predictor(lively_detector(0, attention=False).float(), {})
    found = predictor.predict(image)
    assert found.localization_map is None and found.classification_map is None
    with pytest.raises(InputError, match="no attention maps"):
        predictor.predict(image, classification_map=0.5)


@pytest.mark.parametrize("form", ["product", "residual"])
def test_without_attention_by_name(image, form):
    """Ones would double the feature of F (1 + A): "neutral" is no attention in either form."""
    predictor = Predictor(lively_detector(0, attention_form=form).float(), {})
    found = predictor.predict(image, localization_map="neutral", classification_map="neutral")
    value = {"product": 1, "residual": 0}[form]
    assert (found.localization_map == value).all() and (found.classification_map == value).all()
    encoding = predictor.analyse(image, "neutral", "neutral").encoding
    assert torch.equal(encoding.f_loc, encoding.f) and torch.equal(encoding.f_cls, encoding.f)


def test_the_lock_is_free_after_an_error(predictor, image):
    few = predictor.predict(image, score_threshold=0.5)
    assert few.scores.min() > 0.5
    assert len(predictor.predict(image).scores) > len(few.scores)

    def fails(loc, cls):
        raise ZeroDivisionError

    predictor._override = lambda name, value, size: fails
    try:
        with pytest.raises(ZeroDivisionError):
            predictor.predict(image, classification_map=1.0, score_threshold=0.9)
    finally:
        del predictor._override
    assert predictor.lock.acquire(blocking=False), "the lock is free again"
    predictor.lock.release()


def test_nothing_over_the_threshold(predictor, image):
    found = predictor.predict(image, score_threshold=0.9999)
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,) and found.names == []
    assert found.localization_map.shape == (HEIGHT, WIDTH)


def test_the_analysis_agrees_with_the_prediction(predictor, image):
    analysis = predictor.analyse(image)
    found = analysis.found
    assert found.logits.shape == (len(found.proposals), len(CLASSES) + 1)
    assert analysis.image.size == (WIDTH, HEIGHT)
    of_rois = found.logits[found.rois].softmax(1)
    own = of_rois[torch.arange(len(found.rois)), found.labels]
    np.testing.assert_allclose(analysis.prediction.scores, own.numpy(), atol=1e-6)


def test_load_reads_a_file(predictor, image, tmp_path):
    save_checkpoint(predictor.detector, tmp_path / "model.safetensors", {"epochs": 1})
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.classes == CLASSES and loaded.info == {"epochs": 1}
    np.testing.assert_allclose(loaded.predict(image).boxes, predictor.predict(image).boxes)
    with pytest.raises(InputError, match="nothing.safetensors"):
        load(tmp_path / "nothing.safetensors")


def test_checkpoints_of_als_train_are_told_apart_by_their_folders(predictor, tmp_path):
    (tmp_path / "one").mkdir()
    save_checkpoint(predictor.detector, tmp_path / "one/model.safetensors")
    assert als.load(tmp_path / "one/model.safetensors").source == "one/model.safetensors"
    shutil.copy(tmp_path / "one/model.safetensors", tmp_path / "own.safetensors")
    assert als.load(tmp_path / "own.safetensors").source == "own.safetensors"
