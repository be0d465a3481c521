"""The tables as charts, and the paper's Figs. 1 and 3: detections and both maps of photographs.

Colours are Okabe and Ito's, told apart with any colour vision; shapes differ as well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import ImageOps

from als.drawing import RULES, Look, draw_detections, overlay, to_display, value_range
from als.errors import InputError
from als.images import as_rgb
from als.inference import Prediction, Predictor
from als.tables.measured import (
    ABSENT,
    MEASURES,
    NOT_RUN,
    bootstrapped,
    frame,
    per_class,
    published_step,
    records_of,
)
from als.tables.rows import ROWS, SCALES, TABLES, Scale

LOOKS = {
    "paper": ("paper", "#777777", "s"),
    "full": ("measured, full scale", "#0072B2", "o"),
    "compact": ("measured, compact models", "#D55E00", "D"),
}
# A panel each: compact models have other images and a smaller network, so they do not compare.
SETTINGS = {"the paper's setting": ("paper", "full"), "compact models": ("compact",)}
LEAST_RANGE = 4  # percentage points that an axis of a table's figures spans, at the least
ROW_COLOURS = ("#777777", "#56B4E9", "#E69F00", "#D55E00", "#0072B2", "#009E73")
ROW_COLOURS += ("#CC79A7", "#F0E442")  # as many as a table has rows that are run
SHAPES = "osD^vPX*"
WIDE = 20  # percentage points: beyond, an axis of differences is logarithmic but around 0
CURVES = {
    "loss": ("all terms", "black"),
    "loss_rpn": ("region proposals", "#0072B2"),
    "loss_cls": ("classification", "#D55E00"),
    "loss_loc": ("localization", "#009E73"),
    "loss_att": ("attention on objects", "#CC79A7"),
}
SIDE = 360  # pixels; 'all the figures are resized to the same size', says the paper of its Fig. 3
PANELS = ("Detections", "Localization map", "Classification map")


def per_class_chart(table: str, results: Path, row: str = "proposed") -> Figure:
    """AP50 (11 points) per class of one row of table 1; lines are the spread over seeds."""
    cells = frame(table, results)
    cells = cells[(cells["key"] == row) & (cells["column"] != "mAP")]
    title = f"{cells['title'].iloc[0]}: average precision of each class"
    return _columns_charts({title: cells}, "AP50, percent", (11, 6))


def size_chart(results: Path) -> Figure:
    """Table 3's AP of small, medium and large objects, row by row."""
    words = {"AP": "all", "AP50": "all, AP50", "APS": "small", "APM": "medium", "APL": "large"}
    cells = frame("table3", results).replace({"column": words})
    parts = dict(list(cells.groupby("title", sort=False)))
    return _columns_charts(parts, "AP, percent", (11, 5.4))


def _columns_charts(
    parts: Mapping[str, pd.DataFrame], label: str, size: tuple[float, float]
) -> Figure:
    """A column of panels for each title -> cells of a `frame`, a place a column of the table."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(SETTINGS), len(parts), sharex="col", sharey="row", squeeze=False)
    for of_setting, (setting, sources) in zip(axes, SETTINGS.items(), strict=True):
        for axis, cells in zip(of_setting, parts.values(), strict=True):
            _panel(axis, cells, sources, upright=True)
            axis.set_xticks(range(len(cells)), cells["column"], rotation=45, ha="right")
        if not np.isfinite([cells[[*sources]] for cells in parts.values()]).any():
            of_setting[0].set_yticks([])  # of all, since they share them
        of_setting[0].set_ylabel(f"{label},\n{setting}")
    for axis, title in zip(axes[0], parts, strict=True):
        axis.set_title(title.replace(", ", ",\n"), fontsize=10, loc="left")
    # Of the panel with most that was run: the paper's own rows have no measured figure.
    fullest = [min(row, key=_emptiness) for row in axes]
    handles = [one for axis in fullest for one in axis.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _emptiness(axis: Axes) -> int:
    """How much is missing: what there is nothing of is worse than what was not run."""
    labels = axis.get_legend_handles_labels()[1]
    return sum((NOT_RUN in label) + 2 * label.endswith(ABSENT) for label in labels)


def paper_against_measured(table: str, results: Path, column: str = "mAP") -> Figure:
    """The rows of a table, one column of it: a mark a source, lines the spread over seeds."""
    cells = frame(table, results)
    cells = cells[cells["column"] == column]
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(cells)), layout="constrained")
    axes = figure.subplots(1, len(SETTINGS), sharey=True)
    for axis, (setting, sources) in zip(axes, SETTINGS.items(), strict=True):
        _panel(axis, cells, sources, upright=False)
        axis.set_title(setting, fontsize=10, loc="left")
        axis.set_xlabel(f"{column}, percent")
        low, high = axis.get_xlim()
        wider = max(0, LEAST_RANGE - (high - low)) / 2  # a chance difference must not fill it
        axis.set_xlim(low - wider, high + wider)
    axes[0].set_yticks(range(len(cells)), cells["title"])
    axes[0].set_ylim(len(cells) - 0.5, -0.5)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def rows_per_class(table: str, results: Path, class_name: str | None = None) -> Figure:
    """VOC's AP50 (11 points) of every row, class by class; lines are the spread over seeds.

    A panel for each scale of which a row was run. class_name: this class alone.
    """
    panels = []
    for scale in SCALES:
        rows = [row for row in TABLES[table] if row.run(scale)]
        found = {row.title: per_class(row, results, scale) for row in rows}
        if class_name is not None:
            found = {row: values[values.index == class_name] for row, values in found.items()}
        if any(map(len, found.values())):
            panels.append((found, f"Each class, {LOOKS[scale][0]}"))
    if not panels:
        return _empty(f"each class: {NOT_RUN}")
    figure = Figure(figsize=(11, 4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (found, title) in zip(axes, panels, strict=True):
        _dots(axis, found, title)
    return figure


def classes_measured(table: str, results: Path) -> list[str]:
    """Those that `rows_per_class` can show."""
    rows = [per_class(row, results, scale) for row in TABLES[table] for scale in SCALES]
    return list(dict.fromkeys(name for of_row in rows for name in of_row.index))


def _dots(axis: Axes, found: Mapping[str, pd.DataFrame], title: str) -> None:
    """found: row -> its `per_class`."""
    classes = next(of_row.index for of_row in found.values() if len(of_row))
    for place, (row, of_row) in enumerate(found.items()):
        values = of_row.reindex(classes)
        axis.errorbar(
            np.arange(len(classes)) + (place - (len(found) - 1) / 2) * 0.7 / len(found),
            values["mean"],
            yerr=values["std"].fillna(0),
            label=row if len(of_row) else f"{row}: {NOT_RUN}",
            color=ROW_COLOURS[place],
            fmt=SHAPES[place],
        )
    turned = {"rotation": 45, "ha": "right"} if len(classes) > 10 else {}
    axis.set_xticks(range(len(classes)), classes, **turned)
    for between in range(1, len(classes)):
        axis.axvline(between - 0.5, color="#dddddd", lw=0.8)
    axis.set_ylabel("AP50 by 11 points (VOC's), percent")
    axis.set_title(title, loc="left")
    _tidy(axis, "y")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))


def training_curves(table: str, results: Path, seed: int | None = None) -> Figure:
    """The losses of the proposed row's stages, at full scale where it was run, else compact.

    seed: None takes the first.
    """
    found = [one for one in _curves_found(table, results).items() if seed in (None, one[0][1])]
    if not found:
        return _empty(f"training curves: {NOT_RUN}")
    (scale, number), stages = found[0]
    figure = Figure(figsize=(5.5 * len(stages), 3.8), layout="constrained")
    for axis, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        curve = stage["curve"]
        for loss, (name, colour) in CURVES.items():
            if loss in curve:
                axis.plot(curve["step"], curve[loss], color=colour, label=name)
        config = Path(stage["config_file"]).stem
        axis.set_title(f"{config} ({scale}, seed {number})", fontsize=10, loc="left")
        axis.set(xlabel="step", ylabel="loss", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        _tidy(axis, "y")
    lines = {line.get_label(): line for axis in figure.axes for line in axis.get_lines()}
    where = {"loc": "outside lower center", "ncols": len(lines), "frameon": False}
    figure.legend(lines.values(), lines, **where)
    return figure


def seeds_with_curves(table: str, results: Path) -> list[int]:
    """Those that `training_curves` can show."""
    return sorted({seed for _, seed in _curves_found(table, results)})


def _curves_found(table: str, results: Path) -> dict[tuple[Scale, int], list[dict]]:
    """(scale, seed) -> the stages of the proposed row whose record holds the losses."""
    proposed = next(row for row in TABLES[table] if row.key == "proposed")
    found = {}
    for scale in SCALES:
        for seed, record in records_of(proposed.run(scale), results).items():
            stages = [stage for stage in record.get("stages", []) if stage.get("curve")]
            if stages:
                found[scale, seed] = stages
    return found


def steps_chart(table: str, results: Path, scale: Scale = "compact") -> Figure:
    """The bootstrap's steps of a table or of the variants: a panel a measure, percentage points.

    Mean difference with its 95% interval over the images; small strokes are the seeds. Beyond 20
    points the axis is logarithmic, so that rows that lie near each other stay apart.
    """
    found = bootstrapped(table, scale, results)
    if not found:
        return _empty(f"steps against chance: {NOT_RUN}")
    figure = Figure(figsize=(12, 1.5 + 0.42 * len(found)), layout="constrained")
    axes = figure.subplots(1, len(MEASURES), sharey=True)
    for axis, (measure, name) in zip(axes, MEASURES.items(), strict=True):
        for place, step in enumerate(found.values()):
            _step(axis, place, step[measure])
        axis.axvline(0, color="black", lw=0.8)
        low, high = axis.get_xlim()
        if max(-low, high) > WIDE:
            axis.set_xscale("symlog", linthresh=5)
            axis.set_xlim(min(1.2 * low, -5), max(1.2 * high, 5))
            ticks = [tick for tick in (-50, -20, -5, 0, 5, 20, 50) if low <= tick <= high]
            axis.set_xticks(ticks, map(str, ticks))
        axis.set_title(name, fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        _tidy(axis, "x")
    titles = {row.key: row.title for row in ROWS[table]}
    names = [f"{titles[first]} →\n{titles[second]}" for first, second in found]
    axes[0].set_yticks(range(len(found)), names)
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    printed = [published_step(table, *pair) for pair in found] if table in TABLES else []
    if np.isfinite(np.array(printed, float)).any():
        axes[0].plot(printed, range(len(found)), "s", mfc="none", color="black", label="paper")
        figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    figure.supxlabel(
        "difference, percentage points; blue above 0 for other photographs too, orange below, grey "
        "where these cannot tell",
        fontsize=9,
    )
    return figure


def _step(axis: Axes, place: int, step: dict) -> None:
    value, low, high = (100 * step[name] for name in ("difference", "low", "high"))
    colour = "#D55E00" if high < 0 else "#0072B2" if low > 0 else "#777777"
    axis.hlines(place, low, high, colors=colour)  # which need not hold the value
    axis.plot(value, place, "o", color=colour, ms=6)
    seeds = [100 * one for one in step["per_seed"].values()]
    axis.plot(seeds, [place + 0.25] * len(seeds), "|", color=colour, ms=7)


def _empty(told: str) -> Figure:
    figure = Figure(figsize=(9, 1.2), layout="constrained")
    axis = figure.subplots()  # a figure without axes is not shown in a notebook
    axis.set_axis_off()
    axis.text(0.5, 0.5, told, ha="center", va="center", fontsize=12)
    return figure


def _panel(axis: Axes, cells: pd.DataFrame, sources: Sequence[str], upright: bool) -> None:
    for source in sources:
        _points(axis, cells, source, upright)
    _tidy(axis, "y" if upright else "x")
    empty = cells[list(sources)].isna().all(axis=1)
    due = cells[[f"{source}_due" for source in sources if source != "paper"]].any(axis=1)
    if empty.all():
        told = NOT_RUN if due.any() else ABSENT
        axis.text(0.5, 0.5, told, transform=axis.transAxes, ha="center", va="center")
        if not upright:
            axis.set_xticks([])
    elif not upright:
        beside = {"transform": axis.get_yaxis_transform(), "va": "center", "color": "#777777"}
        for place in np.flatnonzero(empty):
            axis.text(0.02, place, NOT_RUN if due.iloc[place] else ABSENT, **beside)


def _points(axis: Axes, cells: pd.DataFrame, source: str, upright: bool) -> None:
    """Means of a source; where nothing was run only the legend says so."""
    name, colour, shape = LOOKS[source]
    values = cells[source].to_numpy(float)
    if not np.isfinite(values).any():
        due = source != "paper" and cells[f"{source}_due"].any()
        name = f"{name}: {NOT_RUN if due else ABSENT}"
    places = np.arange(len(values))
    spread = None if source == "paper" else np.nan_to_num(cells[f"{source}_spread"].to_numpy())
    x, y = (places, values) if upright else (values, places)
    lines = {"yerr" if upright else "xerr": spread}
    axis.errorbar(x, y, **lines, fmt=shape, color=colour, label=name, ms=6)


def _tidy(axis: Axes, along: str) -> None:
    axis.grid(axis=along, alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def attention_figure(
    predictors: Sequence[Predictor],
    images: Sequence,
    score_threshold: float = 0.5,
    look: Look | None = None,
) -> Figure:
    """A column an image; of each model a row for the detections and each map, values below.

    Args:
        images: paths, PIL images or arrays, as `Predictor.predict` takes them.
        look: how maps are shown; None is opaque enough to read colours off, from 0 to 1.

    Raises:
        InputError: no image, one that cannot be read, or a model without attention.
    """
    if not len(images):
        raise InputError("no image to show; give at least one.")
    look = look or Look(opacity=0.75, rule=RULES[0])
    size = 2.6 * len(images) + 0.9, 8.4 * len(predictors)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(PANELS) * len(predictors), len(images), squeeze=False)
    for predictor, axes in zip(predictors, np.split(rows, len(predictors)), strict=True):
        if not predictor.detector.config.attention:
            raise InputError(f"{predictor.source}: has no attention maps to show.")
        for column, image in zip(axes.T, images, strict=True):
            prediction = predictor.predict(image, score_threshold=score_threshold)
            _draw_column(column, as_rgb(image), prediction, look)
        for axis, name in zip(axes[:, 0], PANELS, strict=True):
            of_model = f"{predictor.source}\n" if len(predictors) > 1 else ""
            axis.set_ylabel(of_model + name, fontsize=11)
    return figure


def _draw_column(column: Sequence[Axes], photo, prediction: Prediction, look: Look) -> None:
    shown = to_display(photo)
    pictures = [draw_detections(shown, prediction)]
    notes = [f"{len(prediction.boxes)} found"]
    for heat_map in (prediction.localization_map, prediction.classification_map):
        pictures.append(overlay(shown, heat_map, look))
        low, high = np.percentile(heat_map, [5, 95])
        notes.append(f"mean {heat_map.mean():.2f}, 5 to 95%: {low:.2f} to {high:.2f}")
        if look.rule != RULES[0]:
            notes[-1] += "\ncolours: {:.2f} to {:.2f}".format(*value_range(heat_map, look.rule))
    for axis, picture, note in zip(column, pictures, notes, strict=True):
        axis.imshow(ImageOps.pad(picture, (SIDE, SIDE), color="white"))
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(note, fontsize=8)
        axis.spines[:].set_visible(False)
