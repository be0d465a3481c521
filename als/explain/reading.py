"""Which cells of the feature a RoI reads, and how much each of them counts there."""

import torch
from torch import Tensor

from als.model import Detector, Encoding


def cell_shares(detector: Detector, encoding: Encoding, rois: Tensor) -> Tensor:
    """Of what each RoI pools from F_cls, the share that lies in each cell: [K, h, w].

    The gradient of the mean over the RoI's bins and channels: with RoIAlign the weights of its
    samples, with RoIPool how often a cell is a bin's maximum. The cells of a RoI that lies inside
    the image sum to 1. What attention does to a cell is not in it.

    Args:
        encoding: of one image. rois: [K, 4] xyxy, pixels of the network's image.
    """
    shares = [encoding.f_cls.new_zeros((0, *encoding.f_cls.shape[-2:]))]
    with torch.inference_mode(False), torch.enable_grad():
        feature = encoding.f_cls.detach().clone(memory_format=torch.contiguous_format)
        feature.requires_grad_()
        for roi in rois.clone()[:, None]:  # one by one: together they would take K features
            mean = detector.roi_heads.pool(feature, [roi]).mean((0, 2, 3)).sum()
            shares.append(torch.autograd.grad(mean, feature)[0].mean(1))
    return torch.cat(shares)
