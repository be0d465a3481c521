"""Both attention maps of several trainings on the same photographs, side by side.

    python -m benchmarks.ablation_maps runs/table2-compact/proposed-seed* --out maps.png

Each folder is one that `als train` or `als reproduce` wrote. Photographs come with scikit-image.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import als
from als.drawing import Look, overlay, to_display
from als.errors import InputError
from als.images import as_rgb
from als.inference import Prediction
from als.photographs import package_photographs

PHOTOGRAPHS = 2
LOOK = Look(opacity=0.75, rule="raw 0 to 1")


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
        column[0].set_title(run.name, fontsize=10)
        for row, photo in enumerate(photos):
            _draw(column[2 * row : 2 * row + 2], photo, predictor.predict(photo))
    scale = ScalarMappable(Normalize(0, 1), LOOK.colour_map)
    figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0.01)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(("localization map", "classification map")[row % 2])
    return figure


def _draw(column: list[Axes], photo: Path, found: Prediction) -> None:
    shown = to_display(as_rgb(photo))
    for axis, map in zip(column, (found.localization_map, found.classification_map), strict=True):
        low, high = np.percentile(map, [5, 95])
        axis.imshow(overlay(shown, map, LOOK))
        axis.set_xlabel(f"mean {map.mean():.2f}, 5 to 95%: {low:.2f} to {high:.2f}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)


def main(arguments: list[str] | None = None) -> None:
    """Draw the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trainings with attention")
    parser.add_argument("--out", type=Path, required=True, help="a .png file")
    given = parser.parse_args(arguments)
    try:
        figure = maps_of(given.runs)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    figure.savefig(given.out, dpi=100)
    print(given.out)


if __name__ == "__main__":
    main()
