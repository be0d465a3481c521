"""docs/other-tools.md runs as it is written, on the detector that ships."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from explain_toys import hooks
from PIL import Image

from als.photographs import package_photographs

PAGE = Path(__file__).parents[1] / "docs" / "other-tools.md"
START, CAM, CAPTUM, QUANTUS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> dict:
    """The names that the first block makes, of a photograph of a cat."""
    folder = tmp_path_factory.mktemp("page")
    with Image.open(package_photographs()[0]) as photo:
        photo.save(folder / "photo.jpg", quality=95)
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(START, names)
    assert names["found"].names[0] == "cat"
    return names


@pytest.fixture
def run(started, tmp_path, monkeypatch):
    """Runs further blocks, and sees that they leave the detector as it was."""
    monkeypatch.chdir(tmp_path)
    detector = started["detector"]
    before = hooks(detector)

    def run(*blocks: str) -> dict:
        names = dict(started)
        for block in blocks:
            exec(block, names)
        assert hooks(detector) == before and not detector.training
        return names

    return run


def test_pytorch_grad_cam_runs_as_its_tutorial_for_detectors(run, tmp_path):
    pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    names = run(CAM)
    np.testing.assert_allclose(
        names["before"]["boxes"][0].detach(), names["found"].boxes[0], atol=3
    )
    for heat in (names["eigen"], names["grad"]):
        assert heat.shape == names["pixels"].shape[:2]
        assert heat.min() == 0 and heat.max() == pytest.approx(1, abs=1e-3)
    with Image.open(tmp_path / "gradcam.png") as picture:
        assert picture.size == names["pixels"].shape[1::-1]


def test_captum_explains_the_highest_logit_of_a_class(run):
    names = run(CAPTUM)
    images, label, model = names["images"], names["label"], names["model"]
    logits = model(images)
    assert logits.shape == (1, 7) and logits[0, 1:].argmax() + 1 == label
    assert names["saliency"].shape == images.shape and names["saliency"].max() > 0
    # Saliency is the size of the gradient: a step along it changes the logit by as much.
    moved = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(moved)[0, label], moved)
    torch.testing.assert_close(slope.abs(), names["saliency"])
    assert names["heat"].shape == (1, 1, *images.shape[-2:]) and names["heat"].max() > 0


def test_quantus_measures_our_maps_and_captum_s(run):
    pytest.importorskip("quantus", reason="needs the extra `checks`")
    names = run(CAPTUM, QUANTUS)
    assert 0.9 < names["inside"][0] <= 1  # the cat fills the photograph
    (scores,) = names["scores"]
    assert len(scores) == 3 and scores[-1] < 0.01  # all is black
    assert names["changes"][0] > 0
