"""R-FCN: position-sensitive pooling by hand, dilation as the same function, hard examples."""

from copy import deepcopy

import pytest
import torch
from test_model_backbone import randomize_batch_norm
from tiny import assert_every_part_learns, random_images, some_targets, tiny_config
from torch import nn
from torch.nn import functional

from als.baselines.rfcn import PositionSensitiveRoIHeads, at_full_stride
from als.checkpoint import build_detector
from als.config import ModelConfig
from als.model.backbone import STRIDE, build_backbone
from als.model.roi_heads import Features

RFCN = {"family": "rfcn", "attention": False, "separation": False, "attention_width": 2048}


def rfcn_config(**changes) -> ModelConfig:
    return tiny_config(**(RFCN | changes))


def heads_of(**changes) -> PositionSensitiveRoIHeads:
    config = rfcn_config(**changes)
    return PositionSensitiveRoIHeads(config, build_backbone(config))


@pytest.mark.parametrize("pool", ["align", "max"])
def test_each_cell_votes_with_its_own_map(pool):
    """One class and background, 2 x 2 cells of 4 x 4: a map counts in its own quadrant only."""
    heads = heads_of(classes=("cat",), pool=pool, pool_size=2)
    heads.conv5, heads.score_maps, heads.box_maps = nn.Identity(), nn.Identity(), nn.Identity()
    maps = torch.zeros(1, 8, 8, 8)  # background's four maps, then the cat's
    quadrants = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8))]
    quadrants += [(slice(4, 8), slice(0, 4)), (slice(4, 8), slice(4, 8))]
    for cell, (rows, columns) in enumerate(quadrants):
        maps[0, 4 + cell, rows, columns] = cell + 1.0
        maps[0, cell, rows, columns] = -1.0
    whole = torch.tensor([[0.0, 0.0, 8 * STRIDE, 8 * STRIDE]])
    logits, _ = heads.classify(maps, [whole])
    torch.testing.assert_close(logits, torch.tensor([[-1.0, (1 + 2 + 3 + 4) / 4]]))
    # Mirrored, every map lies where another cell reads: nobody votes.
    logits, _ = heads.classify(maps.flip(-1), [whole])
    torch.testing.assert_close(logits, torch.zeros(1, 2))


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_a_new_head_passes_features_on_as_large_as_they_come(backbone):
    """He et al. 2015: the second moment is kept, however few the channels are."""
    torch.manual_seed(0)
    heads = heads_of(backbone=backbone)
    _, reduce, relu = heads.conv5
    feature = 0.2 * torch.randn(1, reduce.in_channels, 16, 16)
    with torch.no_grad():
        passed = relu(reduce(feature))
    assert passed.square().mean().item() == pytest.approx(0.2**2, rel=0.2)
    assert heads.score_maps(passed).std() > 0.3 * 0.2


def test_the_box_is_the_same_for_every_class():
    heads = heads_of().eval()
    roi = torch.tensor([[10.0, 10.0, 40.0, 50.0]])
    logits, deltas = torch.tensor([[0.0, 3.0, 3.5, -9.0]]), torch.tensor([[1.0, -0.5, 0.2, 0.4]])
    (found,) = heads.detections(logits, deltas, None, None, [roi], [(64, 96)], threshold=0.05)
    assert found.labels.tolist() == [2, 1] and found.rois.tolist() == [0, 0]
    assert torch.equal(found.boxes[0], found.boxes[1])
    expected = heads.box_coder.decode_single(deltas, roi)
    torch.testing.assert_close(found.boxes[:1], expected)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_dilated_conv5_is_conv5_at_every_cell(backbone):
    torch.manual_seed(0)
    conv5 = build_backbone(rfcn_config(backbone=backbone)).semantic[0]
    randomize_batch_norm(conv5)
    dense = at_full_stride(deepcopy(conv5))
    channels = 96 if backbone == "mobilenet_v2" else 256
    feature = torch.randn(1, channels, 6, 8)
    with torch.no_grad():
        coarse, fine = conv5(feature), dense(feature)
    assert fine.shape[-2:] == (6, 8) and coarse.shape[-2:] == (3, 4)
    assert coarse.std() > 1e-3
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-4, atol=1e-5)


def test_resnet101_has_the_papers_widths():
    config = ModelConfig(classes="voc", **(RFCN | {"pool_size": 7}))
    with torch.device("meta"):
        heads = build_detector(config, pretrained=False).roi_heads
        feature = heads.conv5(torch.rand(1, 1024, 38, 50))
    assert feature.shape == (1, 1024, 38, 50)  # conv5 at stride 16, then 1,024 channels
    assert heads.score_maps.out_channels == 49 * 21 and heads.box_maps.out_channels == 49 * 4


def test_hardest_are_chosen_image_by_image():
    heads = heads_of(hard_rois_per_image=2)
    losses = torch.tensor([0.1, 5.0, 3.0, 2.0, 0.2])
    assert sorted(heads.hardest(losses, [3, 2]).tolist()) == [1, 2, 3, 4]
    heads.hard_rois_per_image = 1
    assert heads.hardest(losses, [3, 2]).tolist() == [1, 3]
    heads.hard_rois_per_image = 0
    assert heads.hardest(losses, [3, 2]).tolist() == [0, 1, 2, 3, 4]


def test_hard_examples_by_hand():
    """Four RoIs: a proposal on the first object, one on nothing, and the two objects themselves."""
    heads = heads_of(pool_size=2, roi_positive_fraction=1.0).train()
    heads.conv5, heads.score_maps, heads.box_maps = nn.Identity(), nn.Identity(), nn.Identity()
    torch.manual_seed(0)
    maps, targets = 3 * torch.randn(1, 16, 4, 6), some_targets(False)[:1]
    objects = targets[0]["boxes"]
    proposals = torch.cat([objects[:1], torch.tensor([[50.0, 0.0, 90.0, 20.0]])])
    logits, deltas = heads.classify(maps, [torch.cat([proposals, objects])])
    labels = torch.tensor([1, 0, 1, 3])
    loss_cls = functional.cross_entropy(logits, labels, reduction="none")
    # A RoI that is its object has nothing to regress: the targets are 0.
    loss_loc = functional.smooth_l1_loss(deltas, torch.zeros(4, 4), beta=1 / 9, reduction="none")
    loss_loc = loss_loc.sum(1) * (labels > 0)
    order = (loss_cls + loss_loc).argsort(descending=True)
    for hard in (0, 1, 2):
        heads.hard_rois_per_image = hard
        chosen = order[: hard or 4]
        losses = heads.losses(Features(maps, maps), [proposals], targets)
        torch.testing.assert_close(losses["loss_cls"], loss_cls[chosen].mean())
        torch.testing.assert_close(losses["loss_loc"], loss_loc[chosen].mean())


def test_every_layer_of_it_learns():
    torch.manual_seed(0)
    detector = build_detector(rfcn_config(hard_rois_per_image=8)).train()
    losses = detector(random_images(0, dtype=torch.float32), some_targets())
    assert losses.keys() == {"loss_rpn", "loss_cls", "loss_loc"}
    assert_every_part_learns(detector, losses)
