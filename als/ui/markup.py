"""The page's own HTML: pictures with captions, tables, the model line, states. Text is escaped."""

import base64
import json
import math
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image

from als.drawing import Look, Panel, css_gradient, jpeg
from als.evaluation.missed import SAYS, Lost
from als.inference import Predictor
from als.model.attention import FORMS
from als.ui.gallery import COLOURS, Gallery, Tally
from als.views.panels import colours_of, figures_of
from als.views.photo_study import Settings, Study


def empty(text: str, title: str = "", small: bool = False) -> str:
    """A frame that says why there is nothing here yet."""
    title = f"<p><strong>{escape(title)}</strong></p>" if title else ""
    return f'<div class="als-empty{" als-small" * small}">{title}<p>{escape(text)}</p></div>'


def grid(rows: list[tuple[str, list[Panel]]], look: Look, says: dict[str, str]) -> str:
    """Rows of panels, each with its name (may be empty), as figures that wrap on narrow screens.

    says: the caption of each panel of the first row, by title; a second row has the same columns.
    """
    html = ""
    for name, panels in rows:
        figures = "".join(_figure(p, look, says.get(p.title, ""), name) for p in panels)
        html += f'{_heading(name)}<div class="als-grid als-of-{len(panels)}">{figures}</div>'
        says = {}
    return html


def _heading(name: str) -> str:
    return f'<h2 class="als-row">{escape(name)}</h2>' if name else ""


def _figure(panel: Panel, look: Look, says: str, row: str) -> str:
    if panel.picture is None:
        note, body = "", f'<div class="als-nothing">{escape(panel.note)}</div>'
    else:
        note = f'<p class="als-note">{escape(panel.note)}</p>' if panel.note else ""
        enlarge = escape(f"Enlarge {panel.title}" + (f", {row}" if row else ""))
        body = (
            f'<div class="als-picture"><img src="{_data_url(panel.picture)}" '
            f'alt="{escape(panel.alt)}" width="{panel.picture.width}" '
            f'height="{panel.picture.height}">'
            f'<button class="als-large" type="button" aria-label="{enlarge}">⤢</button></div>'
        )
    return (
        f'<figure class="als-figure"><h3>{escape(panel.title)}</h3>{body}'
        f"{_bar(panel, look)}<figcaption>{note}{escape(says)}</figcaption></figure>"
    )


def _bar(panel: Panel, look: Look) -> str:
    if panel.bar is None:
        return ""
    low, high = (f"{value:.2g}" for value in panel.bar)
    return (
        f'<div class="als-bar"><span>{low}</span>'
        f'<i style="background:{css_gradient(look.colour_map)}"></i><span>{high}</span></div>'
    )


def _data_url(picture: Image.Image) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()


def detections_table(study: Study, threshold: float, models: bool = False) -> str:
    """Rows over the threshold; each is a button that chooses the detection.

    models: whether the page has others, which may know what is in the photo.
    """
    found, shown = study.prediction, study.shown(threshold)
    if not shown:
        best = f" The highest is {found.names[0]} {found.scores[0]:.2f}." if found.names else ""
        said = f"Nothing passes the threshold of {threshold:.2f}.{best}"
        other = ", or choose another model" if models else ""
        return empty(f"{said} Lower it, or explain a class all the same{other}.", small=True)
    rows = "".join(_detection_row(study, i) for i in range(shown))
    heads = ("Class", "Score", "Box: x1, y1, x2, y2")
    return _table("Detections: choose one to explain", heads, rows)


def _detection_row(study: Study, i: int) -> str:
    found, chosen = study.prediction, study.choice.detection == i
    colour = colours_of(study)[found.names[i]]
    box = ", ".join(f"{value:.0f}" for value in found.boxes[i])
    return (
        f'<tr data-row="{i}"{" class=als-chosen" if chosen else ""}><td>'
        f'<button type="button" aria-pressed="{str(chosen).lower()}">'
        f'<i style="background:{colour}"></i>{escape(found.names[i])}</button></td>'
        f"<td>{found.scores[i]:.3f}</td><td>{box}</td></tr>"
    )


def numbers_table(study: Study, settings: Settings, name: str = "") -> str:
    """Shares, IoU, rank correlations and times, under a heading if the study has a name."""
    figures = figures_of(study, settings)
    inside, at_half = figures["share_inside_box"], figures["iou_at_half_with_box"]
    pairs, times, titles = figures["rank_correlation"], figures["milliseconds"], list(inside)
    maps = ((t, _percent(inside[t]), _two(at_half[t])) for t in titles)
    square = (
        (first, *(_two(pairs.get(f"{first} / {second}")) for second in titles[1:]))
        for first in titles[:-1]
    )
    box, total = _percent(figures["box_share_of_image"]), sum(times.values())
    steps = ((step, f"{ms:.0f}") for step, ms in times.items())
    heads = ("Map", "Share inside", "IoU at half of its maximum")
    html = _table(f"Maps and the chosen box ({box} of the photo)", heads, _rows(maps))
    html += _table("Rank correlation of each two maps", ("Map", *titles[1:]), _rows(square))
    html += _table(f"Milliseconds of each step, {total:.0f} in all", ("Step", "ms"), _rows(steps))
    return f'{_heading(name)}<div class="als-numbers">{html}</div>'


def _table(caption: str, heads: tuple[str, ...], rows: str) -> str:
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


def _two(value: float | None) -> str:
    if value is None:
        return ""
    return "none" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def missed_table(study: Study, threshold: float) -> str:
    """Where each missed object was lost; a row chooses the proposal that came furthest."""
    if study.truth is None:
        return ""
    told, missed = study.losses(threshold)
    if not missed:
        return _table("Missed objects: none at this threshold", (), "")
    rows = "".join(_missed_row(study, i, row, lost) for i, (row, lost) in enumerate(told))
    some = f", the first {len(told)}" if missed > len(told) else ""
    were = f"{_counted(missed, 'object')} {'was' if missed == 1 else 'were'}"
    caption = f"Why {were} missed{some}: choose one to explain its best proposal"
    return _table(caption, MISSED_HEADS, rows)


MISSED_HEADS = (
    *("Object", "Lost at", "IoU of best proposal", "Its scores", "IoU of its box"),
    *("Localization map there (photo)", "Classification map there (photo)"),
)


def _missed_row(study: Study, place: int, row: int, lost: Lost) -> str:
    name = study.predictor.classes[int(study.truth.labels[row]) - 1]
    names = ("background", *study.predictor.classes)
    best = np.argsort(-lost.scores)[:3].tolist()
    best += [i for i in [int(study.truth.labels[row])] if i not in best]
    scores = ", ".join(f"{names[i]} {lost.scores[i]:.2f}" for i in best)
    cells = (
        f"{lost.step}: {SAYS[lost.step]}",
        f"{lost.iou:.2f}",
        scores if lost.proposal is not None else "none",
        f"{lost.box_iou:.2f}",
        *(
            "none" if means is None else f"{means[0]:.2f} ({means[1]:.2f})"
            for means in study.maps_there(study.truth.boxes[row])
        ),
    )
    return (
        f'<tr data-row="{place}"><td><button type="button">{escape(name)}</button></td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def gallery_grid(gallery: Gallery, threshold: float, name: str | None, order: str) -> str:
    """A small picture of each photograph with its counts; each is a button that opens it."""
    listed = gallery.tallies(threshold, name, order)
    tallies = [tally for _, tally in listed]
    found = sum(int(tally.found.sum()) for tally in tallies)
    said = f"{_counted(len(listed), 'photograph')}, {_counted(found, 'detection')}"
    said += f" from a score of {threshold:.2f} on"
    judged = [tally for tally in tallies if tally.outcomes]
    key = ""
    if judged:
        counts = {kind: sum(tally.count(kind) for tally in judged) for kind in COLOURS}
        said += ": " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
        if len(judged) < len(tallies):
            said += f" in the {len(judged)} with an annotation"
        key = "".join(
            f'<i style="background:{colour}"></i>{kind}' for kind, colour in COLOURS.items()
        )
    pictures = "".join(_photograph(gallery, place, tally) for place, tally in listed)
    notes = " ".join(gallery.notes)
    return (
        f'<p class="als-status" role="status">{escape(said)}.<span class="als-key">{key}</span></p>'
        f'{status(notes)}<ul class="als-gallery">{pictures}</ul>'
    )


def _photograph(gallery: Gallery, place: int, tally: Tally) -> str:
    found = f"{int(tally.found.sum())} found"
    said = "no annotation"
    if tally.outcomes:
        said = ", ".join(f"{tally.count(kind)} {kind}" for kind in COLOURS)
    return (
        f'<li><button type="button" data-row="{place}">'
        f'<img src="{_data_url(gallery.drawn(tally))}" alt="">'
        f"<strong>{escape(tally.photograph.name)}</strong><span>{found}</span>"
        f"<span>{said}</span></button></li>"
    )


def changes_table(changes: list[tuple[str, str, str, str]]) -> str:
    """Boxes before and after maps were replaced."""
    if not changes:
        return empty("No box is over the threshold.", small=True)
    heads = ("Class", "Score before", "Score after", "IoU of the two boxes")
    return _table("Boxes before and after", heads, _rows(changes))


def status(text: str, error: bool = False) -> str:
    """One line under the photo; an error is announced to screen readers at once."""
    kind = ' als-error" role="alert"' if error else '" role="status"'
    return f'<p class="als-status{kind}>{escape(text)}</p>' if text else ""


def example_link(query: str) -> str:
    """A link to the page as it is; nothing where there is none."""
    text = "Link to this example with these settings"
    return f'<p class="als-status"><a href="{escape(query)}">{text}</a></p>' if query else ""


def model_line(predictor: Predictor | None) -> str:
    """The checkpoint, its kind, its data and figures in a line, and all that it says of itself."""
    if predictor is None:
        return ""
    config, info = predictor.detector.config, predictor.info
    form = FORMS[config.attention_form]
    attention = f"with attention {form.equation}" if config.attention else "without attention"
    branches = "separate branches" if config.separation else "one shared branch"
    kind = f"{config.backbone}, {attention}, {branches}. Classes: {', '.join(config.classes)}."
    said = _data_and_figures(info) or "It says nothing of its data or its figures."
    record = json.dumps(info, indent=2, default=str, ensure_ascii=False)
    return (
        f'<div class="als-model"><details><summary><strong>{escape(predictor.source)}</strong> '
        f"{escape(kind)} <u>Its record</u></summary><pre>{escape(record)}</pre></details>"
        f"<p>{escape(said)}</p></div>"
    )


def _data_and_figures(info: dict) -> str:
    """What training (`data`) and `als ship` (`figures`) wrote into a checkpoint."""
    data, figures, said = info.get("data"), info.get("figures"), []
    if isinstance(data, dict) and data.get("train"):
        said.append(f"Trained on {data['train']}.")
    if isinstance(figures, dict) and figures:
        where = f"On {figures['data']}" if figures.get("data") else "Figures"
        values = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "data")
        said.append(f"{where}: {values}.")
    return " ".join(said)
