"""Reading a photo, whatever it is, into upright 8-bit RGB; every refusal is one sentence."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional

from als.errors import InputError

MAX_PIXELS = 40_000_000
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SIXTEEN_TO_EIGHT_BIT = 257  # 65535 / 255
CELL = 16  # pixels of the network's image a cell of its grid


def as_rgb(
    image: str | Path | Image.Image | np.ndarray, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """A photo -> PIL image of mode RGB, upright, of the size it is meant to be seen at.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled from
    0..65535 to 0..255, CMYK is converted, and an animation gives its first frame.

    Args:
        image: path, PIL image, or uint8 array [H, W], [H, W, 3] or [H, W, 4].
        max_pixels: larger images are refused from their header, before they are decoded.

    Raises:
        InputError: missing, empty, truncated, too large, or not an image that Pillow reads.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, Image.Image):
        return _decode(image, "image", max_pixels)
    path = Path(image)
    if not path.is_file():
        raise InputError(f"{path.name}: no such file; give a photo.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: the file is empty (0 bytes); copy or upload it again.")
    with _open(path, max_pixels) as opened:
        return _decode(opened, path.name, max_pixels)


def _open(path: Path, max_pixels: int) -> Image.Image:
    """Read the header; no pixel is decoded yet."""
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name}: {_why_unknown(path)}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, also from the header
        raise InputError(_too_large(path.name, "the", max_pixels)) from error
    except Exception as error:
        raise InputError(_damaged(path.name, error)) from error


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """A copy whose longest side is `longest`, its pixels averaged; a smaller image as it is.

    The networks' own resizing reads four pixels for each new one, so that a large photo would
    reach them full of noise.
    """
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.BOX)


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or array.size == 0:
        raise InputError(
            f"image: an array of {array.dtype} {array.shape}; give uint8 [H, W], [H, W, 3] "
            "(RGB) or [H, W, 4] (RGBA) that is not empty."
        )
    return _decode(Image.fromarray(array), "image", max_pixels)


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """An opened, perhaps not yet decoded image -> upright RGB."""
    if image.width * image.height > max_pixels:
        raise InputError(_too_large(name, f"{image.width} x {image.height}", max_pixels))
    try:
        image.seek(0)
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, ...
        raise InputError(_damaged(name, error)) from error
    return _to_rgb(_upright(image), name)


def _upright(image: Image.Image) -> Image.Image:
    """A copy, so that the caller's image is never shared and the file can be closed."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing of the pixels, which are sound
        return image.copy()


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{name}: floating-point pixels have no fixed range; save it as 8 bit.")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        grey = np.asarray(image).astype(np.float64) / SIXTEEN_TO_EIGHT_BIT
        return Image.fromarray(np.clip(grey.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return (
        f"{name}: {size} pixels are over the limit of {max_pixels / 1e6:g} megapixels; "
        "reduce the photo first."
    )


def _damaged(name: str, error: Exception) -> str:
    return f"{name}: the file is damaged or cut short ({error}); copy or upload it again."


def _why_unknown(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return "HEIC photos are not supported; save it as JPEG or PNG."
    return "not an image that can be read; give a JPEG, PNG, WebP, GIF, BMP or TIFF file."


class Photo(NamedTuple):
    """A photo as the network takes it.

    pixels: float32 [3, h, w] in 0..1, upright RGB, averaged down where it was large.
    size: (H, W) of the photo itself, in whose pixels boxes and maps are given.
    """

    pixels: Tensor
    size: tuple[int, int]


def photo_of(image: Image.Image | Tensor, max_size: int) -> Photo:
    """Upright RGB, PIL or [3, H, W] (uint8, or float in 0..1) -> what every network here takes.

    max_size: the network's longest side in pixels. A photo of more than twice that is averaged
    down first, since the network's own resizing reads four pixels for each new one.
    """
    longest = 2 * max_size
    if isinstance(image, Tensor):
        size = (image.shape[-2], image.shape[-1])
        if max(size) > longest:
            small = reduced(functional.to_pil_image(image.cpu()), longest)
            image = functional.pil_to_tensor(small).to(image.device)
    else:
        size = (image.height, image.width)
        image = torch.from_numpy(np.array(reduced(image, longest))).permute(2, 0, 1)
    pixels = image if image.is_floating_point() else image.float() / 255
    return Photo(_stretch_thin(pixels, max_size), size)


def _stretch_thin(pixels: Tensor, max_size: int) -> Tensor:
    """[C, H, W], stretched where the shorter side would shrink below one cell of the grid.

    A photo of 1 x 5000 pixels, resized to `max_size`, would have no height at all.
    """
    height, width = pixels.shape[-2:]
    least = math.ceil(max(height, width) * CELL / max_size)
    if min(height, width) >= least:
        return pixels
    return interpolate(pixels[None], (max(height, least), max(width, least)))[0]


def image_size(path: Path) -> tuple[int, int]:
    """PLACEHOLDER"""
    with Image.open(path) as image:
        return image.height, image.width
