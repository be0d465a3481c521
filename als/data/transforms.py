"""What happens to an image and its target before the detector sees them (torchvision v2).

Every transform maps (image, target) to (image, target), the target being the dict that
`als.data.dataset` describes. Boxes and object map follow the image; the object map is resized with
nearest neighbours, so that its values stay 0, 1 and 255. The image is shrunk as in inference: a
large one averaged first, then bilinearly without antialias.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from als.images import Photo, photo_of

MEAN_COLOUR = (0.485, 0.456, 0.406)  # of ImageNet, RGB
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

    min_sizes: shorter sides in pixels, one of which is drawn, the same for a batch.
    max_size: longest side in pixels; it wins over the shorter side.
    jitter: distort brightness, contrast, saturation and hue (as SSD does, Liu et al. 2016).
    crop: before the size is drawn, zoom out to at most twice the side (3 of 10 images), then crop
        to at least half of each side around an object (half of the images). SSD's own are wilder
        (`ssd_transforms`): a detector that resizes to a drawn size needs less of them.
    """
    steps: list[nn.Module] = [TakePhoto(max_size), v2.RandomHorizontalFlip()]
    if crop:
        steps += [
            v2.RandomZoomOut(fill=FILL, side_range=(1.0, 2.0), p=0.3),
            v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5)], p=0.5),
        ]
    steps.append(ShareShortestSize(list(min_sizes), max_size, antialias=False))
    if jitter:
        steps.append(v2.RandomPhotometricDistort())
    return v2.Compose([*steps, TidyBoxes()])


def ssd_transforms(side: int) -> nn.Module:
    """SSD's augmentation (Liu et al. 2016, sections 2.2 and 3.6), float32 [3, side, side].

    Photometric distortion, zooming out (up to 16 times the area, filled with ImageNet's mean), a
    crop that overlaps an object by a drawn least IoU, horizontal flip, each drawn anew.
    """
    return v2.Compose(
        [
            TakePhoto(side),
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=FILL),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize((side, side), antialias=False),
            TidyBoxes(),
        ]
    )


class TakePhoto(nn.Module):
    """Makes the image what `photo_of` makes of it for inference; boxes and object map follow."""

    def __init__(self, max_size: int):
        super().__init__()
        self.max_size = max_size

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        pixels, size = photo_of(image, self.max_size)
        if pixels.shape[-2:] != size:
            target = target | {
                key: functional.resize(value, list(pixels.shape[-2:]))
                for key, value in target.items()
                if isinstance(value, tv_tensors.TVTensor)
            }
        return tv_tensors.Image(pixels), target


class ShareShortestSize(v2.RandomShortestSize):
    """`RandomShortestSize` that draws from the target's "batch_seed", where there is one.

    The images of a batch then get one size and need no padding to the largest of several, while
    everything else is drawn for each of them.
    """

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        if "batch_seed" not in target:
            return super().forward(image, target)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(target["batch_seed"])
            return super().forward(image, target)


def as_photo(max_size: int, image: Tensor, target: dict[str, Any]) -> tuple[Photo, dict[str, Any]]:
    """For evaluation: the image as a `Photo`, which the detector resizes itself."""
    return photo_of(image.as_subclass(Tensor), max_size), target
