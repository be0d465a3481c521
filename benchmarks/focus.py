"""AP against where the classification map looks, over the knob of a form of attention."""

from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from tqdm import tqdm

import als
from als.data.derived_masks import without_derived
from als.data.layouts import load_records
from als.data.record import fingerprint
from als.errors import InputError
from als.evaluation.evaluate import judge_by_id
from als.explain import EXPLAINERS
from als.files import atomic_write, read_json, write_json
from als.inference import Predictor
from als.study.cases import StudiedPhoto, keypoints_of
from als.study.study_rows import found_rows, measured_rows
from als.study.summary import found_share, summarise
from benchmarks.ablation_maps import title_of
from benchmarks.recording import made_with, options

# What the network multiplies a box's class feature by, the image's map of it, and what to hold
# them against.
MAPS = ("class_weights", "classification", "localization", "image_gaussian", "box_gaussian")
MEASURES = ("head_focus", "peak_on_head", "peak_on_head_chance")


def focus(arguments: list[str]) -> None:
    """Evaluate checkpoints and measure on which animals' heads their maps lie: choose on val."""
    parser = options(focus, "results/focus.json")
    kinds = "files RUN/model.safetensors, names, or records: of what has no map, or of this command"
    parser.add_argument("checkpoints", nargs="+", help=kinds)
    parser.add_argument("--data", required=True, help="FOLDER:SPLIT, with keypoints")
    parser.add_argument("--root", type=Path, default=Path("."))
    given = parser.parse_args(arguments)
    told: dict[str, dict] = {}
    for checkpoint in given.checkpoints:
        recorded = _recorded(Path(checkpoint)) if checkpoint.endswith(".json") else {}
        names = recorded.keys() or {Path(checkpoint).parent.name or checkpoint}
        if twice := told.keys() & names:
            raise InputError(f"{checkpoint}: another is called {twice.pop()} too; rename a folder.")
        told |= recorded or {
            name: _measured(als.load(checkpoint), given.data, given.root) for name in names
        }
        print({name: told[name] for name in names}, flush=True)
    if len({one["fingerprint"] for one in told.values()}) > 1:
        raise InputError("The checkpoints were measured on different photographs; draw them apart.")
    write_json(given.out, {"checkpoints": told})
    # No attention, or no animal that was found: what has no such maps is a line.
    with_maps = {name: one for name, one in told.items() if one["maps"].keys() >= DRAWN.keys()}
    if with_maps:
        with atomic_write(given.out.with_suffix(".png")) as aside:
            _draw(told, with_maps, aside)


def _measured(predictor: Predictor, spec: str, root: Path) -> dict:
    """AP, and where the maps lie, of the same detections."""
    records = without_derived(load_records(spec, root, predictor.classes))
    animals, rows, found = keypoints_of(records), [], {}
    maps = [name for name in MAPS if EXPLAINERS[name].goes_with(predictor.detector.config)]
    for record in tqdm(records, unit="image"):
        photo = StudiedPhoto(predictor, record, animals)
        rows += measured_rows(photo, dict.fromkeys(maps, MEASURES)) + found_rows(photo)
        seen = photo.prediction
        found[record.image_id] = {"boxes": seen.boxes, "labels": seen.labels, "scores": seen.scores}
    metrics, table = judge_by_id(found, records, predictor.classes), pd.DataFrame(rows)
    told = {"AP50_area": metrics["AP50"], "AP": metrics["AP"], "maps": summarise(table)}
    told |= found_share(table) | {"data": spec, "fingerprint": fingerprint(records)}
    return told | made_with()


def _recorded(path: Path) -> dict[str, dict]:
    """What a record says, by checkpoint: of this command as it stands, of `als evaluate` its AP."""
    record = read_json(path)
    if "checkpoints" in record:
        return record["checkpoints"]
    metrics, data = record["metrics"], record["data"]
    own = {"AP50_area": metrics["AP50_area"], "AP": metrics["AP"], "maps": {}}
    return {path.stem: own | {"fingerprint": data["fingerprint"]}}


def _draw(told: dict[str, dict], with_maps: dict[str, dict], path: Path) -> None:
    """A point a checkpoint and measure, with its interval; what knows no pixels is grey."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    titles = ("Mean on the head over mean on the animal", "Peak on the head")
    colours = dict(zip(with_maps, cycle(COLOURS), strict=False))
    for axis, measure, title in zip(axes, MEASURES, titles, strict=False):
        for name in told.keys() - with_maps.keys():  # a line to hold the others against
            height = 100 * told[name]["AP"]
            axis.axhline(height, color=GREY, lw=0.8, ls=":")
            axis.annotate(title_of(name), (1, height), (-4, 3), fontsize=8, ha="right", **AT)
        for name, one in with_maps.items():
            for map_name, (_, face, lift) in DRAWN.items():
                own = pd.Series(one["maps"][map_name][measure], dtype=float)  # a record has nulls
                height = 100 * one["AP"] + lift
                look = {"color": colours[name], "mfc": face or colours[name], "marker": "o"}
                axis.plot(own["mean"], height, **look)
                axis.hlines(height, own["low"], own["high"], colours[name])  # may be beside it
        known = next(iter(with_maps.values()))["maps"]["image_gaussian"][measure]["mean"]
        axis.axvline(np.nan if known is None else known, color=GREY, lw=0.8)
        axis.set(xlabel=title)
        axis.grid(alpha=0.3)
        axis.margins(y=0.12)
    axes[0].set_ylabel("AP, in percent")
    marks = [
        Line2D([], [], ls="", marker="o", color=colour, label=title_of(name))
        for name, colour in colours.items()
    ]
    marks += [
        Line2D([], [], ls="", marker="o", color=GREY, mfc=face or GREY, label=title)
        for title, face, _ in DRAWN.values()
    ]
    marks += [Line2D([], [], color=GREY, lw=0.8, label="Gaussian in the photograph")]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


GREY = "#777777"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
# Title, face if not the mark's own, and its shift in AP, so that two maps of a model do not hide
# each other.
DRAWN = {
    "class_weights": ("what a box's class feature is multiplied by", None, 0.12),
    "classification": ("A_cls of the photograph", "white", -0.12),
}
AT = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
