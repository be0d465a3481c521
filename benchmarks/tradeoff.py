"""AP against time over the number of proposals and the size of the image: how to run a model."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from als.checkpoint import build_detector, load_checkpoint
from als.data.layouts import load_records
from als.data.record import fingerprint
from als.evaluation.evaluate import each_found, judge_by_id
from als.files import atomic_write, write_json
from als.images import as_rgb
from als.inference import Predictor
from als.model.interface import AnyDetector
from als.photographs import package_photographs
from benchmarks.focus import COLOURS
from benchmarks.recording import made_with, options
from benchmarks.timing import in_turns

SHORTER_SIDES = (256, 320, 384, 448, 512)  # pixels; the longer is at most 4/3 of it
PROPOSALS = (30, 50, 100, 200, 300)
ROUNDS = 9


def tradeoff(arguments: list[str]) -> None:
    """Evaluate a checkpoint with other proposals and image sizes, and time each: choose on val."""
    parser = options(tradeoff, "results/tradeoff.json")
    parser.add_argument("checkpoint", help="a file or a name")
    parser.add_argument("--data", required=True, help="FOLDER:SPLIT, not trained on")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--sides", nargs="+", type=int, default=SHORTER_SIDES)
    parser.add_argument("--proposals", nargs="+", type=int, default=PROPOSALS)
    parser.add_argument("--anchors", type=int, help="into RPN's NMS; the checkpoint's own")
    given = parser.parse_args(arguments)
    detector, _ = load_checkpoint(given.checkpoint)
    records = load_records(given.data, given.root, detector.config.classes)
    anchors = given.anchors or detector.config.rpn_pre_nms_test
    pairs = [(side, count) for side in given.sides for count in given.proposals]
    ways = {pair: _as_run(detector, *pair, anchors) for pair in pairs}
    figures = {}
    for pair, way in tqdm(ways.items(), unit="way"):
        found = {
            record.image_id: {name: value.numpy() for name, value in one.as_dict().items()}
            for record, one in _found(way, records)
        }
        figures[pair] = judge_by_id(found, records, detector.config.classes)
    photos = [as_rgb(path) for path in package_photographs()]
    predictors = {pair: Predictor(way, {}) for pair, way in ways.items()}
    each = {p: lambda p=p: list(map(predictors[p].analyse, photos)) for p in predictors}
    turns, of_one = in_turns(each, ROUNDS), 1000 / len(photos)
    rows = [
        {"side": side, "proposals": count, "milliseconds": of_one * turns.seconds(pair).median}
        | figures[pair]
        for pair in pairs
        for side, count in (pair,)
    ]
    own = {"side": detector.config.min_size, "proposals": detector.config.rpn_post_nms_test}
    data = {"split": given.data, "images": len(records), "fingerprint": fingerprint(records)}
    told = {"checkpoint": given.checkpoint, "own": own, "anchors": anchors}
    told |= {"data": data, "rows": rows}
    write_json(given.out, told | made_with())
    with atomic_write(given.out.with_suffix(".png")) as aside:
        _draw(rows, own, aside)
    for row in rows:
        print({name: round(value, 3) for name, value in row.items()})


def _as_run(detector: AnyDetector, side: int, proposals: int, anchors: int) -> AnyDetector:
    """The same weights behind another size of the image, and other numbers into and out of NMS."""
    sizes = {"min_size": side, "max_size": round(side * 4 / 3)}
    sizes |= {"rpn_pre_nms_test": anchors, "rpn_post_nms_test": proposals}
    other = build_detector(replace(detector.config, **sizes), pretrained=False)
    other.load_state_dict(detector.state_dict())
    return other.eval()


@torch.no_grad()
def _found(detector: AnyDetector, records) -> list:
    return [(record, one) for record, _, _, one in each_found(detector, records, 0, False)]


def _draw(rows: list[dict], own: dict, path: Path) -> None:
    """A line a size, a dot a number of proposals; a ring is how the checkpoint runs."""
    figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for colour, side in zip(COLOURS, sorted({row["side"] for row in rows}), strict=False):
        line = [row for row in rows if row["side"] == side]
        x, y = [row["milliseconds"] for row in line], [100 * row["AP50"] for row in line]
        axis.plot(x, y, color=colour, label=f"shorter side {side}")
        axis.scatter(x, y, [_area(row["proposals"]) for row in line], [colour])
        for row, *place in zip(line, x, y, strict=True):
            if own == {name: row[name] for name in own}:
                axis.plot(*place, "o", ms=16, mfc="none", color="black")
    for count in sorted({row["proposals"] for row in rows}):
        axis.scatter([], [], _area(count), "grey", label=f"{count} proposals")
    axis.set(xlabel="Milliseconds a photograph", ylabel="AP50, in percent")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


def _area(proposals: int) -> float:
    """Of a dot, in points squared."""
    return 8 + 0.4 * proposals
