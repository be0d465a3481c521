"""Tiny detectors and images for tests: random weights, but lively maps, scores and boxes."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torchvision import models
from torchvision.models.vgg import make_layers

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.model import Detector
from benchmarks.networks import give_statistics

CLASSES = ("cat", "dog", "person")

TINY = {
    "classes": CLASSES,
    "backbone": "mobilenet_v2",
    "weights": None,
    "attention_width": 8,
    "frozen_blocks": 2,
    "pool_size": 3,
    "min_size": 64,
    "max_size": 96,
    "anchor_sizes": (16, 32, 64),
    "rpn_pre_nms_train": 60,
    "rpn_post_nms_train": 20,
    "rpn_pre_nms_test": 60,
    "rpn_post_nms_test": 20,
    "rois_per_image": 16,
}


class Payload:
    """Unpickled it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def tiny_config(**changes) -> ModelConfig:
    return ModelConfig(**(TINY | changes))


def thin_vgg16(weights: None = None) -> SimpleNamespace:
    """VGG16's stages and classifier in the same order, with few layers and units.

    conv4 and conv5 keep the 512 channels that torchvision's SSD writes out.
    """
    features = make_layers([4, "M", 4, "M", 4, "M", 512, "M", 512, "M"])
    fc6, fc7 = nn.Linear(512 * 49, 32), nn.Linear(32, 24)
    layers = [fc6, nn.ReLU(True), nn.Dropout(), fc7, nn.ReLU(True), nn.Dropout()]
    return SimpleNamespace(features=features, classifier=nn.Sequential(*layers, nn.Linear(24, 9)))


@torch.no_grad()
def write_lively_weights(path: Path) -> str:
    """A file of random MobileNetV2 weights whose BN statistics keep the features alive."""
    torch.manual_seed(0)
    network = models.mobilenet_v2(weights=None).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    network(torch.rand(8, 3, 96, 96) * 4 - 2)
    torch.save(network.state_dict(), path)
    return str(path)


def lively_detector(seed: int = 0, **changes) -> Detector:
    """A float64 detector in evaluation mode whose maps, scores and boxes vary.

    Random layers give outputs of any scale; each output layer is scaled so that its channels
    vary by about one on random images. In float64 the order of a sum does not show.
    """
    return deepcopy(_lively_detector(seed, **changes))


@cache
@torch.no_grad()
def _lively_detector(seed: int, **changes) -> Detector:
    torch.manual_seed(seed)
    detector = build_detector(tiny_config(**changes)).double().eval()
    images = [torch.rand(3, 64, 96, dtype=torch.float64) for _ in range(2)]
    give_statistics(detector.trunk, lambda: detector.encode(images))
    encoding = detector.encode(images)
    if detector.config.attention:
        _standardize(detector.attention_loc[4], detector.attention_loc, encoding.f, 1.5)
        f_loc = detector.encode(images).f_loc
        _standardize(detector.attention_cls[4], detector.attention_cls, f_loc, 1.5)
    encoding, head = detector.encode(images), detector.rpn.head
    _standardize(head.cls_logits, lambda f: head([f])[0][0], encoding.f_loc, 1.0)
    _standardize(head.bbox_pred, lambda f: head([f])[1][0], encoding.f_loc, 0.3)
    proposals, heads = detector.propose(encoding), detector.roi_heads
    give_statistics(heads.conv5_cls, lambda: heads.classify(encoding.f_cls, proposals))
    if heads.conv5_loc is not None:
        give_statistics(heads.conv5_loc, lambda: heads.localize(encoding.f_loc, proposals))
    _standardize(heads.cls_score, lambda f: heads.classify(f, proposals)[0], encoding.f_cls, 1.5)
    _standardize(heads.bbox_pred, lambda f: heads.localize(f, proposals), encoding.f_loc, 0.7)
    return detector


def _standardize(layer, function, feature, spread: float) -> None:
    """Scale the output layer of `function`: each channel gets mean 0 and `spread`."""
    outputs = function(feature).transpose(0, 1).flatten(1)  # [channels, values]
    scale = spread / outputs.std(1)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.mul_(scale)
    layer.bias.sub_(function(feature).transpose(0, 1).flatten(1).mean(1))


def random_images(seed: int, sizes=((64, 96), (80, 64)), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator, dtype=dtype) for size in sizes]


def some_targets(masks: bool = True) -> list[dict]:
    """Targets of two images of at least 64 x 64 pixels; the second has no mask."""
    boxes = [[[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 62.0, 60.0]], [[10.0, 8.0, 50.0, 60.0]]]
    labels = [[1, 3], [2]]
    targets = [
        {"boxes": torch.tensor(b), "labels": torch.tensor(n)}
        for b, n in zip(boxes, labels, strict=True)
    ]
    if masks:
        object_map = torch.zeros(64, 96, dtype=torch.uint8)
        object_map[6:50, 4:40] = 1
        targets[0]["object_map"] = object_map
    return targets


def no_objects() -> dict:
    """The target of an image in which there is nothing to detect."""
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def assert_every_part_learns(detector: Detector, losses: dict[str, torch.Tensor]) -> None:
    detector.total_loss(losses).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, f"{name} gets no gradient"


def assert_same_detections(one: list[dict], two: list[dict], atol: float) -> None:
    for a, b in zip(one, two, strict=True):
        assert a["labels"].tolist() == b["labels"].tolist()
        torch.testing.assert_close(a["scores"], b["scores"], rtol=0, atol=atol)
        torch.testing.assert_close(a["boxes"], b["boxes"], rtol=0, atol=atol)
