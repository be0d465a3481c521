"""Pictures of a study: intervals of every measure, means per class, interventions."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from als.explain.registry import EXPLAINERS
from als.files import atomic_write
from als.study.measures import MEASURES

# Okabe and Ito's palette: told apart with any colour vision.
ATTENTION, GRADIENT, BASELINE = "#D55E00", "#0072B2", "#777777"
ARROWS = {"higher": "→ better", "lower": "← better", "": ""}
COLUMNS = 4
CHANCE = {"peak_on_head": "peak_on_head_chance"}  # drawn as a line in the other's panel


def colour_of(map: str) -> str:
    """Attention, explainers of the network and maps that learnt nothing have one colour each."""
    kind = EXPLAINERS[map]
    if kind.needs_attention:
        return ATTENTION
    return GRADIENT if kind.learnt and kind.per_object else BASELINE


def forest(summary: dict) -> Figure:
    """A panel a measure, a row a map: mean and 95% interval. `summary` as of `summarise`."""
    measures = [m for m in MEASURES if any(m in values for values in summary.values())]
    measures = [m for m in measures if m not in CHANCE.values()]
    rows = -(-len(measures) // COLUMNS)
    figure = Figure(figsize=(13, 0.6 + rows * (0.75 + 0.21 * len(summary))), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    for axis, measure in zip(axes, measures, strict=False):
        _forest_panel(axis, measure, summary)
    for axis in axes[len(measures) :]:
        axis.set_visible(False)
    return figure


def _forest_panel(axis: Axes, measure: str, summary: dict) -> None:
    for y, (map, values) in enumerate(summary.items()):
        value = values.get(measure)
        if value is None or value["mean"] is None or not np.isfinite(value["mean"]):
            continue
        reach = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
        axis.errorbar(value["mean"], y, xerr=reach, fmt="o", ms=4.5, color=colour_of(map))
    by_chance = summary.get("uniform", {}).get(CHANCE.get(measure), {}).get("mean")
    if by_chance is not None and np.isfinite(by_chance):
        axis.axvline(by_chance, color="black", lw=0.8, ls=":")
    axis.set_yticks(range(len(summary)), [EXPLAINERS[map].title for map in summary], fontsize=8)
    axis.set_ylim(len(summary) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    chosen = MEASURES[measure]
    axis.set_title(f"{chosen.title}  {ARROWS[chosen.better]}".strip(), fontsize=9, loc="left")


def class_table(per_class: pd.DataFrame, measures: list[str]) -> Figure:
    """Means of some measures for each map (row) and class (column), as numbers on colours.

    A measure that no object has a value for is left out.
    """
    has_value = set(per_class["measure"][per_class["mean"].notna()])
    measures = [measure for measure in measures if measure in has_value]
    figure = Figure(figsize=(4.2 + 2.6 * len(measures), 5.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(measures)), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=False):
        chosen = per_class[per_class["measure"] == measure]
        table = chosen.pivot(index="map", columns="class", values="mean")
        table = table.loc[[map for map in EXPLAINERS if map in table.index]]
        axis.imshow(table.to_numpy(), cmap="viridis", aspect="auto")
        low, high = np.nanmin(table.to_numpy()), np.nanmax(table.to_numpy())
        for (y, x), value in np.ndenumerate(table.to_numpy()):
            dark = value < (low + high) / 2
            axis.text(
                x, y, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center",
                fontsize=7.5, color="white" if dark else "black",
            )  # fmt: skip
        axis.set_xticks(range(len(table.columns)), table.columns, fontsize=8, rotation=45)
        axis.set_yticks(
            range(len(table)), [EXPLAINERS[map].title for map in table.index], fontsize=8
        )
        axis.set_title(MEASURES[measure].title, fontsize=9)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    return figure


def intervention_figure(table: list[dict]) -> Figure:
    """What each replacement changed: a panel a measure, paired differences with intervals."""
    titles = {
        "AP50": "AP50  → better",
        "AP75": "AP75  → better",
        "proposal_recall": "Proposal recall  → better",
        "class_error": "Class error at true boxes  ← better",
        "box_error": "Box error, 1 - IoU  ← better",
    }
    rows = [row for row in table if row["map"]]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, len(titles), sharey=True)
    short = {"localization": "A_loc", "classification": "A_cls", "both": "both"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for y, row in enumerate(rows):
            value = row[name]
            reach = [
                [value["change"] - value["change_low"]],
                [value["change_high"] - value["change"]],
            ]
            colour = {"localization": ATTENTION, "classification": GRADIENT}.get(
                row["map"], BASELINE
            )
            axis.errorbar(value["change"], y, xerr=reach, fmt="o", ms=4.5, color=colour)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    names = [f"{short[row['map']]} := {row['by']}" for row in rows]
    axes[0].set_yticks(range(len(rows)), names, fontsize=9)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel("change against the untouched maps, 95% interval", fontsize=9)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=110, facecolor="white")
