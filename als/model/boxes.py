"""Boxes in a straight line, without a branch on how many there are: so they can be exported too."""

import torch
from torch import Tensor
from torchvision.ops import nms

LOWEST_SCORE = -1e9  # under every logit


def sides(boxes: Tensor) -> Tensor:
    """Widths and heights [N, 2] of boxes [N, 4] xyxy."""
    return boxes[:, 2:] - boxes[:, :2]


def kept_by_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Rows that NMS keeps of boxes [N, 4] without a negative coordinate, highest score first.

    torchvision tells torch.export that NMS keeps at least two boxes, and the exported graph would
    stop at fewer. So two boxes outside the image, with the lowest scores, go in and come out.
    """
    outside = boxes.new_tensor([[-2, -2, -1, -1], [-4, -4, -3, -3]])
    lowest = scores.new_full((2,), LOWEST_SCORE)
    keep = nms(torch.cat([boxes, outside]), torch.cat([scores, lowest]), threshold)
    return keep[(keep < boxes.shape[0]).nonzero()[:, 0]]


def rescaled(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] of an image of (height, width) `old` in the pixels of the same one at `new`."""
    return boxes * boxes.new_tensor([new[1] / old[1], new[0] / old[0]] * 2)
