"""The comparison as one picture to take away: every panel with its title, note and colour bar."""

import textwrap

from PIL import Image, ImageDraw, ImageOps

from als.report.views import Look, Panel, colours_of, font

WIDTH, MARGIN, TEXT, BAR = 480, 24, 20, 14  # pixels: of a panel, between panels, of letters, a bar
HIGHEST = 640  # pixels of a picture's height
TITLE_ROOM, FOOT_ROOM = 40, 110
INK, PALE, PAPER = "#1b1f24", "#57606a", "white"


def comparison(rows: list[tuple[str, list[Panel]]], look: Look, heading: str) -> Image.Image:
    """All panels on one white sheet, a row for each (name, panels), under a heading."""
    columns = max(len(panels) for _, panels in rows)
    height = max(_fitted(panel).height for _, panels in rows for panel in panels)
    row_height = 2 * TITLE_ROOM + height + FOOT_ROOM
    size = (columns * (WIDTH + MARGIN) + MARGIN, TITLE_ROOM + 2 * MARGIN + len(rows) * row_height)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), heading, font=font(TEXT + 4), fill=INK)
    for i, (name, panels) in enumerate(rows):
        top = TITLE_ROOM + 2 * MARGIN + i * row_height
        draw.text((MARGIN, top), name, font=font(TEXT), fill=PALE)
        for j, panel in enumerate(panels):
            corner = (MARGIN + j * (WIDTH + MARGIN), top + TITLE_ROOM)
            _draw_panel(sheet, draw, panel, corner, height, look.colour_map)
    return sheet


def _fitted(panel: Panel) -> Image.Image:
    """The panel's picture, as large as fits into its place; one pixel where there is none."""
    if panel.picture is None:
        return Image.new("RGB", (1, 1), PAPER)
    return ImageOps.contain(panel.picture, (WIDTH, HIGHEST), Image.Resampling.LANCZOS)


def _draw_panel(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    corner: tuple[int, int],
    height: int,
    colour_map: str,
) -> None:
    x, y = corner
    draw.text((x, y), panel.title, font=font(TEXT), fill=INK)
    y += TITLE_ROOM
    if panel.picture is None:
        _draw_lines(draw, panel.note, x, y)
        return
    sheet.paste(_fitted(panel), (x, y))
    y += height + 10
    if panel.bar is not None:
        strip = Image.fromarray(colours_of(colour_map)[None])
        sheet.paste(strip.resize((WIDTH, BAR)), (x, y))
        low, high = (f"{value:.2g}" for value in panel.bar)
        draw.text((x, y + BAR + 4), low, font=font(TEXT - 4), fill=PALE)
        draw.text((x + WIDTH, y + BAR + 4), high, font=font(TEXT - 4), fill=PALE, anchor="ra")
        y += BAR + 28
    _draw_lines(draw, panel.note, x, y)


def _draw_lines(draw: ImageDraw.ImageDraw, text: str, x: int, y: int) -> None:
    lines = "\n".join(textwrap.wrap(text, width=50))
    draw.multiline_text((x, y), lines, font=font(TEXT - 4), fill=PALE, spacing=6)
