"""Pictures of a photo, with boxes or under a map. numpy, Pillow and matplotlib; no page."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

# Perceptually even; all but magma keep their order for colour-blind readers too.
COLOUR_MAPS = ("viridis", "cividis", "magma", "gray")
RULES = ("raw 0 to 1", "lowest to highest", "1st to 99th percentile")
# Okabe and Ito's palette: told apart with any colour vision.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LONG_SIDE, SHORT_SIDE = 640, 24  # pixels of a picture on the page
LABELS_AT_ONCE = 8


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
    """The values of `map` that get the first and the last colour."""
    if rule == RULES[0]:
        return 0.0, 1.0
    if rule == RULES[1]:
        return float(map.min()), float(map.max())
    low, high = np.percentile(sampled(map, (256, 256)), [1, 99])
    return float(low), float(high)


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
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    index = (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
    colours = (colormaps[look.colour_map](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    grey = photo.convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray(colours[index]), look.opacity)


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
    order = [i for i in reversed(range(len(boxes))) if i != chosen]
    for i in order + ([] if chosen is None else [chosen]):
        colour = CLASS_COLOURS[(int(labels[i]) - 1) % len(CLASS_COLOURS)]
        if i == chosen:
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="black", width=3 * line)
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="white", width=2 * line)
        draw.rectangle(_inside(boxes[i], photo.size, 0), outline=colour, width=line)
        if i == chosen or len(boxes) <= LABELS_AT_ONCE:
            _draw_name(draw, boxes[i], texts[i], colour, photo.size)
    return picture


def _inside(box: np.ndarray, size: tuple[int, int], margin: int) -> tuple[float, ...]:
    """A box grown by `margin` but kept in the picture, in an order that Pillow accepts."""
    x1, y1 = max(0, box[0] - margin), max(0, box[1] - margin)
    x2, y2 = min(size[0], box[2] + margin) - 1, min(size[1], box[3] + margin) - 1
    return float(x1), float(y1), float(max(x1, x2)), float(max(y1, y2))


def _draw_name(draw: ImageDraw.ImageDraw, box, text: str, colour: str, size) -> None:
    font = ImageFont.load_default(size=max(12, max(size) // 24))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 8, bottom - top + 8
    x = float(np.clip(box[0], 0, max(0, size[0] - width)))
    y = float(box[1] - height if box[1] >= height else max(0, min(box[1], size[1] - height)))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    red, green, blue = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 128
    ink = "black" if light else "white"
    draw.text((x + 4 - left, y + 4 - top), text, font=font, fill=ink)


def comparison(rows: list[tuple[str, list[Panel]]], look: Look, heading: str) -> Figure:
    """All panels in one figure, a row for each (name, panels), with colour bars and notes.

    Save it with `figure.savefig(path)`.
    """
    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(3.4 * columns, 4.1 * len(rows) + 0.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (name, panels), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, panel in zip(line, panels, strict=False):
            title = f"{name}\n{panel.title}" if panel is panels[0] and name else panel.title
            axis.set_title(title, fontsize=10)
            _fill(figure, axis, panel, look.colour_map)
    return figure


def _fill(figure: Figure, axis, panel: Panel, colour_map: str) -> None:
    if panel.picture is None:
        axis.text(0.5, 0.5, panel.note, ha="center", va="center", wrap=True, fontsize=9)
        return
    axis.imshow(panel.picture)
    if panel.bar is not None:
        scale = ScalarMappable(Normalize(*panel.bar), colour_map)
        bar = figure.colorbar(scale, ax=axis, orientation="horizontal", fraction=0.06, pad=0.03)
        bar.ax.tick_params(labelsize=8)
    if panel.note:
        axis.text(
            0.5, -0.02, panel.note, transform=axis.transAxes, ha="center", va="top", fontsize=7
        )
