"""SSD: torchvision's losses and detections, the paper's default boxes and layers."""

import pytest
import torch
from tiny import (
    CLASSES,
    assert_same_detections,
    random_images,
    some_targets,
    write_lively_weights,
)
from torch import nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList

from als.baselines.ssd import _subsample_fc
from als.checkpoint import build_detector
from als.config import ModelConfig

SSD = {"classes": CLASSES, "family": "ssd", "weights": None}
SSD |= {"attention": False, "separation": False}


def ssd(side: int, backbone: str, **changes):
    options = {"backbone": backbone, "min_size": side, "max_size": side, "frozen_blocks": 0}
    return build_detector(ModelConfig(**(SSD | options | changes)))


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """SSDLite of 96 pixels a side whose scores vary."""
    weights = write_lively_weights(tmp_path_factory.mktemp("weights") / "mobilenet.pth")
    options = {"score_threshold": 0.3, "detections_per_image": 20, "weights": weights}
    detector = ssd(96, "mobilenet_v2", **options)
    detector.train()
    with torch.no_grad():
        for _ in range(3):  # running statistics
            detector.encode(random_images(1, dtype=torch.float32))
        for layer in detector.ssd.head.classification_head.module_list:
            layer[1].weight.mul_(30)
    return detector


def test_detections_equal_torchvisions(lite):
    lite.eval()
    sizes = [(100, 150), (90, 70)]
    images = random_images(0, sizes, torch.float32)
    with torch.no_grad():
        found, expected = lite(images), lite.ssd(images)
    assert_same_detections(found, expected, atol=1e-5)
    assert sum(len(image["scores"]) for image in found) > 5
    for image, (height, width) in zip(found, sizes, strict=True):
        assert (image["scores"].diff() <= 0).all() and image["scores"].min() > 0.3
        assert (image["boxes"].amax(0) <= torch.tensor([width, height] * 2) + 1e-3).all()
        assert image["boxes"].amax() > 64, "boxes are in pixels of the original image"


def test_losses_equal_torchvisions(lite):
    lite.train()
    images, targets = random_images(0, dtype=torch.float32), some_targets(masks=False)
    ours, theirs = lite(images, targets), lite.ssd(images, targets)
    assert ours.keys() == {"loss_cls", "loss_loc"}
    torch.testing.assert_close(ours["loss_cls"], theirs["classification"])
    torch.testing.assert_close(ours["loss_loc"], theirs["bbox_regression"])
    total = lite.total_loss({"loss_cls": torch.tensor(2.0), "loss_loc": torch.tensor(3.0)})
    assert total == 5.0


def test_memory_format_does_not_matter(lite):
    lite.eval()
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        plain = lite(images)
        found = lite.to(memory_format=torch.channels_last)(images)
        lite.to(memory_format=torch.contiguous_format)
    assert_same_detections(plain, found, atol=1e-3)


def test_anchors_are_exact_under_autocast(lite):
    made = []
    generator = lite.eval().ssd.anchor_generator
    hook = generator.register_forward_hook(lambda layer, given, boxes: made.append(boxes[0]))
    for on in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=on):
            lite.encode(random_images(0, dtype=torch.float32))
    hook.remove()
    torch.testing.assert_close(*made, rtol=0, atol=0)


def test_encodings_are_told_apart_by_which_they_are(lite):
    with torch.no_grad():
        one, two = (lite.eval().encode(random_images(0, dtype=torch.float32)) for _ in range(2))
    assert len({one, two}) == 2


def test_the_threshold_is_an_argument(lite):
    with torch.no_grad():
        encoding = lite.eval().encode(random_images(0, dtype=torch.float32))
        low, own, high = (lite.detect(encoding, t) for t in (0.0, None, 0.5))
    for few, some, many in zip(high, own, low, strict=True):
        assert (some.scores > 0.3).all() and (few.scores > 0.5).all()
        assert len(few.scores) <= len(some.scores) <= len(many.scores) and len(many.scores)
        assert len(many.proposals) == 0


@pytest.mark.parametrize(
    ("side", "cells", "count"),
    [(300, [38, 19, 10, 5, 3, 1], 8732), (512, [64, 32, 16, 8, 4, 2, 1], 24564)],
)
def test_default_boxes_are_the_papers(side, cells, count):
    with torch.device("meta"):  # shapes only
        detector = ssd(side, "vgg16")
        features = list(detector.ssd.backbone(torch.rand(1, 3, side, side)).values())
        outputs = detector.ssd.head(features)
    assert [tuple(f.shape[-2:]) for f in features] == [(n, n) for n in cells]
    assert outputs["cls_logits"].shape == (1, count, 4)
    images = ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    maps = [torch.zeros(1, 1, n, n) for n in cells]
    (boxes,) = detector.ssd.anchor_generator(images, maps)
    assert boxes.shape == (count, 4)
    # The first cell's centre is (4, 4); its square's side is a tenth of 300, 7 % of 512.
    half = {300: 15.0, 512: 17.92}[side]
    expected = torch.tensor([4 - half, 4 - half, 4 + half, 4 + half])
    torch.testing.assert_close(boxes[0], expected, rtol=0, atol=1e-3)
    # The second square's side is the geometric mean with the next map's.
    next_half = {300: 30.0, 512: 38.4}[side]
    side_2 = 2 * (half * next_half) ** 0.5
    torch.testing.assert_close(boxes[1, 2] - boxes[1, 0], torch.tensor(side_2), rtol=0, atol=1e-3)


def test_ssd300_has_the_tensors_of_torchvisions():
    with torch.device("meta"):
        ours = ssd(300, "vgg16").ssd.state_dict()
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4).state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_fc_layers_are_subsampled():
    """Every fourth unit, and the rows and columns 0, 3 and 6 of a 7 x 7 window."""
    fc6, fc7 = nn.Linear(2 * 49, 8), nn.Linear(8, 8)
    conv6, conv7 = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1)
    semantic = nn.Sequential(nn.Identity(), nn.Flatten(), fc6, nn.ReLU(), fc7)
    _subsample_fc(semantic, nn.Sequential(nn.MaxPool2d(3), conv6, nn.ReLU(), conv7))
    assert conv6.weight[1, 1, 2, 1] == fc6.weight[4, 49 + 6 * 7 + 3]
    assert conv6.bias.tolist() == [fc6.bias[0], fc6.bias[4]]
    assert conv7.weight[1, 0, 0, 0] == fc7.weight[4, 0] and conv7.bias[1] == fc7.bias[4]


def test_frozen_blocks_and_folding():
    detector = ssd(96, "mobilenet_v2", frozen_blocks=3, fold_batch_norm=True)
    blocks = detector.ssd.backbone.features[0]
    trains = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    assert trains == [False] * 3 + [True] * 12  # features 3 to 13 and the expansion of 14
