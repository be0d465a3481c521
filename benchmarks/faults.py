"""Does a map tell what kind of fault a false or missed detection is? Against the box alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.ops import box_iou
from tqdm import tqdm

import als
from als.data.layouts import load_records
from als.data.record import Record, fingerprint
from als.evaluation.bootstrap import draw_weights, resampled_mean
from als.evaluation.detections import Detections
from als.evaluation.evaluate import truths_of
from als.evaluation.missed import IOU, outcomes
from als.explain import make_maps
from als.explain import map_measures as where
from als.images import as_rgb
from als.inference import Analysis, Predictor
from benchmarks.recording import options, save

MAPS = ("localization", "classification", "class_weights", "gradcam", "gradact", "odam")
MAPS += ("objectness", "box_gaussian")
THRESHOLD = 0.2  # of detections
TOUCHES = 0.1  # IoU under which a box touches nothing (TIDE, Bolya et al. 2020)
FOLDS, RESAMPLES = 5, 2000


def faults(arguments: list[str]) -> None:
    """Tell kinds of faults from features of maps, cross-validated, and from the box alone.

    A false detection is wrong in its place (IoU 0.1 to 0.5 with an object of its class), in its
    class (0.5 or more with one of another), or on background (under 0.1 with all); others are left
    out and counted. A missed object is asked about at its own box.
    """
    parser = options(faults, "results/faults.json")
    parser.add_argument("checkpoint", nargs="?", default="twenty", help="a file or a name")
    parser.add_argument("--data", default="Everyday:test", help="FOLDER:SPLIT")
    parser.add_argument("--root", type=Path, required=True)
    given = parser.parse_args(arguments)
    predictor = als.load(given.checkpoint)
    records = load_records(given.data, given.root, predictor.classes)
    rows, left_out = [], 0
    for record in tqdm(records, unit="image"):
        analysis = predictor.analyse(as_rgb(record.path))
        some, others = items(predictor, record, analysis)
        left_out += others
        for kind, box, label in some:
            about = {"image": record.image_id, "kind": kind} | geometry(box, record.size)
            scene, _ = predictor.chosen(analysis, label=label, box=box)
            for name in MAPS:
                (heat,) = make_maps(name, scene)
                told = features(heat, box, record.size)
                about |= {f"{name} {feature}": value for feature, value in told.items()}
            rows.append(about)
    table = pd.DataFrame(rows)
    false = table[table["kind"] != "missed"]  # a missed object's box is true
    record = {"checkpoint": given.checkpoint, "data": given.data}
    record |= {"fingerprint": fingerprint(records), "threshold": THRESHOLD}
    record |= {"left_out": left_out, "kinds": table["kind"].value_counts().to_dict()}
    record |= {"photographs": len(records)}
    record |= {"told": told_apart(table), "told_of_false": told_apart(false)}
    save(given.out, record)


def items(
    predictor: Predictor, record: Record, analysis: Analysis
) -> tuple[list[tuple[str, np.ndarray, int]], int]:
    """(Kind, box [4], label) of each fault of a photograph, and how many false ones are no kind."""
    found, (truth,) = analysis.prediction, truths_of([record])
    sure = found.scores >= THRESHOLD
    given = Detections(found.boxes[sure], found.labels[sure], found.scores[sure])
    told = outcomes(given, truth, len(predictor.classes))
    boxes = torch.from_numpy(given.boxes), torch.from_numpy(truth.boxes)
    overlaps, some, left_out = box_iou(*boxes).numpy(), [], 0
    for row in np.flatnonzero(told.false):
        label = int(given.labels[row])
        kind = kind_of(overlaps[row], truth.labels == label)
        left_out += kind is None
        some += [(kind, given.boxes[row], label)] if kind else []
    missed = np.flatnonzero(told.missed)
    return some + [("missed", truth.boxes[i], int(truth.labels[i])) for i in missed], left_out


def kind_of(overlap: np.ndarray, same: np.ndarray) -> str | None:
    """The kind of a false detection by its IoU [N] with the objects; same: those of its class."""
    if (overlap[~same] >= IOU).any():
        return "class"
    if TOUCHES <= overlap[same].max(initial=0) < IOU:
        return "localization"
    return "background" if overlap.max(initial=0) < TOUCHES else None


def geometry(box: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """What is known of a box [4] without looking at the photograph of (height, width) `size`."""
    x1, y1, x2, y2 = np.asarray(box, float) / np.array([size[1], size[0]] * 2)
    shape = {"box area": np.log((x2 - x1) * (y2 - y1)), "box shape": np.log((y2 - y1) / (x2 - x1))}
    sides = {"box left": x1, "box top": y1, "box right": x2, "box bottom": y2}
    return shape | sides


def features(heat: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """What a map [H, W] says of a box [4]: how much lies in it, around it, and where in it."""
    inside = where.box_region(box, size)
    x1, y1, x2, y2 = np.asarray(box, float)
    reach = np.array([x2 - x1, y2 - y1] * 2) / 4 * [-1, -1, 1, 1]
    around = where.box_region(box + reach, size) & ~inside
    core = where.box_region(box - reach, size)
    heat = np.maximum(np.nan_to_num(heat, posinf=0), 0)
    mean, top = heat.mean() + 1e-12, heat.max() + 1e-12
    own = heat[inside] if inside.any() else np.zeros(1)
    ys, xs = np.nonzero(inside)
    total = own.sum() + 1e-12
    told = {"mean": own.mean() / mean, "max": own.max() / top, "level": np.log(mean)}
    told |= {"around": heat[around].mean() / mean if around.any() else 0.0}
    told |= {"core": heat[core].mean() / mean if core.any() else 0.0}
    told |= {"evenness": own.mean() / (own.max() + 1e-12)}
    if len(ys):
        told |= {"right": ((xs * own).sum() / total - (x1 + x2) / 2) / (x2 - x1)}
        told |= {"down": ((ys * own).sum() / total - (y1 + y2) / 2) / (y2 - y1)}
    return {name: float(value) for name, value in told.items()}


def told_apart(table: pd.DataFrame) -> dict[str, dict]:
    """Balanced accuracy of each set of features, and its difference from the box alone."""
    image = pd.factorize(table["image"])[0]
    weights = draw_weights(image.max() + 1, RESAMPLES)
    share = table["kind"].map(table["kind"].value_counts(normalize=True)) * table["kind"].nunique()

    def resampled(columns: list[str]):
        guess = _guesses(table[columns].fillna(0), table["kind"], image)
        return resampled_mean((guess == table["kind"]) / share, image, weights)

    alone = [name for name in table if name.startswith("box ")]
    base, told = resampled(alone), {}
    for name, columns in _sets(table, alone):
        one = base if columns == alone else resampled(columns)
        more = one - base
        told[name] = {"balanced_accuracy": one.whole, "interval": one.interval}
        told[name] |= {"over_box": more.whole, "over_box_interval": more.interval}
    return told


def _sets(table: pd.DataFrame, alone: list[str]) -> Iterator[tuple[str, list[str]]]:
    yield "box", alone
    own = {name: [column for column in table if column.startswith(f"{name} ")] for name in MAPS}
    for name in MAPS:
        yield name, own[name]
        yield f"box and {name}", alone + own[name]
    yield "box and all maps", alone + [column for name in MAPS for column in own[name]]


def _guesses(values: pd.DataFrame, kinds: pd.Series, image: np.ndarray) -> np.ndarray:
    """The kind of each row by a classifier that saw no other fault of its photograph."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced")
    )
    return cross_val_predict(model, values, kinds, groups=image, cv=GroupKFold(FOLDS))
