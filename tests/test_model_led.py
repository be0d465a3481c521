"""After LED: quality targets by hand, scores that are products, gradients of the third branch."""

import pytest
import torch
import torch.nn.functional as F
from tiny import CLASSES, random_images, some_targets
from torchvision.ops import box_iou

from als.baselines.led import confident_and_placed
from als.checkpoint import build_detector
from als.config import ModelConfig
from als.model.detector import Detector

LITE = {"backbone": "mobilenet_v2", "min_size": 96, "max_size": 96, "frozen_blocks": 0}


def build(family: str, **changes) -> Detector:
    torch.manual_seed(0)
    options = {"classes": CLASSES, "family": family, "weights": None}
    options |= {"attention": False, "separation": False}
    return build_detector(ModelConfig(**(options | LITE | changes)))


def test_scores_are_products():
    logits = torch.tensor([[[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]])
    quality = torch.tensor([[0.0, -2.0]])
    scores = confident_and_placed(logits, quality).softmax(-1)
    expected = logits.softmax(-1)[..., 1:] * torch.tensor([[[0.5], [0.1192029]]])
    torch.testing.assert_close(scores[..., 1:], expected)
    sure = confident_and_placed(logits, torch.full((1, 2), 40.0))
    torch.testing.assert_close(sure.softmax(-1), logits.softmax(-1))
    assert torch.isfinite(confident_and_placed(logits * 200, torch.full((1, 2), 200.0))).all()


def test_the_quality_of_a_box_is_its_overlap_after_regression():
    detector = build("led").train()
    encoding = detector.encode(random_images(0, dtype=torch.float32))
    boxes = encoding.default_boxes[0]
    targets = [{"boxes": boxes[[7]] + torch.tensor([0.0, 0.0, 9.0, 0.0])}] * 2
    targets = [target | {"labels": torch.tensor([1])} for target in targets]
    matches = [torch.full((len(boxes),), -1) for _ in range(2)]
    matches[0][[7, 20]] = 0  # of image 1 nothing matches
    deltas = torch.zeros_like(encoding.outputs["bbox_regression"])
    deltas[0, 20, 0] = 3.0  # a shift by 3 / 10 of its own width (SSD's coding)
    encoding.outputs["bbox_regression"] = deltas
    quality = torch.linspace(-2, 2, len(boxes)).expand(2, -1)
    encoding.outputs["quality"] = quality
    moved = boxes[[20]] + (boxes[20, 2] - boxes[20, 0]) * torch.tensor([0.3, 0.0, 0.3, 0.0])
    overlaps = torch.cat(
        [box_iou(boxes[[7]], targets[0]["boxes"]), box_iou(moved, targets[0]["boxes"])]
    )
    expected = F.binary_cross_entropy_with_logits(quality[0, [7, 20]], overlaps[:, 0])
    losses = detector.losses_of_matched(encoding, targets, matches)
    torch.testing.assert_close(losses["loss_quality"], expected)
    assert 0 < overlaps[0] < 1


def test_quality_teaches_its_branch_and_the_maps_but_no_box():
    detector = build("led").train()
    losses = detector(random_images(0, dtype=torch.float32), some_targets(masks=False))
    assert losses.keys() == {"loss_cls", "loss_loc", "loss_quality"}
    losses["loss_quality"].backward()
    head = detector.ssd.head
    assert all(p.grad is None for p in head.regression_head.parameters())
    assert all(p.grad is None for p in head.classification_head.parameters())
    assert any(p.grad.abs().sum() > 0 for p in head.quality_head.parameters())
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in detector.ssd.backbone.parameters()
    )
    terms = {"loss_cls": torch.tensor(2.0), "loss_loc": torch.tensor(3.0)}
    assert detector.total_loss(terms | {"loss_quality": torch.tensor(4.0)}) == 9.0


def test_where_quality_is_sure_it_is_ssd():
    led, ssd = build("led").eval(), build("ssd").eval()
    tensors = {k: v for k, v in led.state_dict().items() if "quality_head" not in k}
    ssd.load_state_dict(tensors)
    with torch.no_grad():
        for layer in led.ssd.head.quality_head.module_list:
            layer[1].weight.zero_()
            layer[1].bias.fill_(40.0)
        images = random_images(0, dtype=torch.float32)
        pairs = zip(
            led.detect(led.encode(images), 0.0), ssd.detect(ssd.encode(images), 0.0), strict=True
        )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "count"), [(300, 8732), (512, 24564)])
def test_every_default_box_has_a_quality(side, count):
    with torch.device("meta"):  # shapes only
        detector = build("led", backbone="vgg16", min_size=side, max_size=side)
        features = list(detector.ssd.backbone(torch.rand(1, 3, side, side)).values())
        assert detector.ssd.head(features)["quality"].shape == (1, count)
