"""The page's own HTML: pictures with captions, tables, the model line, states. Text is escaped."""

import base64
import io
import math
from collections.abc import Iterable
from html import escape

from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from als.drawing import CLASS_COLOURS, Look, Panel
from als.inference import Predictor
from als.ui.panels import SAYS, figures_of
from als.ui.session import Study

EMPTY_PAGE = (
    '<div class="als-empty"><p><strong>No photo yet</strong></p><p>Drop one in, paste it, take '
    "one with the camera, or choose an example. Five pictures of it appear here: what is found, "
    "where the model looks to place boxes, where it looks to name what is in them, and two maps "
    "of one box.</p></div>"
)


CLICK = " Click inside a box to explain it."


def grid(
    rows: list[tuple[str, list[Panel]]], look: Look, kind: str, clickable: bool = False
) -> str:
    """Rows of panels, each with its name (may be empty), as figures that wrap on narrow screens.

    kind: what the last panel explains. clickable: whether a click chooses a detection.
    """
    words, parts = {"target": kind, "click": CLICK if clickable else ""}, []
    for i, (name, panels) in enumerate(rows):
        heading = f'<h2 class="als-row">{escape(name)}</h2>' if name else ""
        says = SAYS if i == 0 else {}  # a second row has the same columns
        figures = "".join(
            _figure(panel, look, says.get(panel.title, "").format(**words), name)
            for panel in panels
        )
        parts.append(f'{heading}<div class="als-grid als-of-{len(panels)}">{figures}</div>')
    return "".join(parts)


def _figure(panel: Panel, look: Look, says: str, row: str) -> str:
    enlarge = escape(f"Enlarge {panel.title}" + (f", {row}" if row else ""))
    note = f'<p class="als-note">{escape(panel.note)}</p>' if panel.note else ""
    if panel.picture is None:
        body = f'<div class="als-nothing">{escape(panel.note)}</div>'
        note = ""
    else:
        body = (
            f'<div class="als-picture"><img src="{_data_url(panel.picture)}" '
            f'alt="{escape(panel.alt)}" width="{panel.picture.width}" '
            f'height="{panel.picture.height}">'
            f'<button class="als-large" type="button" aria-label="{enlarge}">'
            "⤢</button></div>"
        )
    return (
        f'<figure class="als-figure"><h3>{escape(panel.title)}</h3>{body}'
        f"{_bar(panel, look)}<figcaption>{note}{escape(says)}</figcaption></figure>"
    )


def _bar(panel: Panel, look: Look) -> str:
    if panel.bar is None:
        return ""
    stops = ",".join(to_hex(colormaps[look.colour_map](i / 16)) for i in range(17))
    low, high = (f"{value:.2g}" for value in panel.bar)
    return (
        f'<div class="als-bar"><span>{low}</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>{high}</span></div>'
    )


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def detections_table(study: Study, threshold: float) -> str:
    """Rows over the threshold; each is a button that chooses the detection."""
    found = study.prediction
    shown = int((found.scores >= threshold).sum())
    if not shown:
        best = f" The highest is {found.names[0]} {found.scores[0]:.2f}." if found.names else ""
        return (
            f'<div class="als-empty als-small"><p>Nothing passes the threshold of {threshold:.2f}.'
            f"{escape(best)} Lower it, or explain a class all the same.</p></div>"
        )
    rows = "".join(_detection_row(study, i) for i in range(shown))
    return (
        '<div class="als-scroll"><table class="als-table"><caption>Detections: choose one to '
        'explain</caption><thead><tr><th scope="col">Class</th><th scope="col">Score</th>'
        '<th scope="col">Box: x1, y1, x2, y2</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _detection_row(study: Study, i: int) -> str:
    found, chosen = study.prediction, study.choice.detection == i
    colour = CLASS_COLOURS[(int(found.labels[i]) - 1) % len(CLASS_COLOURS)]
    box = ", ".join(f"{value:.0f}" for value in found.boxes[i])
    return (
        f'<tr data-row="{i}"{" class=als-chosen" if chosen else ""}><td>'
        f'<button type="button" aria-pressed="{str(chosen).lower()}">'
        f'<i style="background:{colour}"></i>{escape(found.names[i])}</button></td>'
        f"<td>{found.scores[i]:.3f}</td><td>{box}</td></tr>"
    )


def numbers_table(studies: Iterable[tuple[str, Study]], kind: str) -> str:
    """Shares, IoU, rank correlations and times of each (name, study)."""
    return "".join(_numbers_of(name, study, kind) for name, study in studies)


def _numbers_of(name: str, study: Study, kind: str) -> str:
    figures = figures_of(study, kind)
    titles = list(figures["share_inside_box"])
    maps = _rows(
        (t, _percent(figures["share_inside_box"][t]), _two(figures["iou_at_half_with_box"][t]))
        for t in titles
    )
    pairs = figures["rank_correlation"]
    square = _rows(
        (
            first,
            *(
                "" if i >= j else _two(pairs[f"{first} / {second}"])
                for j, second in enumerate(titles[1:], start=1)
            ),
        )
        for i, first in enumerate(titles[:-1])
    )
    times = _rows((step, f"{ms:.0f}") for step, ms in figures["milliseconds"].items())
    total = sum(figures["milliseconds"].values())
    box = _percent(figures["box_share_of_image"])
    heading = f'<h2 class="als-row">{escape(name)}</h2>' if name else ""
    return (
        f'{heading}<div class="als-numbers">'
        f"{_table(f'Maps and the chosen box ({box} of the photo)', maps, MAP_HEADS)}"
        f"{_table('Rank correlation of each two maps', square, ('Map', *titles[1:]))}"
        f"{_table(f'Milliseconds of each step, {total:.0f} in all', times, ('Step', 'ms'))}</div>"
    )


MAP_HEADS = ("Map", "Share inside", "IoU at half of its maximum")


def _table(caption: str, rows: str, heads: tuple[str, ...]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<div class="als-scroll"><table class="als-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )


def _percent(share: float) -> str:
    return "empty map" if math.isnan(share) else f"{100 * share:.0f} %"


def _two(value: float) -> str:
    return "none" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def status(text: str, error: bool = False) -> str:
    """One line under the photo; an error is announced to screen readers at once."""
    kind = ' als-error" role="alert"' if error else '" role="status"'
    return f'<p class="als-status{kind}>{escape(text)}</p>' if text else ""


def model_line(predictor: Predictor) -> str:
    """The checkpoint, its kind, its data and figures in a line, and all that it says of itself."""
    config = predictor.detector.config
    parts = [config.backbone, "with attention" if config.attention else "without attention"]
    parts.append("separate branches" if config.separation else "one shared branch")
    rows = _rows((key, value) for key, value in _flat(predictor.info)) or _rows(
        [("info", "This checkpoint says nothing of its data and figures.")]
    )
    return (
        f'<div class="als-model"><details><summary><strong>{escape(predictor.source)}</strong> '
        f"{escape(', '.join(parts))}. Classes: {escape(', '.join(predictor.classes))}."
        f' <u>Its record</u></summary><table class="als-table">{rows}</table></details>'
        f"{_data_and_figures(predictor.info)}</div>"
    )


def _data_and_figures(info: dict) -> str:
    """What training (`data`) and `als ship` (`figures`) wrote into a checkpoint, as a paragraph."""
    data, figures = info.get("data"), info.get("figures")
    said = []
    if isinstance(data, dict) and data.get("train"):
        said.append(f"Trained on {data['train']}.")
    if isinstance(figures, dict) and figures:
        where = f"On {figures['data']}" if figures.get("data") else "Figures"
        values = _flat({name: value for name, value in figures.items() if name != "data"})
        said.append(f"{where}: {', '.join(' '.join(row) for row in values)}.")
    said = said or ["It says nothing of its data or its figures."]
    return f"<p>{escape(' '.join(said))}</p>"


def _flat(value, name: str = "") -> list[tuple[str, str]]:
    """Nested info -> (path, text) rows."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(item, f"{name} {key}".strip())]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]


def changes_table(changes: list[tuple[str, str, str, str]]) -> str:
    """Boxes before and after maps were replaced."""
    if not changes:
        return '<div class="als-empty als-small"><p>No box is over the threshold.</p></div>'
    heads = ("Class", "Score before", "Score after", "IoU of the two boxes")
    return _table("Boxes before and after", _rows(changes), heads)
