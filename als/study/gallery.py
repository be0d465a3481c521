"""Photographs with their maps, best, median and worst by a measure: for the output folder only."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from als.data.record import Record
from als.explain.registry import EXPLAINERS, make_maps
from als.inference import Predictor
from als.study.figures import save
from als.study.measures import MEASURES
from als.study.run import ImageStudy

EACH = 3  # best, median and worst cases


def chosen_cases(rows: pd.DataFrame, map: str, measure: str) -> dict[str, pd.DataFrame]:
    """ "best", "median", "worst" -> rows of the objects that come first in each."""
    rows = rows[(rows["map"] == map) & (rows["measure"] == measure)].dropna(subset="value")
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
    records: list[Record],
    rows: pd.DataFrame,
    maps: list[str],
    measure: str,
    out: Path,
) -> list[Path]:
    """One picture for each map: a row a case (best, median, worst), its photograph and all maps.

    Maps are shown from their lowest to their highest value. Git ignores the folder, wherever it
    is: the photographs are not ours to commit.

    Args:
        records: of all photographs in `rows`.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / ".gitignore").write_text("*\n")
    by_id = {record.image_id: record for record in records}
    written = []
    for map in maps:
        cases = chosen_cases(rows, map, measure)
        if not sum(len(some) for some in cases.values()):
            continue
        path = Path(out) / f"{map}-{measure}.png"
        save(_picture(predictor, by_id, cases, maps, map), path)
        written.append(path)
    return written


def _picture(predictor, by_id, cases: dict[str, pd.DataFrame], maps: list[str], map: str) -> Figure:
    lines = [(kind, row) for kind, some in cases.items() for row in some.itertuples()]
    figure = Figure(figsize=(2.2 * (len(maps) + 1), 1.9 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), len(maps) + 1, squeeze=False)
    for line, (kind, row) in zip(axes, lines, strict=True):
        study = ImageStudy(predictor, by_id[row.image_id], {}, {}, 0, 0)
        index = [case.index for case in study.seen].index(row.object)
        box = study.scene.boxes[index]
        photo = np.asarray(study.image)
        line[0].imshow(photo)
        line[0].set_ylabel(f"{kind}\n{row.value:.2f}", fontsize=8)
        for axis, name in zip(line[1:], maps, strict=True):
            axis.imshow(photo.mean(-1), cmap="gray")
            axis.imshow(make_maps(name, study.scene)[index], cmap="viridis", alpha=0.65)
        for axis in line:
            size = (box[2] - box[0], box[3] - box[1])
            axis.add_patch(Rectangle(box[:2], *size, fill=False, color="white", lw=1.2))
            axis.set_xticks([]), axis.set_yticks([])
    for axis, name in zip(axes[0, 1:], maps, strict=True):
        weight = "bold" if name == map else "normal"
        axis.set_title(EXPLAINERS[name].title, fontsize=7.5, weight=weight, wrap=True)
    return figure
