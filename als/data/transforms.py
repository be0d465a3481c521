"""What happens to an image and its target before the detector sees them (torchvision v2).

Every transform maps (image, target) to (image, target), the target being the dict that
`als.data.dataset` describes. Boxes and object map follow the image; the object map is resized with
nearest neighbours, so that its values stay 0, 1 and 255.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

MEAN_COLOUR = (124, 116, 104)  # of ImageNet, RGB
FILL = {tv_tensors.Image: MEAN_COLOUR, "others": 0}  # what zooming out puts around an image


class TidyBoxes(nn.Module):
    """Clips boxes to the image and removes those thinner than a pixel, with their labels.

    Clipping comes first: a resized box that filled its image may end a rounding error outside, and
    would be removed for that. `v2.SanitizeBoundingBoxes` is not used because it takes every mask
    for a stack with one entry per box and could index the rows of the object map.
    """

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        clipped = functional.clamp_bounding_boxes(target["boxes"])
        boxes, valid = functional.sanitize_bounding_boxes(clipped)
        boxes = tv_tensors.wrap(boxes, like=clipped)
        return image, target | {"boxes": boxes, "labels": target["labels"][valid]}


def training_transforms(
    min_sizes: Sequence[int], max_size: int, jitter: bool, crop: bool = False
) -> nn.Module:
    """Random horizontal flip, random size, optional crop and distortion, float32 in 0..1.

    min_sizes: shorter sides in pixels, one of which is drawn for each image.
    max_size: longest side in pixels; it wins over the shorter side.
    jitter: distort brightness, contrast, saturation and hue (as SSD does, Liu et al. 2016).
    crop: before the size is drawn, zoom out to at most twice the side (3 of 10 images), then crop
        to at least half of each side around an object (half of the images). SSD's own are wilder
        (`ssd_transforms`): a detector that resizes to a drawn size needs less of them.
    """
    steps: list[nn.Module] = [v2.RandomHorizontalFlip()]
    if crop:
        steps += [
            v2.RandomZoomOut(fill=FILL, side_range=(1.0, 2.0), p=0.3),
            v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5)], p=0.5),
        ]
    steps.append(v2.RandomShortestSize(list(min_sizes), max_size=max_size))
    if jitter:
        steps.append(v2.RandomPhotometricDistort())
    return v2.Compose([*steps, *_conversion()])


def ssd_transforms(side: int) -> nn.Module:
    """SSD's augmentation (Liu et al. 2016, sections 2.2 and 3.6), float32 [3, side, side].

    Photometric distortion, zooming out (up to 16 times the area, filled with ImageNet's mean), a
    crop that overlaps an object by a drawn least IoU, horizontal flip, each drawn anew.
    """
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=FILL),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize((side, side)),
            *_conversion(),
        ]
    )


def evaluation_transforms() -> nn.Module:
    """float32 in 0..1 and nothing else: the detector resizes, and answers in stored pixels."""
    return v2.Compose(_conversion())


def _conversion() -> list[nn.Module]:
    return [TidyBoxes(), v2.ToDtype(torch.float32, scale=True)]
