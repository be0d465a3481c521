from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import encoded, left_as_it_was, some_targets, tiny_detector

from als.errors import InputError
from als.explain import LAYERS, Target, grad_cam, grad_cams, is_empty
from als.explain.gradcam import RoIScore, paste

METHODS = ("gradcam", "gradient_x_activation")
WAYS = [("softmax", "F"), ("logit", "F_cls"), ("margin", "conv5"), ("dx", "F"), ("dw", "F_loc")]
WAYS.append(("dh", "conv5"))


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def encoding(detector):
    return encoded(detector)[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind, layer", WAYS)
def test_several_targets_equal_each_alone(detector, encoding, kind, layer, method):
    targets = some_targets(kind)
    together = grad_cams(detector, encoding, targets, layer, method)
    alone = [grad_cam(detector, encoding, target, layer, method) for target in targets]
    assert together.shape == (3, 70, 90) and together.dtype == np.float32
    assert together.min() >= 0 and together.max() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4 * together.max())


def test_mixed_kinds_and_more_targets_than_one_batch_keep_their_order(detector, encoding):
    targets = [t for kind in ("dx", "logit") for t in some_targets(kind)] * 6
    maps = grad_cams(detector, encoding, targets)
    for index in (0, 3, 19, 35):
        alone = grad_cam(detector, encoding, targets[index])
        np.testing.assert_allclose(maps[index], alone, rtol=1e-3, atol=1e-4 * alone.max())


@pytest.mark.parametrize("kind, layer", [w for w in WAYS if w[1] != "conv5"])
def test_maps_follow_their_equations(detector, encoding, kind, layer):
    """Grad-CAM's equations 1 and 2, and grad x activation, written out with plain autograd."""
    target = some_targets(kind)[1]
    score = RoIScore(detector, encoding, [target], layer)
    feature = score.start().requires_grad_()
    (gradient,) = torch.autograd.grad(score(feature).sum(), feature)
    weights = gradient.mean((2, 3), keepdim=True)
    for method, expected in [
        ("gradcam", (weights * feature).sum(1, keepdim=True).relu()),
        ("gradient_x_activation", (gradient * feature).sum(1, keepdim=True).relu()),
    ]:
        made = grad_cam(detector, encoding, target, layer, method)
        wanted = score.to_image(expected.detach())[0]
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5 * wanted.max())


@pytest.mark.parametrize(
    "options, constant",
    [
        ({}, None),
        ({}, 0.5),
        ({"attention": False}, None),
        ({"separation": False}, None),
        ({"attention_source": "F_loc", "attention_form": "residual"}, 0.5),
        ({"backbone": "resnet18"}, None),
    ],
)
def test_the_explained_scalar_is_the_models_own(options, constant):
    """From F, F_loc / F_cls or past conv5 the same number comes out that the detector computed."""
    detector = tiny_detector(**options)
    overrides = {}
    if constant is not None:
        overrides["override_loc"] = lambda loc, cls: torch.full_like(loc, constant)
    encoding, proposals, logits = encoded(detector, **overrides)
    with torch.no_grad():
        deltas = detector.roi_heads.localize(encoding.f_loc, [proposals])
    for kind, layers, outputs in [
        ("margin", ("F", "F_cls", "conv5"), logits),
        ("dy", ("F", "F_loc", "conv5"), deltas),
    ]:
        targets = some_targets(kind, proposals)
        expected = [t.value(row).item() for t, row in zip(targets, outputs, strict=False)]
        for layer in layers:
            score = RoIScore(detector, encoding, targets, layer)
            with torch.no_grad():
                values = score(score.start())
            assert values.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_replaced_map_is_a_constant(detector):
    """With both maps replaced, F_cls is F times a constant: so is the gradient's way back."""
    half = dict.fromkeys(
        ("override_loc", "override_cls"), lambda loc, cls: torch.full_like(loc, 0.5)
    )
    encoding, proposals, _ = encoded(detector, **half)
    target = some_targets("logit", proposals)[0]
    from_f = grad_cam(detector, encoding, target, "F")
    np.testing.assert_allclose(from_f, grad_cam(detector, encoding, target, "F_cls"), rtol=1e-4)


def test_gradients_reach_f_through_the_attention_networks(detector, encoding):
    target = some_targets("logit")[0]
    free = grad_cam(detector, encoding, target, "F", "gradient_x_activation")
    a_loc, a_cls = encoding.a_loc, encoding.a_cls
    fixed = replace(
        encoding, override_loc=lambda loc, cls: a_loc, override_cls=lambda loc, cls: a_cls
    )
    held = grad_cam(detector, fixed, target, "F", "gradient_x_activation")
    assert np.abs(free - held).max() > 0.01 * free.max()


def test_gradient_x_activation_stays_at_the_roi_and_gradcam_does_not(detector, encoding):
    """Only cells that RoIAlign reads have a gradient; Grad-CAM spreads its mean everywhere."""
    height, width = encoding.images.image_sizes[0]
    roi = torch.tensor([[0.0, 0, width / 3, height / 3]])
    target = Target(roi, 1, "logit")
    far = np.s_[50:, 60:]  # over two cells away from the RoI
    local = grad_cam(detector, encoding, target, "F_cls", "gradient_x_activation")
    assert local.max() > 0 and local[far].max() == 0
    assert grad_cam(detector, encoding, target, "F_cls", "gradcam")[far].max() > 0


def test_conv5_is_pasted_into_its_box(detector, encoding):
    height, width = encoding.images.image_sizes[0]
    target = Target(torch.tensor([[0.0, 0, width / 2, height / 2]]), 1, "logit")
    map = grad_cam(detector, encoding, target, "conv5")
    assert map[:35, :45].max() > 0
    assert map[35:].max() == 0 and map[:, 45:].max() == 0


def test_paste_by_hand():
    grid = torch.tensor([[[1.0, 3.0]]])
    pasted = paste(grid, torch.tensor([2.0, 1.0, 6.0, 2.0]), (3, 8))
    # Cell centres at x = 3 and 5; pixel centres at 2.5, 3.5, 4.5, 5.5.
    np.testing.assert_allclose(pasted[1], [0, 0, 1, 1.5, 2.5, 3, 0, 0])
    assert pasted[[0, 2]].max() == 0


def test_everything_is_left_as_it_was(encoding, monkeypatch):
    """After success and after an error in the middle."""
    targets = some_targets("logit")
    with left_as_it_was() as detector:
        for layer in ("F", "F_cls", "conv5"):
            grad_cams(detector, encoding, targets, layer)
            with monkeypatch.context() as patch:
                patch.setattr(Target, "value", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    grad_cams(detector, encoding, targets, layer)
    assert not encoding.f.requires_grad and encoding.f.grad is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_frozen_parameters_and_no_outer_gradient_change_nothing(detector, encoding, around):
    target = some_targets("logit")[0]
    expected = {layer: grad_cam(detector, encoding, target, layer) for layer in ("F", "conv5")}
    frozen = tiny_detector().requires_grad_(False)
    for layer, map in expected.items():
        with around():
            made = grad_cam(frozen, encoding, target, layer)
        np.testing.assert_allclose(made, map, rtol=1e-4, atol=1e-5 * map.max())


def test_an_encoding_made_in_inference_mode_can_be_explained(detector):
    with torch.inference_mode():
        encoding, proposals, _ = encoded(detector)
    assert grad_cam(detector, encoding, some_targets("logit")[0], "F").max() > 0


def test_layers_that_the_branch_does_not_read_are_refused(detector, encoding):
    with pytest.raises(InputError, match="F_loc does not feed the class branch"):
        grad_cam(detector, encoding, some_targets("logit")[0], "F_loc")
    with pytest.raises(InputError, match="F_cls does not feed the box branch"):
        grad_cam(detector, encoding, some_targets("dx")[0], "F_cls")
    with pytest.raises(InputError, match="'conv9' is unknown"):
        grad_cam(detector, encoding, some_targets("dx")[0], "conv9")
    with pytest.raises(InputError, match="method 'cam'"):
        grad_cam(detector, encoding, some_targets("dx")[0], method="cam")


def test_without_attention_all_features_are_f():
    detector = tiny_detector(attention=False)
    encoding, proposals, _ = encoded(detector)
    target = some_targets("logit", proposals)[0]
    maps = [grad_cam(detector, encoding, target, layer) for layer in LAYERS[:3]]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_empty_maps():
    assert is_empty(np.zeros((2, 2))) and is_empty(np.array([[1, np.nan]]))
    assert is_empty(-np.ones((2, 2))) and is_empty(np.zeros((0, 4)))
    assert not is_empty(np.array([[0, 1e-20]]))
