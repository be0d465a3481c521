"""Pictures of a study: intervals, means per class, interventions, and photographs with maps."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from als.data.record import Record
from als.explain.registry import EXPLAINERS, Scene, make_maps
from als.files import atomic_write
from als.images import as_rgb
from als.inference import Predictor
from als.study.cases import StudiedPhoto
from als.study.measures import MEASURES

# Okabe and Ito's palette: told apart with any colour vision.
ATTENTION, GRADIENT, BASELINE = "#D55E00", "#0072B2", "#777777"
ARROWS = {"higher": "→\N{NO-BREAK SPACE}better", "lower": "←\N{NO-BREAK SPACE}better", "": ""}
COLUMNS = 4
TITLE_WIDTH = 34  # letters of a line above one of them
CHANCE = {"peak_on_head": "peak_on_head_chance"}  # drawn as a line in the other's panel
EACH = 3  # best, median and worst cases of a gallery
REPLACED = {"localization": "A_loc", "classification": "A_cls", "both": "both"}
BY = {
    "neutral": "neutral",
    "mean": "its mean",
    "other": "the other map",
    "another image": "another photograph's",
    "mask": "the true mask",
}
CHANGES = {
    "AP50": "AP50  → better",
    "AP75": "AP75  → better",
    "proposal_recall": "Proposal recall  → better",
    "class_error": "Class error at true boxes  ← better",
    "box_error": "Box error, 1 - IoU  ← better",
}


def title_of(name: str) -> str:
    """A map's title; a record may hold "gradcam_F_softmax", which explains another scalar than
    its explainer does by itself, or a map whose explainer is gone."""
    if name in EXPLAINERS:
        return EXPLAINERS[name].title
    base = EXPLAINERS.get(name.removesuffix("_softmax"))
    return base.title.replace("class logit", "softmax score") if base else name.replace("_", " ")


def colour_of(name: str) -> str:
    """Attention, explainers of the network and maps that learnt nothing have one colour each."""
    kind = EXPLAINERS.get(name)
    if kind is None:
        return GRADIENT
    if kind.needs_attention:
        return ATTENTION
    return GRADIENT if kind.learnt and kind.per_object else BASELINE


def forest(summary: dict) -> Figure:
    """A panel a measure, a row a map: mean and 95% interval. `summary` as of `summarise`."""
    measures = [m for m in MEASURES if any(m in values for values in summary.values())]
    beside = {CHANCE.get(m) for m in measures}
    measures = [m for m in measures if m not in beside]
    rows = max(1, -(-len(measures) // COLUMNS))
    figure = Figure(figsize=(13, 0.6 + rows * (0.75 + 0.21 * len(summary))), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    for axis, measure in zip(axes, measures, strict=False):
        for y, (name, values) in enumerate(summary.items()):
            value = values.get(measure, {})
            _interval(axis, y, colour_of(name), *map(value.get, ("mean", "low", "high")))
        by_chance = summary.get("uniform", {}).get(CHANCE.get(measure), {}).get("mean")
        if by_chance is not None and np.isfinite(by_chance):
            axis.axvline(by_chance, color="black", lw=0.8, ls=":")
        shown = MEASURES[measure]
        title = fill(f"{shown.title}  {ARROWS[shown.better]}".strip(), TITLE_WIDTH)
        _finish(axis, title, map(title_of, summary))
    for axis in axes[len(measures) :]:
        axis.set_visible(False)
    return figure


def class_table(per_class: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Means of some measures for each map (row) and class (column), as numbers on colours.

    A measure that no object has a value for is left out.
    """
    has_value = set(per_class["measure"][per_class["mean"].notna()])
    measures = [measure for measure in measures if measure in has_value]
    # The same rows in all panels, which share their names.
    maps = per_class.loc[per_class["measure"].isin(measures), "map"].unique()
    figure = Figure(figsize=(4.2 + 2.6 * len(measures), 5.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(measures)), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=False):
        shown = per_class[per_class["measure"] == measure]
        table = shown.pivot(index="map", columns="class", values="mean").reindex(maps)
        values = table.to_numpy()
        axis.imshow(values, cmap="viridis", aspect="auto")
        low, high = np.nanmin(values), np.nanmax(values)
        for (y, x), value in np.ndenumerate(values):
            dark = value < low + 0.65 * (high - low)
            axis.text(
                x, y, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center",
                fontsize=7.5, color="white" if dark else "black",
            )  # fmt: skip
        axis.set_xticks(range(len(table.columns)), table.columns, fontsize=8, rotation=45)
        axis.set_yticks(range(len(table)), map(title_of, table.index), fontsize=8)
        axis.set_title(MEASURES[measure].title, fontsize=9)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    return figure


def intervention_figure(table: list[dict]) -> Figure:
    """What each replacement changed: a panel a measure, paired differences with intervals."""
    rows = [row for row in table if row["map"]]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, len(CHANGES), sharey=True)
    names = [f"{REPLACED[row['map']]}: {BY[row['by']]}" for row in rows]
    colours = {"localization": ATTENTION, "classification": GRADIENT}
    for axis, (name, title) in zip(axes, CHANGES.items(), strict=True):
        for y, row in enumerate(rows):
            change = map(row[name].get, ("change", "change_low", "change_high"))
            _interval(axis, y, colours.get(row["map"], BASELINE), *change)
        axis.axvline(0, color="black", lw=0.8)
        _finish(axis, title, names)
    figure.supxlabel("change against the untouched maps, 95% interval", fontsize=9)
    return figure


def _interval(axis: Axes, y: int, colour: str, mean, low, high) -> None:
    if mean is not None and np.isfinite(mean):
        axis.hlines(y, low, high, colors=colour)  # which need not hold the mean
        axis.plot(mean, y, "o", ms=4.5, color=colour)


def _finish(axis: Axes, title: str, rows) -> None:
    """The panel's title, and a name for each of its rows, the first on top."""
    rows = list(rows)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=110, facecolor="white")


def chosen_cases(rows: pd.DataFrame, name: str, measure: str) -> dict[str, pd.DataFrame]:
    """ "best", "median", "worst" -> rows of the objects that come first in each."""
    rows = rows[(rows["map"] == name) & (rows["measure"] == measure)].dropna(subset="value")
    rows = rows.sort_values(
        ["value", "image_id", "object"], ascending=[MEASURES[measure].better == "lower", True, True]
    )
    middle = max(0, len(rows) // 2 - EACH // 2)
    return {
        "best": rows.head(EACH),
        "median": rows.iloc[middle : middle + EACH],
        "worst": rows.iloc[::-1].head(EACH),
    }


def write_gallery(
    predictor: Predictor,
    records: Sequence[Record],
    rows: pd.DataFrame,
    maps: Sequence[str],
    measure: str,
    out: Path,
    seed: int,
    drise_masks: int,
) -> None:
    """One picture for each map: a row a case (best, median, worst), its photograph and all maps.

    Git ignores the folder, wherever it is: the photographs are not ours to commit.

    Args:
        records: of all photographs in `rows`. seed, drise_masks: as they were measured.
    """
    with atomic_write(Path(out) / ".gitignore") as aside:
        aside.write_text("*\n")
    by_id = {record.image_id: record for record in records}
    for name in maps:
        cases = chosen_cases(rows, name, measure)
        lines = [(kind, row) for kind, some in cases.items() for row in some.itertuples()]
        if not lines:
            continue
        size = 2.2 * (len(maps) + 1), 1.9 * len(lines)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(lines), len(maps) + 1, squeeze=False)
        for line, (kind, row) in zip(axes, lines, strict=True):
            record = by_id[row.image_id]
            photo = StudiedPhoto(predictor, record, seed=seed, drise_masks=drise_masks)
            index = [case.index for case in photo.seen].index(row.object)
            _draw_maps(line, photo.image, photo.scene, index, maps)
            line[0].set_ylabel(f"{kind}\n{row.value:.2f}", fontsize=8)
        for axis, shown in zip(axes[0, 1:], maps, strict=True):
            weight = "bold" if shown == name else "normal"
            axis.set_title(title_of(shown), fontsize=7.5, weight=weight, wrap=True)
        save(figure, Path(out) / f"{name}-{measure}.png")


def map_row(predictor: Predictor, image, maps: Sequence[str], detection: int = 0) -> Figure:
    """The photograph with one detection, then each map: for notebooks. Where nothing is detected,
    the photograph alone, which says so.

    Args:
        image: as `Predictor.predict` takes it. maps: names of `EXPLAINERS`.
        detection: row of the prediction, 0 for the highest score.

    Raises:
        InputError: there is no such detection, or a map is unknown.
    """
    photo = as_rgb(image)
    analysis = predictor.analyse(photo)
    found = analysis.prediction
    panels = 1 + len(maps) * bool(len(found.boxes))
    size = (2.3 * panels, 2.3 * photo.height / photo.width + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if not len(found.boxes):
        axes[0].imshow(photo)
        axes[0].set_title("nothing is detected", fontsize=9)
        axes[0].set(xticks=[], yticks=[])
        return figure
    _draw_maps(axes, photo, predictor.scene(analysis, [detection]), 0, maps)
    axes[0].set_title(f"{found.names[detection]} {found.scores[detection]:.2f}", fontsize=9)
    for axis, name in zip(axes[1:], maps, strict=True):
        axis.set_title(title_of(name).replace(", ", "\n"), fontsize=8)
    return figure


def _draw_maps(
    axes: Sequence[Axes], photo: Image.Image, scene: Scene, index: int, maps: Sequence[str]
) -> None:
    """The photograph, and its maps of one detection, each from its lowest to its highest value."""
    x1, y1, x2, y2 = scene.boxes[index]
    axes[0].imshow(photo)
    for axis, name in zip(axes[1:], maps, strict=True):
        axis.imshow(np.asarray(photo.convert("L")), cmap="gray")
        values = make_maps(name, scene)[index]
        axis.imshow(values, cmap="viridis", alpha=0.7)
        axis.set_xlabel(f"{values.min():.2g} to {values.max():.2g}", fontsize=8)
    for axis in axes:
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=1.5))
        axis.set(xticks=[], yticks=[])
