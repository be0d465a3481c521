"""The whole detector: parity with torchvision, the way of the features, overrides."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny import (
    assert_same_detections,
    lively_detector,
    random_images,
    some_targets,
    thin_vgg16,
    tiny_config,
)
from torchvision import models

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.errors import InputError
from als.inference import Predictor
from als.model.attention import FORMS, attention_loss, object_map_targets
from benchmarks.torchvision_baseline import faster_rcnn_of

SWITCHES = list(product([False, True], repeat=2))  # attention, separation


@pytest.fixture(params=["mobilenet_v2", "vgg16"])
def network(request, monkeypatch):
    """The options that choose a backbone; VGG16 is a thin one."""
    monkeypatch.setattr(models, "vgg16", thin_vgg16)
    return {"backbone": "vgg16", "pool_size": 7} if request.param == "vgg16" else {}


@pytest.mark.parametrize("seed", range(3))
def test_detections_equal_torchvisions(seed, network):
    changes = {"detections_per_image": 15, "score_threshold": 0.3, "nms_threshold": 0.4}
    changes |= network
    detector = lively_detector(seed, attention=False, separation=False, **changes)
    twin = faster_rcnn_of(detector).eval()
    images = random_images(seed, [(100, 150), (90, 70)])  # resized on the way
    with torch.no_grad():
        found = detector(images)
        assert_same_detections(found, twin(images), atol=1e-5)
    assert sum(len(image["scores"]) for image in found) > 5
    for image, size in zip(found, [(100, 150), (90, 70)], strict=True):
        assert (image["scores"].diff() <= 0).all() and image["scores"].min() > 0.3
        assert (image["boxes"] >= 0).all()
        assert (image["boxes"].amax(0)[2:] <= torch.tensor([size[1], size[0]]) + 1e-3).all()
        assert image["boxes"].amax() > 64, "boxes are in pixels of the original image"
        assert set(image["labels"].tolist()) <= {1, 2, 3}


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_torchvisions(seed, network):
    changes = {"attention": False, "separation": False} | network
    detector = lively_detector(seed, **changes).float().train()
    twin = faster_rcnn_of(detector).train()
    images, targets = random_images(seed, dtype=torch.float32), some_targets(masks=False)

    def gradients(loss):
        detector.zero_grad()
        loss.backward()
        named = detector.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.requires_grad}

    torch.manual_seed(seed)
    ours = detector(images, targets)
    our_gradients = gradients(detector.total_loss(ours))
    torch.manual_seed(seed)
    theirs = twin(images, targets)
    their_gradients = gradients(sum(theirs.values()))

    pairs = {
        "loss_cls": theirs["loss_classifier"],
        "loss_loc": theirs["loss_box_reg"],
        "loss_rpn": theirs["loss_objectness"] + theirs["loss_rpn_box_reg"],
    }
    assert ours.keys() == pairs.keys()
    for name, expected in pairs.items():
        assert expected > 0
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-5)
    for name, expected in their_gradients.items():
        scale = max(expected.abs().max().item(), 1e-3)
        torch.testing.assert_close(
            our_gradients[name] / scale, expected / scale, rtol=0, atol=1e-4, msg=name
        )


@pytest.mark.parametrize(("attention", "separation"), SWITCHES)
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_every_combination_trains_a_step_and_detects(attention, separation, backbone):
    torch.manual_seed(0)
    config = tiny_config(attention=attention, separation=separation, backbone=backbone)
    detector = build_detector(config).train()
    images, targets = random_images(0, dtype=torch.float32), some_targets()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1e-4)
    losses = detector(images, targets)
    total = detector.total_loss(losses)
    total.backward()
    optimizer.step()

    assert losses.keys() == {"loss_rpn", "loss_cls", "loss_loc", *(["loss_att"] * attention)}
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
    frozen = {name for name, p in detector.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("trunk.0.", "trunk.1.")) for name in frozen)
    for name, parameter in detector.named_parameters():
        if name in frozen:
            assert parameter.grad is None and torch.equal(parameter, before[name])
        else:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, f"{name} gets no gradient"
    buffers = {name for name, _ in detector.named_buffers()}
    assert all(torch.equal(detector.state_dict()[name], before[name]) for name in buffers)

    with torch.no_grad():
        found = detector.eval()(images)
    assert len(found) == 2
    for image in found:
        count = len(image["scores"])
        assert image["boxes"].shape == (count, 4) and image["labels"].shape == (count,)
        assert image["labels"].dtype == torch.int64
        assert torch.isfinite(image["boxes"]).all()


def test_equation_1_weighs_its_terms():
    detector = build_detector(tiny_config(lambda_cls=2.0, lambda_loc=3.0, lambda_att=5.0))
    losses = {"loss_rpn": 1.0, "loss_cls": 10.0, "loss_loc": 100.0, "loss_att": 1000.0}
    losses = {name: torch.tensor(value) for name, value in losses.items()}
    assert detector.total_loss(losses).item() == 1 + 20 + 300 + 5000
    del losses["loss_att"]
    assert detector.total_loss(losses).item() == 1 + 20 + 300


def test_attention_loss_is_on_the_masks_given():
    detector = build_detector(tiny_config()).train()
    images, targets = random_images(0, dtype=torch.float32), some_targets()
    encoding = detector.encode(images)
    loss = detector.losses(encoding, targets)["loss_att"]
    # Images of 64 x 96 and 80 x 64 pixels in a batch of 96 x 96: 6 x 6 cells.
    maps = object_map_targets(
        [targets[0]["object_map"], None], [(64, 96), (80, 64)], (96, 96), (6, 6)
    )
    assert maps[0].nansum() > 0 and maps[1].isnan().all()
    torch.testing.assert_close(loss, attention_loss(encoding.loc_logits, maps))


def test_images_without_masks_give_no_attention_loss():
    detector = build_detector(tiny_config()).train()
    images, targets = random_images(0, dtype=torch.float32), some_targets(masks=False)
    loss = detector.losses(detector.encode(images), targets)["loss_att"]
    loss.backward()
    assert loss.item() == 0.0
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert all((gradient == 0).all() for gradient in gradients)


def encode(detector, override_loc=None, override_cls=None, seed=0):
    with torch.no_grad():
        return detector.encode(random_images(seed, [(64, 96)]), override_loc, override_cls)


def detections(detector, encoding):
    with torch.no_grad():
        return detector.detect(encoding)[0].as_dict()


@pytest.mark.parametrize("source", ["F", "F_loc"])
@pytest.mark.parametrize("form", ["product", "residual"])
def test_features_are_the_papers_products(source, form):
    detector = lively_detector(0, attention_source=source, attention_form=form)
    e = encode(detector)
    assert e.a_loc.shape == (1, 1, *e.f.shape[-2:]) and e.a_cls.shape == e.a_loc.shape
    assert e.a_loc.std() > 0.05 and e.a_cls.std() > 0.05
    plus = 1 if form == "residual" else 0
    with torch.no_grad():
        assert torch.equal(e.a_loc, detector.attention_loc(e.f).sigmoid())
        assert torch.equal(e.a_cls, detector.attention_cls(e.f_loc).sigmoid())
    assert torch.equal(e.loc_logits.sigmoid(), e.a_loc)
    assert torch.equal(e.f_loc, e.f * (plus + e.a_loc))
    assert torch.equal(e.f_cls, (e.f if source == "F" else e.f_loc) * (plus + e.a_cls))


def test_without_attention_there_is_one_feature_and_no_map():
    e = encode(lively_detector(0, attention=False))
    assert e.f_loc is e.f and e.f_cls is e.f
    assert e.a_loc is None and e.a_cls is None and e.loc_logits is None


def test_the_classification_map_touches_only_the_class_branch():
    detector = lively_detector(0)
    plain = encode(detector)
    changed = encode(detector, override_cls=lambda loc, cls: 0.2 * cls)
    assert torch.equal(changed.a_loc, plain.a_loc) and torch.equal(changed.f_loc, plain.f_loc)
    assert torch.equal(changed.a_cls, 0.2 * plain.a_cls)
    with torch.no_grad():
        (proposals,), (same) = detector.propose(plain), detector.propose(changed)
        assert torch.equal(proposals, same[0])
        heads = detector.roi_heads
        before, after = (heads.classify(e.f_cls, [proposals])[0] for e in (plain, changed))
        assert not torch.allclose(before, after)
        before, after = (heads.localize(e.f_loc, [proposals]) for e in (plain, changed))
        assert torch.equal(before, after)


def test_the_localization_map_reaches_proposals_and_boxes():
    detector = lively_detector(0)
    plain = encode(detector)
    changed = encode(detector, override_loc=lambda loc, cls: loc.flip(-1))
    assert torch.equal(changed.a_loc, plain.a_loc.flip(-1))
    with torch.no_grad():
        proposals = detector.propose(plain)
        assert not torch.equal(proposals[0], detector.propose(changed)[0])
        before, after = (detector.roi_heads.localize(e.f_loc, proposals) for e in (plain, changed))
        assert not torch.allclose(before, after)


def test_overrides_see_the_networks_own_maps():
    detector = lively_detector(0)
    plain = encode(detector)
    seen = []

    def swap_loc(loc, cls):
        seen.append((loc, cls))
        return cls

    def swap_cls(loc, cls):
        seen.append((loc, cls))
        return loc

    swapped = encode(detector, swap_loc, swap_cls)
    assert torch.equal(swapped.a_loc, plain.a_cls) and torch.equal(swapped.a_cls, plain.a_loc)
    for loc, cls in seen:
        assert torch.equal(loc, plain.a_loc) and torch.equal(cls, plain.a_cls)
    assert torch.equal(swapped.loc_logits, plain.loc_logits), "the loss sees the network's logits"


def test_the_classification_map_follows_a_replaced_localization_map():
    detector = lively_detector(0)
    plain = encode(detector)
    followed = encode(detector, override_loc=lambda loc, cls: torch.zeros_like(loc))
    with torch.no_grad():
        expected = detector.attention_cls(torch.zeros_like(plain.f)).sigmoid()
    assert torch.equal(followed.a_cls, expected)
    assert not torch.allclose(followed.a_cls, plain.a_cls)
    both = encode(detector, lambda loc, cls: torch.zeros_like(loc), lambda loc, cls: cls)
    assert torch.equal(both.a_cls, plain.a_cls), "unless it is replaced too"


def test_overriding_with_the_own_maps_changes_nothing():
    detector = lively_detector(0)
    plain = detections(detector, encode(detector))
    own = encode(detector, lambda loc, cls: loc, lambda loc, cls: cls)
    assert_same_detections([plain], [detections(detector, own)], atol=0)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_neutral_map_of_a_form_leaves_the_feature_as_it_is(form):
    detector = lively_detector(0, attention_form=form)
    neutral = [lambda loc, cls: torch.full_like(loc, detector.form.neutral)] * 2
    e = encode(detector, *neutral)
    assert torch.equal(e.f_loc, e.f) and torch.equal(e.f_cls, e.f)


@pytest.mark.parametrize("value", [0.02, 0.5, 1.0])
def test_under_competition_every_constant_is_neutral(value):
    detector = lively_detector(0, attention_form="competition")
    found = [
        detections(detector, encode(detector, None, lambda loc, cls, v=v: torch.full_like(cls, v)))
        for v in (value, 1.0)
    ]
    assert len(found[0]["scores"]) > 5
    assert_same_detections(found[:1], found[1:], atol=1e-9)


def test_under_competition_a_cell_gains_what_the_others_lose():
    """Twice the map changes nothing; another map does."""
    detector = lively_detector(0, attention_form="competition")
    plain = detections(detector, encode(detector))
    half = detections(detector, encode(detector, None, lambda loc, cls: cls / 2))
    other = detections(detector, encode(detector, None, lambda loc, cls: 1 - cls))
    assert_same_detections([plain], [half], atol=1e-9)
    assert plain["scores"].shape != other["scores"].shape or not torch.allclose(
        plain["scores"], other["scores"]
    )


def test_image_of_another_canvas_does_not_change_detections():
    """64 x 80 pads to 64 x 96, alone as beside an image of 64 x 96."""
    detector = lively_detector(0)
    small, large = random_images(5, [(64, 80), (64, 96)])
    with torch.no_grad():
        together = detector([small, large])
        alone = detector([small]) + detector([large])
    assert_same_detections(together, alone, atol=1e-9)
    assert len(together[0]["scores"]) and (together[0]["boxes"][:, 2] <= 80).all()


def test_training_images_are_not_resized_and_test_images_are():
    detector = lively_detector(0)
    images = random_images(0, [(128, 192)])
    with torch.no_grad():
        assert detector.encode(images).images.image_sizes == [(64, 96)]
        assert detector.train().encode(images).images.image_sizes == [(128, 192)]


def test_memory_format_does_not_matter():
    detector = lively_detector(0)
    images = random_images(0)
    with torch.no_grad():
        plain = detector(images)
        found = detector.to(memory_format=torch.channels_last)(images)
    assert_same_detections(plain, found, atol=1e-9)


def test_a_box_without_width_is_refused_as_torchvision_does():
    targets = some_targets()
    targets[0]["boxes"][0, 2] = targets[0]["boxes"][0, 0]
    with pytest.raises(InputError, match="no width"):
        lively_detector(0).float().train()(random_images(1, dtype=torch.float32), targets)


def anchors(detector, generator, autocast: bool) -> torch.Tensor:
    made = []
    hook = generator.register_forward_hook(lambda layer, given, boxes: made.append(boxes[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        detector.detect(detector.encode([torch.rand(3, 600, 900)]))
    hook.remove()
    return made[0]


def test_anchors_are_exact_under_autocast():
    options = {"min_size": 600, "max_size": 1000, "anchor_sizes": (23, 700)}
    for attention in (True, False):
        detector = lively_detector(0, attention=attention, **options).float()
        sides = [anchors(detector, detector.rpn.anchor_generator, on) for on in (False, True)]
        torch.testing.assert_close(*sides, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 100), (5000, 1), (5, 2000)])
def test_a_thin_image_has_detections(size):
    detector = lively_detector(0).float()
    with torch.no_grad():
        (found,) = detector([torch.ones(3, *size) * (99 / 255)])
    assert len(found["boxes"]) and found["boxes"][:, 3].max() <= size[0] + 1e-3
    if max(size) <= 192:  # a larger photograph is reduced first
        one = Predictor(detector, {}).predict(np.full((*size, 3), 99, np.uint8))
        np.testing.assert_allclose(found["boxes"], one.boxes, atol=1e-3)


def test_classes_are_needed():
    with pytest.raises(InputError, match="classes is empty"):
        build_detector(ModelConfig(weights=None, backbone="mobilenet_v2"))
