"""conv5 on RoIs, with what the RoIs of an image share computed once.

The conv5 of ResNet-50 and deeper begins with a 1x1 convolution, and batch normalisation is frozen.
Both act on channels alone, RoIAlign on places alone, and its shares of a bin add up to one. So
their order does not matter, and the cells of the grid are far fewer than the bins of many RoIs
(1,900 and 58,800 for 300 RoIs of an image of 600 x 800 pixels; one RoI has 196).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import RoIAlign, roi_align

from als.model.boxes import sides
from als.model.frozen_norm import scaled


def begins_on_channels(pool: nn.Module, conv5: nn.Sequential) -> bool:
    """Whether `conv5_of_rois` holds: RoIs are pooled by RoIAlign for the conv5 of a deep ResNet."""
    first = next(conv5[0].children(), None)
    return isinstance(pool, RoIAlign) and isinstance(first, Bottleneck)


def outnumber_cells(pool: RoIAlign, feature: Tensor, rois: list[Tensor]) -> bool:
    """Whether the RoIs have more bins than the feature has cells: then `conv5_of_rois` is shorter.

    An exported detector has no number of RoIs yet; it goes that way always.
    """
    if torch.compiler.is_compiling():
        return True
    batch, _, height, width = feature.shape
    return sum(map(len, rois)) * pool.output_size**2 > batch * height * width


def conv5_of_rois(
    pool: RoIAlign, conv5: nn.Sequential, feature: Tensor, rois: list[Tensor]
) -> Tensor:
    """`conv5(pool(feature, rois))`, up to rounding, for RoIs inside their image: vectors [R, D].

    The first convolution comes before the pooling, and the shortcut beside it, whose stride is 2,
    pools only the bins that it reads.

    Args:
        pool, conv5: for which `begins_on_channels` holds; RoIAlign aligned, 2 x 2 samples a bin.
        feature: [B, C, h, w]. rois: of each image [N, 4] xyxy, pixels.
    """
    first = conv5[0][0]
    strided, *norm = first.downsample
    inner = first.relu(pool(first.bn1(first.conv1(feature)), rois))
    inner = first.relu(first.bn2(first.conv2(inner)))
    inner = first.bn3(first.conv3(inner))
    shortcut = every_second_bin(pool, feature, rois)
    shortcut = F.conv2d(shortcut, *scaled(strided))
    for layer in norm:
        shortcut = layer(shortcut)
    vectors = first.relu(inner + shortcut)
    for layer in (*conv5[0][1:], *conv5[1:]):
        vectors = layer(vectors)
    return vectors


def every_second_bin(pool: RoIAlign, feature: Tensor, rois: list[Tensor]) -> Tensor:
    """`pool(feature, rois)[:, :, ::2, ::2]` without computing the other bins.

    A bin is the mean of 2 x 2 samples, at a quarter and three quarters of its sides. Bins twice as
    wide and high with one sample in the middle, of a RoI that is moved until the middle of the
    first lies on one of these, give that sample of every second bin.
    """
    bins = pool.output_size
    count = (bins + 1) // 2
    feature = feature.contiguous()  # as roi_align reads it: copied once, not in every call
    samples = []
    for share in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        moved = []
        for boxes in rois:
            bin_sides = sides(boxes) / bins
            corner = boxes[:, :2] + (boxes.new_tensor(share) - 1) * bin_sides
            moved.append(torch.cat([corner, corner + 2 * count * bin_sides], dim=1))
        samples.append(roi_align(feature, moved, count, pool.spatial_scale, 1, aligned=True))
    return (samples[0] + samples[1] + samples[2] + samples[3]) / 4
