"""The training curve that a record keeps of `metrics.csv`."""

from pathlib import Path

import pandas as pd

POINTS = 60
LOSSES = ("loss", "loss_rpn", "loss_cls", "loss_loc", "loss_att")


def read_curve(path: Path) -> dict[str, list[float]] | None:
    """step and losses of a run, each the mean of a stretch of steps, at most POINTS of them.

    None where the file is missing; a loss that the run has not is left out.
    """
    if not path.is_file():
        return None
    rows = pd.read_csv(path)
    losses = [name for name in LOSSES if name in rows]
    rows = rows.dropna(subset=losses[:1])[["step", *losses]]
    stretch = -(-len(rows) // POINTS) or 1
    means = rows.groupby(lambda row: rows.index.get_loc(row) // stretch).mean()
    return {name: [round(value, 5) for value in means[name].tolist()] for name in means}
