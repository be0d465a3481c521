"""A deep ResNet's conv5 on RoIs: the shorter way gives what the plain one gives."""

import pytest
import torch
from tiny import tiny_config
from torch import nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d, RoIAlign

from als.checkpoint import build_detector
from als.model.frozen_norm import apply_in_convolutions, fold_batch_norm
from als.model.roi_features import begins_on_channels, conv5_of_rois, every_second_bin

# In an image of 96 x 144 pixels: all of it, its last corner, less than a cell, and any other.
ROIS = [
    torch.tensor([[0, 0, 144, 96], [130, 80, 144, 96]]).double(),
    torch.tensor([[20, 10, 21, 11], [3.3, 7.1, 60.2, 50.9], [0, 40, 144, 41]]).double(),
]


def small_conv5(join_norm) -> nn.Sequential:
    """Built as a ResNet's, with 8 channels in and frozen BN that changes something."""
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d
    shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), norm(16))
    first = Bottleneck(8, 4, stride=2, downsample=shortcut, norm_layer=norm)
    blocks = nn.Sequential(first, Bottleneck(16, 4, norm_layer=norm))
    for layer in blocks.modules():
        if isinstance(layer, norm):
            for values in layer.buffers():
                values.uniform_(0.5, 1.5)
    join_norm(blocks)
    return nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


@torch.no_grad()
@pytest.mark.parametrize("join_norm", [apply_in_convolutions, fold_batch_norm])
@pytest.mark.parametrize("bins", [4, 7, 14])
def test_the_first_convolution_may_come_before_the_pooling(bins, join_norm):
    conv5, feature = small_conv5(join_norm), torch.randn(2, 8, 6, 9).double()
    pool = RoIAlign(bins, 1 / 16, sampling_ratio=2, aligned=True)
    assert begins_on_channels(pool, conv5)
    pooled = pool(feature, ROIS)
    torch.testing.assert_close(every_second_bin(pool, feature, ROIS), pooled[:, :, ::2, ::2])
    vectors = conv5_of_rois(pool, conv5, feature, ROIS)
    torch.testing.assert_close(vectors, conv5(pooled))
    assert vectors.std(0).max() > 0.1, "all RoIs alike say nothing"
    assert conv5_of_rois(pool, conv5, feature, [r[:0] for r in ROIS]).shape == (0, 16)


@torch.no_grad()
def test_evaluation_goes_the_shorter_way_where_rois_have_more_bins_than_the_grid_has_cells():
    torch.manual_seed(0)
    heads = build_detector(tiny_config(backbone="resnet50", attention=False)).roi_heads
    whole, feature, rois = [], torch.rand(2, 1024, 6, 9), [r.float() for r in ROIS]
    many = [r.repeat(10, 1) for r in rois]
    assert 5 * heads.pool.output_size**2 < 2 * 6 * 9 < 50 * heads.pool.output_size**2
    heads.conv5_cls.register_forward_hook(lambda *_: whole.append(True))
    long, _ = heads.train().classify(feature, many)
    assert whole == [True]
    short, _ = heads.eval().classify(feature, many)
    assert whole == [True]
    heads.classify(feature, rois)
    assert whole == [True, True]
    torch.testing.assert_close(short, long, rtol=1e-3, atol=1e-3 * float(long.abs().max()))
    max_pooled = build_detector(tiny_config(pool="max")).roi_heads  # a MobileNet's besides
    assert not begins_on_channels(max_pooled.pool, heads.conv5_cls)
    assert not begins_on_channels(heads.pool, max_pooled.conv5_cls)
