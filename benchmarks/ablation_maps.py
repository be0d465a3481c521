"""Both attention maps of several trainings on the same photographs, side by side."""

from argparse import ArgumentParser
from itertools import chain
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import als
from als.drawing import Look, overlay, to_display
from als.errors import InputError
from als.images import as_rgb
from als.photographs import package_photographs
from als.tables.rows import CHOICES, TABLES

PHOTOGRAPHS = 2  # of scikit-image
LOOK = Look(opacity=0.75, rule="raw 0 to 1")


def title_of(run: str) -> str:
    """What the tables call the row of a run KEY-seedN; the run itself if no row is called so."""
    key, _, seed = run.rpartition("-seed")
    rows = chain.from_iterable((*CHOICES.values(), *TABLES.values()))
    return next((f"{row.title}, seed {seed}" for row in rows if row.key == key), run)


def maps_of(runs: list[Path]) -> Figure:
    """A column a run; of each photograph a row for A_loc and one for A_cls.

    Raises InputError for a run without a whole checkpoint, or of a model without attention.
    """
    photos = package_photographs()[:PHOTOGRAPHS]
    figure = Figure(figsize=(2.5 * len(runs) + 0.6, 4.3 * len(photos)), layout="constrained")
    axes = figure.subplots(2 * len(photos), len(runs), squeeze=False)
    for column, run in zip(axes.T, runs, strict=True):
        predictor = als.load(run / "model.safetensors")
        if not predictor.detector.config.attention:
            raise InputError(f"{run}: its model has no attention maps; leave it out.")
        column[0].set_title(fill(title_of(run.name), 30), fontsize=10)
        found = [predictor.predict(photo) for photo in photos]
        maps = [m for one in found for m in (one.localization_map, one.classification_map)]
        for axis, values, photo in zip(column, maps, np.repeat(photos, 2), strict=True):
            low, high = np.percentile(values, [5, 95])
            axis.imshow(overlay(to_display(as_rgb(photo)), values, LOOK))
            told = f"mean {values.mean():.2f}, 5 to 95%: {low:.2f} to {high:.2f}"
            axis.set_xlabel(told, fontsize=8)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    scale = ScalarMappable(Normalize(0, 1), LOOK.colour_map)
    figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0.01)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(("localization map", "classification map")[row % 2])
    return figure


def ablation_maps(arguments: list[str]) -> None:
    """Draw the maps of trainings (folders of `als train` or `als reproduce`) side by side."""
    parser = ArgumentParser("python -m benchmarks ablation_maps", description=ablation_maps.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trainings with attention")
    parser.add_argument("--out", type=Path, required=True, help="a .png file")
    given = parser.parse_args(arguments)
    maps_of(given.runs).savefig(given.out, dpi=100)
    print(given.out)
