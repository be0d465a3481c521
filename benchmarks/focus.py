"""AP against where the classification map looks, over the knob of a form of attention."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

import als
from als.data.layouts import load_records
from als.data.record import fingerprint
from als.evaluation.evaluate import evaluate
from als.files import atomic_write, read_json, write_json
from als.study.study_rows import run_study
from als.study.summary import found_share, summarise
from benchmarks.recording import made_with, options

# What the network multiplies a box's class feature by, the image's map of it, and what to hold
# them against.
MAPS = ("class_weights", "classification", "localization", "image_gaussian", "box_gaussian")
MEASURES = ("head_focus", "peak_on_head", "peak_on_head_chance")


def focus(arguments: list[str]) -> None:
    """Evaluate checkpoints and measure on which animals' heads their maps lie: choose on val."""
    parser = options(focus, "results/focus.json")
    kinds = "files RUN/model.safetensors, names, or records of what has no map to look at"
    parser.add_argument("checkpoints", nargs="+", help=kinds)
    parser.add_argument("--data", required=True, help="FOLDER:SPLIT, with keypoints")
    parser.add_argument("--root", type=Path, default=Path("."))
    given = parser.parse_args(arguments)
    told = {}
    for checkpoint in given.checkpoints:
        if checkpoint.endswith(".json"):
            metrics = read_json(Path(checkpoint))["metrics"]
            own = {"AP50_area": metrics["AP50_area"], "AP": metrics["AP"], "maps": {}}
            told[Path(checkpoint).stem] = own
            continue
        predictor = als.load(checkpoint)
        records = load_records(given.data, given.root, predictor.classes)
        metrics = evaluate(predictor.detector, records, workers=0)["metrics"]
        with tempfile.TemporaryDirectory() as folder:
            rows = run_study({"": predictor}, records, Path(folder), MAPS, MEASURES)
        name = Path(checkpoint).parent.name or checkpoint
        told[name] = {"AP50_area": metrics["AP50_area"], "AP": metrics["AP"]}
        told[name] |= {"maps": summarise(rows), **found_share(rows)}
        print(name, told[name], flush=True)
    record = {"data": given.data, "fingerprint": fingerprint(records), "checkpoints": told}
    write_json(given.out, record | made_with())
    with atomic_write(given.out.with_suffix(".png")) as aside:
        _draw(told, aside)


def _draw(told: dict[str, dict], path: Path) -> None:
    """A point a checkpoint and measure, with its interval; what knows no pixels is grey."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = ("Mean on the head over mean on the animal", "Peak on the head")
    for axis, measure, title in zip(axes, MEASURES, titles, strict=False):
        for name, one in told.items():
            if "class_weights" not in one["maps"]:  # a line to hold the others against
                axis.axhline(100 * one["AP"], color="#777777", lw=0.8, ls=":")
                axis.annotate(name, (1, 100 * one["AP"]), (-4, 3), fontsize=8, ha="right", **AT)
                continue
            for map_name, (_, fmt, lift) in DRAWN.items():
                own = one["maps"][map_name][measure]
                spread = [[own["mean"] - own["low"]], [own["high"] - own["mean"]]]
                height = 100 * one["AP"] + lift
                axis.errorbar(own["mean"], height, xerr=spread, **fmt)
            left = min(one["maps"][map_name][measure]["low"] for map_name in DRAWN)
            axis.annotate(name, (left, 100 * one["AP"]), (0, 6), fontsize=8, **OF_DATA)
        maps = next(one["maps"] for one in told.values() if one["maps"])
        known = maps["image_gaussian"][measure]["mean"]
        axis.axvline(known, color="#777777", lw=0.8)
        axis.set(xlabel=title)
        axis.grid(alpha=0.3)
        axis.margins(y=0.12)
    axes[0].set_ylabel("AP, in percent")
    marks = [Line2D([], [], ls="", **fmt, label=title) for title, fmt, _ in DRAWN.values()]
    marks += [Line2D([], [], color="#777777", lw=0.8, label="Gaussian in the photograph")]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


FILLED = {"marker": "o", "color": "#D55E00"}
OPEN = FILLED | {"mfc": "white"}
# Title, mark, and its shift in AP, so that two maps of a model do not hide each other.
DRAWN = {
    "class_weights": ("what a box's class feature is multiplied by", FILLED, 0.12),
    "classification": ("A_cls of the photograph", OPEN, -0.12),
}
OF_DATA = {"xycoords": "data", "textcoords": "offset points"}
AT = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
