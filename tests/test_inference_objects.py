"""What a Predictor goes through in other programs: inference mode, copies, pickles, processes."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import lively_detector

import als
from als.checkpoint import save_checkpoint
from als.inference import Predictor, load, predict_many

ROOT = Path(__file__).parents[1]
PHOTO = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(lively_detector(0).float(), path, {"figures": {"AP": 0.5}})
    return path


def assert_same_prediction(one: als.Prediction, two: als.Prediction) -> None:
    assert one.names == two.names and len(one.names) > 0
    for name in ("boxes", "scores", "localization_map", "classification_map"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("explainer", ["gradcam", "eigencam"])
def test_what_was_loaded_in_inference_mode_can_be_explained(checkpoint, explainer):
    with torch.inference_mode():
        predictor = load(checkpoint)
        inside = predictor.analyse(PHOTO)
        map_inside = predictor.explain(inside, explainer=explainer).map
    outside = load(checkpoint).analyse(PHOTO)
    assert_same_prediction(inside.prediction, outside.prediction)
    for analysis in (inside, outside):
        explained = predictor.explain(analysis, explainer=explainer).map
        np.testing.assert_array_equal(explained, map_inside)
    assert explained.max() > 0


@pytest.mark.parametrize("how", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_predict_the_same_and_are_their_own(checkpoint, how):
    predictor = load(checkpoint)
    again = how(predictor)
    assert isinstance(again, Predictor) and again.source == "tiny.safetensors"
    assert again.info == predictor.info and again.classes == predictor.classes
    expected = predictor.predict(PHOTO)
    assert_same_prediction(again.predict(PHOTO), expected)
    one, two = (p.explain(p.analyse(PHOTO), detection=0).map for p in (predictor, again))
    np.testing.assert_array_equal(one, two)
    with torch.no_grad():
        for parameter in again.detector.parameters():
            parameter.zero_()
    assert_same_prediction(predictor.predict(PHOTO), expected)


def test_a_copy_has_a_lock_of_its_own(checkpoint):
    predictor = load(checkpoint)
    with predictor.lock:  # in use
        again = copy.deepcopy(predictor)
    assert again.lock is not predictor.lock and again.lock.acquire(blocking=False)


def found_in_files(predictor, folder):
    Image.fromarray(PHOTO).save(folder / "photo.png")
    return list(predict_many(predictor, [folder / "photo.png"]))


HOW = {
    "deepcopy": lambda predictor, _: copy.deepcopy(predictor),
    "pickle": lambda predictor, _: pickle.loads(pickle.dumps(predictor)),
    "copy": lambda predictor, _: copy.copy(predictor),
    "predict_many": found_in_files,
}


@pytest.mark.parametrize("how", HOW)
def test_a_copy_waits_until_no_explainer_hooks_the_network(checkpoint, how, tmp_path):
    predictor, made, seen = load(checkpoint), [], []
    conv5 = predictor.detector.roi_heads.conv5_cls
    thread = Thread(target=lambda: made.append(HOW[how](predictor, tmp_path)))
    with predictor.lock:  # as `explain` holds it
        hook = conv5[0].register_forward_hook(lambda *given: seen.append(1))
        conv5.requires_grad_(False)
        thread.start()
        thread.join(1)
        conv5.requires_grad_(True)
        hook.remove()
    thread.join()
    assert len(made) == 1 and not seen
    if how != "predict_many":
        own = made[0].detector.roi_heads.conv5_cls
        assert own is not conv5 and not own[0]._forward_hooks
        assert all(parameter.requires_grad for parameter in own.parameters())


def test_explain_is_there_after_import_als():
    script = "import als; print(als.explain.__name__, 'gradcam' in als.explain.EXPLAINERS)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["als.explain", "True"]
