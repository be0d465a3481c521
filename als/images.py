"""The one reader of images: whatever a file holds becomes upright 8-bit RGB, or one sentence.

Training, evaluation, prediction and the app all read by `as_rgb` and shrink by `photo_of`.
"""

import math
import os
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from als.errors import InputError
from als.files import printable

MAX_PIXELS = 40_000_000
MAX_SIDE = 65_535  # pixels, as JPEG's; a map of one row of millions would take gigabytes
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # JPEG also opens the MPO of phones
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif"),  # not read, but said so
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SIXTEEN_TO_EIGHT_BIT = 257  # 65535 / 255
CELL = 16  # pixels a side, of the grid on which the networks look
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # what undoes each EXIF orientation; 5 to 8 swap height and width
TURNED_BY = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where it may stand


class Photo(NamedTuple):
    """A photo as the networks take it.

    pixels: float32 [3, h, w] in 0..1, upright RGB, averaged down where the photo is large.
    size: (height, width) of the photo itself, in whose pixels boxes and maps are given.
    """

    pixels: Tensor
    size: tuple[int, int]


def photo_of(image: Image.Image | Tensor, max_size: int) -> Photo:
    """An upright RGB photo, made no larger than a network needs that resizes it to `max_size`.

    image: PIL, or Tensor [3, H, W], uint8 or float in 0..1. One that is longer than twice
        `max_size` is `reduced` to that, in 8 bit; a thin one is stretched (`stretch_thin`).
    """
    longest = 2 * max_size
    if not isinstance(image, Tensor):
        size = image.height, image.width
        image = pil_to_tensor(reduced(image, longest))
    elif max(size := (image.shape[-2], image.shape[-1])) > longest:
        eight_bit = (255 * image).round().byte() if image.is_floating_point() else image
        small = reduced(to_pil_image(eight_bit.cpu()), longest)
        image = pil_to_tensor(small).to(image.device)
    pixels = image if image.is_floating_point() else image.float() / 255
    return Photo(stretch_thin(pixels, max_size), size)


def as_rgb(image: str | Path | Image.Image | np.ndarray, name: str | None = None) -> Image.Image:
    """A photo -> PIL image of mode RGB, as every viewer shows it.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled from
    0..65535 to 0..255, CMYK is converted, and the file of an animation gives its first frame.

    Args:
        image: path, PIL image, or uint8 array [H, W], [H, W, 3] or [H, W, 4].
        name: what a refusal calls the image; by default the file's name without its folder.

    Raises:
        InputError: of another type, missing, empty, truncated, of none of `FORMATS`, or larger than
            `MAX_PIXELS` or `MAX_SIDE`, which the header says before anything is decoded.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _decode(image, name or "image")
    if not isinstance(image, str | os.PathLike):
        raise InputError(
            f"{name or 'image'}: a {type(image).__name__} is no photo; give a path, a PIL image or "
            "an array of uint8, [H, W, 3]."
        )
    path = Path(image)
    name = name or printable(path.name) or str(path)
    with open_image(path, name) as opened:
        return _decode(opened, name, own=True)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) that `as_rgb` gives, from the file's header alone.

    Raises InputError, which names the whole path, when the header cannot be read.
    """
    with _with_exif(path) as opened:
        # Of a TIFF Pillow turns the size by itself.
        is_swapped = opened.format != "TIFF" and _orientation(opened) >= 5
        return opened.size if is_swapped else opened.size[::-1]


def exif_orientation(path: Path) -> int:
    """EXIF's orientation of a photo: 1, as stored, to 8; also 1 for a file that cannot be read."""
    try:
        with _with_exif(path) as opened:
            return _orientation(opened)
    except InputError:
        return 1


def _with_exif(path: Path) -> Image.Image:
    """An image whose header is read, and its EXIF, which may stand behind the pixels of a PNG."""
    opened = open_image(path, str(path))
    if opened.format == "PNG" and "exif" not in opened.info:
        content = path.read_bytes()
        if b"eXIf" in content or b"tiff:Orientation" in content:  # of XMP, as exiftool writes it
            _load(opened, str(path))
    return opened


def painted(layer: Path | bytes) -> np.ndarray:
    """Where a layer of an image editor, a file or its content, is painted: bool [H, W].

    Raises InputError as `as_rgb` does.
    """
    with open_image(layer, "the strokes") as opened:
        _load(opened, "the strokes")
        return np.asarray(opened.convert("RGBA").getchannel("A")) > 0


def open_image(file: Path | bytes, name: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """An image whose header is read, and no pixel yet. Every file is opened here.

    Pillow knows formats that start other programs (EPS) or that nobody meant: only `formats` are
    tried. Raises InputError, which calls the file `name`.
    """
    if isinstance(file, Path) and not os.path.isfile(file):  # also of a name that none can have
        told = "is a folder" if os.path.isdir(file) else "no such file"
        raise InputError(f"{name}: {told}; give a photo.")
    if (file.stat().st_size if isinstance(file, Path) else len(file)) == 0:
        raise InputError(f"{name}: the file is empty (0 bytes); copy or upload it again.")
    try:
        image = Image.open(file if isinstance(file, Path) else BytesIO(file), formats=formats)
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: {_why_unknown(file, formats)}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, also from the header
        raise InputError(_too_large(name, "the")) from error
    except Exception as error:
        raise InputError(_damaged(name, error)) from error
    image.filename = ""  # or Pillow maps the file into memory, and mixes up a TIFF on its side
    _refuse_size(image, name)
    return image


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """A copy whose longest side is `longest`, its pixels averaged; a smaller image as it is.

    The networks' own resizing reads four pixels for each new one, so that a large photo would
    reach them full of noise.
    """
    height, width = reduced_size((image.height, image.width), longest)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BOX)


def reduced_size(size: tuple[int, int], longest: float) -> tuple[int, int]:
    """The (height, width) of what `reduced` makes of an image of `size`."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def stretch_thin(pixels: Tensor, max_size: int) -> Tensor:
    """[C, H, W], stretched where the shorter side would shrink below one cell of the grid.

    A photo of 1 x 5000 pixels, resized to `max_size`, would have no height at all.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    thick = stretched_size(size, max_size)
    return pixels if thick == size else F.interpolate(pixels[None], thick)[0]


def stretched_size(size: tuple[int, int], max_size: int) -> tuple[int, int]:
    """The (height, width) of what `stretch_thin` makes of an image of `size`."""
    least = math.ceil(max(size) * CELL / max_size)
    return max(size[0], least), max(size[1], least)


def _from_array(array: np.ndarray) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or array.size == 0:
        raise InputError(
            f"image: an array of {array.dtype} {array.shape}; give uint8 [H, W], [H, W, 3] "
            "(RGB) or [H, W, 4] (RGBA) that is not empty."
        )
    return _decode(Image.fromarray(array), "image")


def _decode(image: Image.Image, name: str, own: bool = False) -> Image.Image:
    """An opened, perhaps not yet decoded image -> upright RGB, never the caller's."""
    _refuse_size(image, name)
    _load(image, name)
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    elif not own:
        image = image.copy()
    rgb = _to_rgb(image, name)
    for key in TURNED_BY:  # or the result would be turned again when it is given back
        rgb.info.pop(key, None)
    return rgb


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, ...
        raise InputError(_damaged(name, error)) from error


def _refuse_size(image: Image.Image, name: str) -> None:
    if not image.width * image.height:
        raise InputError(f"{name}: {image.width} x {image.height} pixels show nothing; cut again.")
    if image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(name, f"{image.width} x {image.height}"))
    if max(image.size) > MAX_SIDE:
        raise InputError(
            f"{name}: {image.width} x {image.height} pixels have a side over the limit of "
            f"{MAX_SIDE:,}; cut or reduce the photo first."
        )


def _orientation(image: Image.Image) -> int:
    try:
        # Not image.getexif(): that of a PNG decodes the pixels first.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF says nothing of the pixels, which are sound
        return 1
    return orientation if orientation in TURNS else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    # Floats have no fixed range; LAB's colours and multiplied grey Pillow cannot turn.
    if image.mode in ("F", "LAB", "La"):
        raise InputError(f"{name}: pixels of mode {image.mode} are not read; save it as 8 bit RGB.")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.int32)
        grey[grey == image.info.get("transparency")] = 65535  # a PNG's; laid on white
        grey += SIXTEEN_TO_EIGHT_BIT // 2  # the nearest of the 256
        grey //= SIXTEEN_TO_EIGHT_BIT
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_large(name: str, size: str) -> str:
    return (
        f"{name}: {size} pixels are over the limit of {MAX_PIXELS / 1e6:g} megapixels; "
        "reduce the photo first."
    )


def _damaged(name: str, error: Exception) -> str:
    return f"{name}: the file is damaged or cut short ({error}); copy or upload it again."


def _why_unknown(file: Path | bytes, formats: tuple[str, ...]) -> str:
    if formats != FORMATS:
        return f"not a {' or '.join(formats)} file."
    with file.open("rb") if isinstance(file, Path) else BytesIO(file) as opened:
        head = opened.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return "HEIC photos are not supported; save it as JPEG or PNG."
    return "not an image that can be read; give a JPEG, PNG, WebP, GIF, BMP or TIFF file."
