"""Targets and loss of the localization attention, by hand; how the maps start."""

import math

import numpy as np
import pytest
import torch
from tiny import tiny_config
from torch.nn.functional import binary_cross_entropy

from als.checkpoint import build_detector
from als.model.attention import (
    AttentionNetwork,
    attention_loss,
    compete,
    object_map_targets,
    part_loss,
    part_targets,
    relative_entropy,
)

NAN = float("nan")

# 4 x 5 pixels in a padded batch of 4 x 6: six cells of 2 x 2.
OBJECT_MAP = torch.tensor(
    [
        [1, 1, 0, 0, 1],
        [1, 0, 0, 255, 0],
        [255, 255, 1, 0, 255],
        [255, 0, 0, 1, 1],
    ],
    dtype=torch.uint8,
)
# 3 of 4 object; 0 of 3; 1 of 2 beside padding; 3 of 4 void; 2 of 4 object; 3 of 4 void or padding.
EXPECTED = torch.tensor([[1.0, 0.0, 1.0], [NAN, 1.0, NAN]])


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one, two, equal_nan=True)


def test_targets_by_hand():
    targets = object_map_targets([OBJECT_MAP], [(4, 5)], (4, 6), (2, 3))
    assert targets.shape == (1, 1, 2, 3)
    assert same(targets[0, 0], EXPECTED)


def test_a_cell_is_known_when_half_of_it_is():
    row = torch.tensor([[1, 1, 255, 255, 255, 1, 1, 1, 255, 255]], dtype=torch.uint8)
    targets = object_map_targets([row], [(1, 10)], (1, 10), (1, 2))
    assert same(targets[0, 0], torch.tensor([[NAN, 1.0]]))


def test_targets_do_not_depend_on_the_stored_size():
    stored = torch.from_numpy(np.kron(OBJECT_MAP.numpy(), np.ones((3, 3), np.uint8)))
    targets = object_map_targets([stored], [(4, 5)], (4, 6), (2, 3))
    assert same(targets[0, 0], EXPECTED)


def test_a_batch_keeps_its_images_apart():
    full = torch.ones(2, 2, dtype=torch.uint8)
    targets = object_map_targets(
        [OBJECT_MAP, None, full, torch.full((4, 6), 255, dtype=torch.uint8)],
        [(4, 5), (4, 6), (2, 2), (4, 6)],
        (4, 6),
        (2, 3),
    )
    assert same(targets[0, 0], EXPECTED)
    assert targets[1].isnan().all(), "an image without a mask has no target, not an empty one"
    assert same(targets[2, 0], torch.tensor([[1.0, NAN, NAN], [NAN, NAN, NAN]]))
    assert targets[3].isnan().all(), "void is not background"


def test_weights_that_compete_have_a_mean_of_one():
    rivals = torch.tensor([[0.2, 0.6], [0.1, 0.1]])[None, None]
    feature = torch.tensor([[1.0, 2.0], [3.0, -4.0]])[None, None]
    found = compete(feature * rivals, rivals)
    expected = feature * torch.tensor([[0.8, 2.4], [0.4, 0.4]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(compete(feature * rivals / 50, rivals / 50), expected)
    nothing = torch.zeros_like(rivals)
    assert (compete(feature * nothing, nothing) == 0).all(), "and no NaN"


def test_relative_entropy_by_hand():
    """All equal; one alone; two of four; 1/2, 1/4, 1/8, 1/8, which has 1.75 of 2 bits."""
    rivals = [[0.3, 0.3, 0.3, 0.3], [0, 0.7, 0, 0], [0.4, 0, 0, 0.4], [0.8, 0.4, 0.2, 0.2]]
    found = relative_entropy(torch.tensor(rivals).reshape(4, 1, 2, 2))
    torch.testing.assert_close(found, torch.tensor([1, 0, 0.5, 0.875]))
    assert relative_entropy(torch.zeros(1, 1, 2, 2)).item() == 0, "and no NaN"


def test_part_targets_by_hand():
    """Two channels, two bins, logits linear in the bins: evidence is feature times weight.

    Own minus the mean of the other two classes: the weights are [3, -1] - [1, 2] and, for the
    second RoI's class, [2, 4] - [1.5, -0.5]; background's count nowhere.
    """
    weights = torch.tensor([[9.0, 9.0], [3.0, -1.0], [2.0, 4.0], [0.0, 0.0]])
    pooled = torch.tensor([[[2.0, 1.0], [1.0, -1.0]], [[4.0, 0.0], [1.0, -2.0]]])[:, :, None]
    targets = part_targets(lambda x: x.sum((2, 3)) @ weights.T, pooled, torch.tensor([1, 2]))
    # 2 * 2 - 3 * 1 = 1 and 2 * 1 - 3 * -1 = 5; 0.5 * 4 + 4.5 * 1 = 6.5, and below 0.
    torch.testing.assert_close(targets, torch.tensor([[[1 / 6, 5 / 6]], [[1.0, 0.0]]]))
    assert not targets.requires_grad
    with torch.inference_mode():
        again = part_targets(lambda x: x.sum((2, 3)) @ weights.T, pooled, torch.tensor([1, 2]))
    assert torch.equal(again, targets)
    against = part_targets(lambda x: x.sum((2, 3)) @ weights.T, -pooled.abs(), torch.tensor([1, 2]))
    assert (against[1] == 0).all(), "no bin speaks for the class, and no NaN"


def test_part_loss_by_hand_is_of_shares_alone():
    targets = torch.tensor([[[0.25, 0.75]], [[0.0, 0.0]]])
    a_cls = torch.tensor([[[[0.2, 0.6]]], [[[0.5, 0.1]]]])
    expected = torch.tensor(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2)
    torch.testing.assert_close(part_loss(a_cls, targets), expected)
    torch.testing.assert_close(part_loss(a_cls / 2, targets), expected)
    nothing = torch.zeros(0, 1, 1, 2, requires_grad=True)
    part_loss(nothing, torch.zeros(0, 1, 2)).backward()
    assert nothing.grad is not None


def test_competition_starts_as_no_attention():
    detector = build_detector(tiny_config(attention_form="competition"))
    with torch.no_grad():
        logits = detector.attention_cls(torch.rand(1, 96, 3, 4))
    torch.testing.assert_close(logits, torch.zeros(1, 1, 3, 4), atol=0.2, rtol=0)


def test_background_is_a_target_too():
    targets = object_map_targets([torch.zeros(4, 6, dtype=torch.uint8)], [(4, 6)], (4, 6), (2, 3))
    assert torch.equal(targets, torch.zeros(1, 1, 2, 3))


def test_loss_by_hand():
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 3.0]]]], requires_grad=True)
    targets = torch.tensor([[[[1.0, NAN], [0.0, 1.0]]]])
    loss = attention_loss(logits, targets)
    expected = (math.log(2) + math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    sigmoid = torch.tensor([0.0, -1.0, 3.0]).sigmoid()
    expected = torch.tensor([[sigmoid[0] - 1, 0.0], [sigmoid[1], sigmoid[2] - 1]]) / 3
    torch.testing.assert_close(logits.grad[0, 0], expected)


def test_loss_is_the_mean_over_all_known_cells_of_the_batch():
    logits = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 1, 3, 4)
    targets[0, 0, 1] = 1
    targets[1, 0, :2] = NAN  # 12 known cells in one image, 4 in the other
    known = ~targets.isnan()
    expected = binary_cross_entropy(logits[known].sigmoid(), targets[known], reduction="sum") / 16
    assert attention_loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_a_known_cell_the_loss_teaches_nothing():
    network = AttentionNetwork(4, 8, start=3.0)
    logits = network(torch.randn(2, 4, 3, 3))
    loss = attention_loss(logits, torch.full((2, 1, 3, 3), NAN))
    loss.backward()
    assert loss.item() == 0.0
    assert all((p.grad == 0).all() for p in network.parameters())


def test_structure_is_the_papers():
    network = AttentionNetwork(96, 2048, start=3.0)
    shapes = [tuple(p.shape) for p in network.parameters() if p.dim() == 4]
    assert shapes == [(2048, 96, 1, 1), (2048, 2048, 1, 1), (1, 2048, 1, 1)]


@pytest.mark.parametrize("bias", [3.0, 0.0, 6.0])
def test_maps_start_near_a_constant(bias):
    torch.manual_seed(0)
    network = AttentionNetwork(96, 64, bias)
    maps = network(torch.randn(2, 96, 8, 8).relu()).sigmoid()
    assert maps.shape == (2, 1, 8, 8)
    start = 1 / (1 + math.exp(-bias))
    assert (maps - start).abs().max() < 0.02


def test_every_layer_learns_from_the_first_step():
    torch.manual_seed(0)
    network = AttentionNetwork(6, 8, start=3.0)
    loss = attention_loss(network(torch.randn(1, 6, 4, 4)), torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


def test_without_biases_the_map_is_a_half_where_the_feature_is_zero():
    """Whatever was learnt: this is what ties A_cls to the background that A_loc suppresses."""
    network = AttentionNetwork(6, 8, start=2.0, biased=False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    feature = torch.randn(1, 6, 2, 2)
    feature[..., 0, 0] = 0
    assert network(feature).sigmoid()[0, 0, 0, 0] == 0.5
    assert torch.allclose(network(3 * feature), 3 * network(feature), atol=1e-4)


def test_without_biases_the_logit_starts_near_its_start_on_a_feature_of_unit_scale():
    torch.manual_seed(0)
    network = AttentionNetwork(64, 256, start=2.0, biased=False)
    logits = network(torch.randn(4, 64, 8, 8)).detach()
    assert logits.mean() == pytest.approx(2.0, rel=0.15)
    assert (logits > 0).all()


def test_the_residual_form_starts_neutral_too():
    detector = build_detector(tiny_config(attention_form="residual", attention_bias=4.0)).eval()
    with torch.no_grad():
        encoding = detector.encode([torch.rand(3, 64, 64)])
    change = (encoding.f_loc - encoding.f).abs().max() / encoding.f.abs().max()
    assert 0 < change < 0.03
