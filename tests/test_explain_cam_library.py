import sys
from functools import partial

import numpy as np
import pytest
import torch
from explain_toys import encoded, left_as_it_was, some_targets, tiny_detector

from als.errors import InputError
from als.explain import METHODS, grad_cams
from als.explain.gradcam import RoIScore, library_grids


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    return tiny_detector()


@pytest.fixture(scope="module")
def encoding(detector):
    return encoded(detector)[0]


@pytest.mark.parametrize(
    "kind, layer",
    [("softmax", "F"), ("margin", "F_cls"), ("logit", "conv5"), ("dx", "F_loc"), ("dh", "F")],
)
def test_grad_cam_agrees_with_the_library(detector, encoding, kind, layer, monkeypatch):
    monkeypatch.setitem(METHODS, "theirs", partial(library_grids, name="GradCAM"))
    targets = some_targets(kind)
    ours = grad_cams(detector, encoding, targets, layer)
    theirs = grad_cams(detector, encoding, targets, layer, "theirs")
    compared = 0
    for our, their in zip(ours, theirs, strict=True):
        assert (our.max() > 0) == (their.max() > 0)
        if our.max() > 0:
            assert np.corrcoef(our.ravel(), their.ravel())[0, 1] > 0.999
            np.testing.assert_allclose(our, their, rtol=1e-2, atol=1e-3 * our.max())
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("method", ["gradcam++", "layercam", "eigencam"])
@pytest.mark.parametrize("layer", ["F_cls", "conv5"])
def test_library_maps_are_raw_maps_of_the_image(detector, encoding, method, layer):
    targets = some_targets("logit")
    maps = grad_cams(detector, encoding, targets, layer, method)
    assert maps.shape == (3, 70, 90) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() > 0
    alone = grad_cams(detector, encoding, targets[1:2], layer, method)
    # Not a tolerance: Grad-CAM++ divides by sums near zero, which magnifies rounding.
    assert np.corrcoef(maps[1].ravel(), alone[0].ravel())[0, 1] > 0.999
    assert maps[1].max() == pytest.approx(alone.max(), rel=0.02)
    if method == "eigencam":  # takes no gradient, so the score's scale does not matter
        scaled = tiny_detector()
        with torch.no_grad():
            scaled.roi_heads.cls_score.weight *= 3
        again = grad_cams(scaled, encoding, targets, layer, method)
        np.testing.assert_allclose(again, maps, rtol=1e-4, atol=1e-5 * maps.max())


def test_layercam_follows_its_equation(detector, encoding):
    target = some_targets("logit")[0]
    score = RoIScore(detector, encoding, [target], "F_cls")
    feature = score.start().requires_grad_()
    (gradient,) = torch.autograd.grad(score(feature).sum(), feature)
    expected = (gradient.relu() * feature).sum(1, keepdim=True).relu()
    made = grad_cams(detector, encoding, [target], "F_cls", "layercam")[0]
    wanted = score.to_image(expected.detach())[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5 * wanted.max())


def test_eigencam_is_the_first_principal_component(detector, encoding):
    made = grad_cams(detector, encoding, some_targets("logit")[:1], "F_cls", "eigencam")[0]
    from als.model.grid import map_to_image

    feature = encoding.f_cls[0].flatten(1).T
    centred = feature - feature.mean(0)
    grid = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]).reshape(
        encoding.f_cls.shape[-2:]
    )
    grid = grid if grid.max() >= -grid.min() else -grid
    expected = map_to_image(grid.relu()[None, None], encoding)
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_the_library_leaves_everything_as_it_was(encoding):
    targets = some_targets("logit")
    with left_as_it_was() as detector:
        for method in ("gradcam++", "eigencam"):
            grad_cams(detector, encoding, targets, "conv5", method)
            object.__setattr__(targets[2], "label", 99)  # no such class: an error on the way
            with pytest.raises(IndexError):
                grad_cams(detector, encoding, targets, "conv5", method)
            object.__setattr__(targets[2], "label", 1)


def test_targets_of_both_branches_are_explained_each_on_its_own_feature(detector, encoding):
    mixed = [some_targets("logit")[0], some_targets("dx")[1]]
    maps = grad_cams(detector, encoding, mixed, method="gradcam++")
    for made, target in zip(maps, mixed, strict=True):
        alone = grad_cams(detector, encoding, [target], method="gradcam++")[0]
        assert made.max() == pytest.approx(alone.max(), rel=0.02)


def test_what_cannot_be_done_is_said(detector, encoding, monkeypatch):
    with pytest.raises(InputError, match="'scorecam' is unknown"):
        grad_cams(detector, encoding, some_targets("logit"), method="scorecam")
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(InputError, match="pip install grad-cam"):
        grad_cams(detector, encoding, some_targets("logit"), method="eigencam")
