"""Predictions drawn on photographs: boxes, maps, and sheets of both; files of a prediction."""

import io
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from als.files import LONGEST_STEM, atomic_write, printable, write_json
from als.inference import Prediction

# Perceptually even; all but magma keep their order for colour-blind readers too.
COLOUR_MAPS = ("viridis", "cividis", "magma", "gray")
RULES = ("raw 0 to 1", "lowest to highest", "1st to 99th percentile")
# Okabe and Ito's palette: told apart with any colour vision.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LONG_SIDE, SHORT_SIDE = 640, 24  # pixels of a picture on the page
LABELS_AT_ONCE = 8
CONSTANT = 1e-6  # of its maximum: a map of no more range than this says nothing by its shape
NEARLY_CONSTANT = 0.05  # range below which a stretched attention map says so
DETECTIONS, LOCALIZATION, CLASSIFICATION = "Detections", "Localization map", "Classification map"
NO_ATTENTION = "This model has no attention, so there is no such map."

# Of a sheet, in pixels: a panel, between panels, letters, a bar; a picture's height; texts.
WIDTH, MARGIN, TEXT, BAR = 480, 24, 20, 14
HIGHEST, TITLE_ROOM, FOOT_ROOM = 640, 40, 110
INK, PALE, PAPER = "#1b1f24", "#57606a", "white"
COMPRESSION = 1  # of PNG's 9 levels; the usual 6 takes 4.5 times as long and saves a tenth


@dataclass(frozen=True)
class Look:
    """How maps are shown: opacity 0 to 1, a name of COLOUR_MAPS, one of RULES for every map."""

    opacity: float = 0.6
    colour_map: str = "viridis"
    rule: str = RULES[1]


@dataclass(frozen=True)
class Panel:
    """One picture of a page or sheet: its title, what it says, and the values at the bar's ends.

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


def value_range(heat_map: np.ndarray, rule: str) -> tuple[float, float]:
    """The values of a map [H, W] that get the first and the last colour.

    A constant map has no range of its own: it is shown from 0 to 1, or to its value if that is
    larger, so that ones look like ones.
    """
    if rule == RULES[0]:
        return 0.0, 1.0
    low, high = float(heat_map.min()), float(heat_map.max())
    if rule == RULES[2]:
        inner = np.percentile(sampled(heat_map, (256, 256)), [1, 99]).tolist()
        if inner[1] - inner[0] > CONSTANT * high:  # not where the map is 0 but for a small object
            low, high = inner
    return (low, high) if high - low > CONSTANT * high else (0.0, max(1.0, high))


def sampled(heat_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [H, W] at another (height, width), by its nearest pixels: maps are smooth."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, heat_map.shape, strict=True)
    )
    return heat_map.take(rows, axis=0).take(columns, axis=1)


def overlay(photo: Image.Image, heat_map: np.ndarray, look: Look) -> Image.Image:
    """A map [H, W] in colour over the grey photo; only the map carries colour."""
    low, high = value_range(heat_map, look.rule)
    values = sampled(heat_map, (photo.height, photo.width))
    index = (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    coloured = Image.fromarray(index)
    coloured.putpalette(colours_of(look.colour_map).tobytes())
    grey = photo.convert("L").convert("RGB")
    return Image.blend(grey, coloured.convert("RGB"), look.opacity)


def map_panel(title: str, heat_map: np.ndarray, photo: Image.Image, look: Look) -> Panel:
    """A map [H, W] over the photo, with the values of its colours and what these hide."""
    low, high = value_range(heat_map, look.rule)
    alt = f"{title} over the photo, values {low:.3g} to {high:.3g}"
    note = _range_note(title, heat_map, low, high, look.rule)
    return Panel(title, overlay(photo, heat_map, look), note, (low, high), alt)


def attention_panels(prediction: Prediction, photo: Image.Image, look: Look) -> list[Panel]:
    """The localization and the classification map over the photo, or why there is none."""
    maps = prediction.localization_map, prediction.classification_map
    return [
        Panel(title, None, NO_ATTENTION) if one is None else map_panel(title, one, photo, look)
        for title, one in zip((LOCALIZATION, CLASSIFICATION), maps, strict=True)
    ]


def _range_note(title: str, values: np.ndarray, low: float, high: float, rule: str) -> str:
    """What the colours hide: a constant, a stretched one, or values off the scale or dark on it."""
    spread, attention = float(np.ptp(values)), title in (LOCALIZATION, CLASSIFICATION)
    if not values.max() > 0:
        return "Empty map: 0 everywhere."
    if rule == RULES[0] and values.max() > high:
        return f"Values up to {values.max():.2g} have the colour of {high:g} on this scale."
    if spread <= CONSTANT * values.max():
        return f"The same everywhere: {values.max():.2g}."
    if attention and spread < NEARLY_CONSTANT and high - low < 2 * NEARLY_CONSTANT:
        return "Nearly the same everywhere: the colours stretch small differences."
    if spread < 0.1 * (high - low):
        return f"All values lie between {values.min():.2g} and {values.max():.2g} on this scale."
    return ""


def colours_of(colour_map: str) -> np.ndarray:
    """The 256 colours of a map of COLOUR_MAPS, uint8 [256, 3]."""
    return (colormaps[colour_map](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def css_gradient(colour_map: str) -> str:
    """The colours of a map of COLOUR_MAPS from left to right, as a style sheet writes it."""
    stops = ("#" + bytes(colour).hex() for colour in colours_of(colour_map)[::15])
    return f"linear-gradient(90deg,{','.join(stops)})"


def jpeg(picture: Image.Image) -> bytes:
    """A picture as a browser gets it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, which has every sign that is used."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def class_colours(names: Iterable[str], kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for each class that is there, the surest detection's class first.

    A class has a colour of its own, the same for every model that knows it, or takes the next one
    that is free: as many classes as there are colours stay apart. Later names change nothing for
    earlier ones, nor for those of `kept`.
    """
    colours, count = dict(kept or {}), len(CLASS_COLOURS)
    for name in names:
        if name not in colours:
            own = crc32(name.encode())
            wished = [CLASS_COLOURS[(own + step) % count] for step in range(count)]
            free = [colour for colour in wished if colour not in colours.values()]
            colours[name] = (free or wished)[0]
    return colours


def draw_boxes(
    photo: Image.Image,
    boxes: np.ndarray,
    names: Sequence[str],
    texts: Sequence[str],
    chosen: int | None = None,
    colours: Mapping[str, str] | None = None,
) -> Image.Image:
    """Boxes [N, 4] (pixels of `photo`) on a copy of it, the chosen one last, thick and named.

    names: class of each box, which gives its colour, of `colours` or else of `class_colours`.
    Beyond eight boxes only the chosen one has its text, so that texts do not cover the photo.
    """
    by_class = class_colours(names) if colours is None else colours
    picture = photo.copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, max(photo.size) // 200)
    first = [] if chosen is None else [chosen]
    order = first + [i for i in range(len(boxes)) if i != chosen]
    inks = [by_class[name] for name in names]
    for i in reversed(order):
        if i == chosen:
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="black", width=3 * line)
            draw.rectangle(_inside(boxes[i], photo.size, line), outline="white", width=2 * line)
        draw.rectangle(_inside(boxes[i], photo.size, 0), outline=inks[i], width=line)
    taken: list[tuple[float, ...]] = []
    for i in order if len(boxes) <= LABELS_AT_ONCE else first:
        _draw_name(draw, boxes[i], texts[i], inks[i], photo.size, taken)
    return picture


def _inside(box: np.ndarray, size: tuple[int, int], margin: int) -> tuple[float, ...]:
    """A box grown by `margin` but kept in the picture, in an order that Pillow accepts."""
    x1, y1 = max(0, box[0] - margin), max(0, box[1] - margin)
    x2, y2 = min(size[0], box[2] + margin) - 1, min(size[1], box[3] + margin) - 1
    return float(x1), float(y1), float(max(x1, x2)), float(max(y1, y2))


def _draw_name(draw: ImageDraw.ImageDraw, box, text: str, colour: str, size, taken) -> None:
    """A name at a corner of the box, from the upper left on, that none of those `taken` covers."""
    letters = font(max(12, max(size) // 24))
    if (wide := letters.getlength(text)) > (room := size[0] - 8):  # a strip
        letters = font(max(12, int(letters.size * room / wide)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=letters)
    width, height = right - left + 8, bottom - top + 8
    lefts = np.clip((box[0], box[2] - width), 0, max(0, size[0] - width))
    tops = np.clip((box[1] - height if box[1] >= height else box[1], box[3]), 0, size[1] - height)
    places = [(x, y, x + width, y + height) for y in tops.clip(0) for x in lefts]
    place = next((p for p in places if not any(_overlap(p, other) for other in taken)), None)
    if place is None:
        return
    taken.append(place)
    x, y, *_ = place
    draw.rectangle(place, fill=colour)
    red, green, blue = ImageColor.getrgb(colour)
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
    draw.text((x + 4 - left, y + 4 - top), text, font=letters, fill=ink)


def _overlap(one: Sequence[float], two: Sequence[float]) -> bool:
    return all(one[k] < two[k + 2] and two[k] < one[k + 2] for k in (0, 1))


def draw_detections(shown: Image.Image, prediction: Prediction) -> Image.Image:
    """A prediction's boxes with names and scores on a photo at its display size."""
    boxes = boxes_to_display(prediction.boxes, prediction.size)
    return draw_boxes(shown, boxes, prediction.names, scored_names(prediction))


def scored_names(prediction: Prediction) -> list[str]:
    """Name and score of each detection."""
    scored = zip(prediction.names, prediction.scores, strict=True)
    return [f"{name} {score:.2f}" for name, score in scored]


def comparison(rows: list[tuple[str, list[Panel]]], look: Look, heading: str) -> Image.Image:
    """All panels on one white sheet, a row for each (name, panels), under a heading."""
    columns = max(len(panels) for _, panels in rows)
    height = max(_fitted(panel).height for _, panels in rows for panel in panels)
    row_height = 2 * TITLE_ROOM + height + FOOT_ROOM
    across, letters = columns * (WIDTH + MARGIN) + MARGIN, font(TEXT + 4)
    lines = _lines(heading, letters, across - 2 * MARGIN)
    head = 2 * MARGIN + TITLE_ROOM * max(1, len(lines))
    sheet = Image.new("RGB", (across, head + len(rows) * row_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + i * TITLE_ROOM), line, font=letters, fill=INK)
    for i, (name, panels) in enumerate(rows):
        top = head + i * row_height
        draw.text((MARGIN, top), name, font=font(TEXT), fill=PALE)
        for j, panel in enumerate(panels):
            x, y = MARGIN + j * (WIDTH + MARGIN), top + TITLE_ROOM
            draw.text((x, y), panel.title, font=font(TEXT), fill=INK)
            y += TITLE_ROOM
            if panel.picture is not None:
                sheet.paste(_fitted(panel), (x, y))
                y += height + 10
            if panel.bar is not None:
                strip = Image.fromarray(colours_of(look.colour_map)[None])
                sheet.paste(strip.resize((WIDTH, BAR)), (x, y))
                low, high = (f"{value:.2g}" for value in panel.bar)
                draw.text((x, y + BAR + 4), low, font=font(TEXT - 4), fill=PALE)
                right = (x + WIDTH, y + BAR + 4)
                draw.text(right, high, font=font(TEXT - 4), fill=PALE, anchor="ra")
                y += BAR + 28
            note = textwrap.fill(panel.note, width=50)
            draw.multiline_text((x, y), note, font=font(TEXT - 4), fill=PALE, spacing=6)
    return sheet


def _lines(text: str, letters: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """A text in as few lines as have room, in pixels of its letters."""
    for most in range(len(text), 0, -1):
        lines = textwrap.wrap(text, most)
        if all(letters.getlength(line) <= room for line in lines):
            return lines
    return []


def _fitted(panel: Panel) -> Image.Image:
    """The panel's picture, as large as fits into its place; one pixel where there is none."""
    if panel.picture is None:
        return Image.new("RGB", (1, 1), PAPER)
    return ImageOps.contain(panel.picture, (WIDTH, HIGHEST), Image.Resampling.LANCZOS)


def save_prediction(path: Path, prediction: Prediction, out: Path, photo: Image.Image) -> Path:
    """Write `<out>/<stem>.png` and `<out>/<stem>.json` (see `output_stem`); returns the picture.

    path: the image that was predicted. photo: what it holds, upright and RGB, at any size. The
    JSON holds size [height, width] and for each detection name, score and box [x1, y1, x2, y2] in
    pixels of the upright image.
    """
    shown, look = to_display(photo), Look()
    panels = [Panel(DETECTIONS, draw_detections(shown, prediction))]
    panels += attention_panels(prediction, shown, look)
    picture = out / f"{output_stem(path)}.png"
    # The detections first: they have room where a picture has none.
    found = zip(prediction.names, prediction.scores, prediction.boxes, strict=True)
    detections = [{"name": n, "score": float(s), "box": box.tolist()} for n, s, box in found]
    name = os.fsencode(path.name).decode(errors="backslashreplace")  # JSON is UTF-8
    record = {"image": name, "size": prediction.size, "detections": detections}
    write_json(picture.with_suffix(".json"), record)
    with atomic_write(picture) as aside:
        sheet = comparison([("", panels)], look, printable(path.name))
        sheet.save(aside, format="png", compress_level=COMPRESSION)
    return picture


def output_stem(path: Path) -> str:
    """The name of an image's outputs without their suffix: its own, cut where that is too long."""
    return os.fsdecode(os.fsencode(path.stem)[:LONGEST_STEM])
