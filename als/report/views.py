"""Pictures of a photo, with boxes or under a map. numpy and Pillow; no page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageColor, ImageDraw, ImageFont

# Perceptually even; all but magma keep their order for colour-blind readers too.
COLOUR_MAPS = ("viridis", "cividis", "magma", "gray")
RULES = ("raw 0 to 1", "lowest to highest", "1st to 99th percentile")
# Okabe and Ito's palette: told apart with any colour vision.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LONG_SIDE, SHORT_SIDE = 640, 24  # pixels of a picture on the page
LABELS_AT_ONCE = 8
CONSTANT = 1e-6  # a map of no more range than this says nothing by its shape


@dataclass(frozen=True)
class Look:
    """How maps are shown: opacity 0 to 1, a name of COLOUR_MAPS, one of RULES for every map."""

    opacity: float = 0.6
    colour_map: str = "viridis"
    rule: str = RULES[1]


@dataclass(frozen=True)
class Panel:
    """One picture of the page: its title, what it says, and the values at the bar's ends.

    picture is None where there is nothing to show; `note` then says why. alt: the picture in
    words, for who cannot see it.
    """

    title: str
    picture: Image.Image | None
    note: str = ""
    bar: tuple[float, float] | None = None
    alt: str = ""


def display_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which a photo is shown: longest side 640, never thinner than 24."""
    scale = LONG_SIDE / max(width, height)
    return max(SHORT_SIDE, round(width * scale)), max(SHORT_SIDE, round(height * scale))


def to_display(photo: Image.Image) -> Image.Image:
    """The photo at its display size."""
    return photo.resize(display_size(*photo.size), Image.Resampling.BICUBIC, reducing_gap=2)


def boxes_to_display(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes [N, 4] in pixels of a photo of `size` (height, width) -> pixels of its display."""
    width, height = display_size(size[1], size[0])
    return np.asarray(boxes, np.float32) * np.tile([width / size[1], height / size[0]], 2)


def value_range(map: np.ndarray, rule: str) -> tuple[float, float]:
    """The values of `map` that get the first and the last colour.

    A constant map has no range of its own: it is shown from 0 to 1, or to its value if that is
    larger, so that ones look like ones.
    """
    if rule == RULES[0]:
        return 0.0, 1.0
    low, high = float(map.min()), float(map.max())
    if rule == RULES[2] and high - low > CONSTANT:
        low, high = (float(v) for v in np.percentile(sampled(map, (256, 256)), [1, 99]))
    return (low, high) if high - low > CONSTANT else (0.0, max(1.0, high))


def sampled(map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [H, W] at another (height, width), by its nearest pixels: maps are smooth."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, map.shape, strict=True)
    )
    return map[rows[:, None], columns[None]]


def overlay(photo: Image.Image, map: np.ndarray, look: Look) -> Image.Image:
    """A map [H, W] in colour over the grey photo; only the map carries colour."""
    low, high = value_range(map, look.rule)
    values = sampled(map, (photo.height, photo.width))
    index = (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    grey = photo.convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray(colours_of(look.colour_map)[index]), look.opacity)


def colours_of(colour_map: str) -> np.ndarray:
    """The 256 colours of a map of COLOUR_MAPS, uint8 [256, 3]."""
    return (colormaps[colour_map](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it has every sign that the page uses."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def draw_boxes(
    photo: Image.Image,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: list[str],
    chosen: int | None = None,
) -> Image.Image:
    """Boxes [N, 4] (pixels of `photo`) on a copy of it, the chosen one last, thick and named.

    labels: class of each box, 1 to C, which gives its colour. Beyond eight boxes only the chosen
    one is named, so that the names do not cover the photo.
    """
    picture = photo.copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, max(photo.size) // 200)
    first = [] if chosen is None else [chosen]
    order = first + [i for i in range(len(boxes)) if i != chosen]
    colours = [CLASS_COLOURS[(int(label) - 1) % len(CLASS_COLOURS)] for label in labels]
    for i in reversed(order):
        if i == chosen:
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="black", width=3 * line)
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="white", width=2 * line)
        draw.rectangle(_inside(boxes[i], photo.size, 0), outline=colours[i], width=line)
    taken: list[tuple[float, ...]] = []
    for i in order if len(boxes) <= LABELS_AT_ONCE else first:
        _draw_name(draw, boxes[i], texts[i], colours[i], photo.size, taken)
    return picture


def _inside(box: np.ndarray, size: tuple[int, int], margin: int) -> tuple[float, ...]:
    """A box grown by `margin` but kept in the picture, in an order that Pillow accepts."""
    x1, y1 = max(0, box[0] - margin), max(0, box[1] - margin)
    x2, y2 = min(size[0], box[2] + margin) - 1, min(size[1], box[3] + margin) - 1
    return float(x1), float(y1), float(max(x1, x2)), float(max(y1, y2))


def _draw_name(draw: ImageDraw.ImageDraw, box, text: str, colour: str, size, taken) -> None:
    """A name at the box's upper left corner, unless one of those `taken` stands there already."""
    letters = font(max(12, max(size) // 24))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=letters)
    width, height = right - left + 8, bottom - top + 8
    x = float(np.clip(box[0], 0, max(0, size[0] - width)))
    y = float(box[1] - height if box[1] >= height else max(0, min(box[1], size[1] - height)))
    place = (x, y, x + width, y + height)
    if any(x < t[2] and t[0] < place[2] and y < t[3] and t[1] < place[3] for t in taken):
        return
    taken.append(place)
    draw.rectangle(place, fill=colour)
    red, green, blue = ImageColor.getrgb(colour)
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
    draw.text((x + 4 - left, y + 4 - top), text, font=letters, fill=ink)
