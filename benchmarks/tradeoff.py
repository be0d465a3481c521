"""AP against time over the number of proposals and the size of the image: how to run a model."""

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from als.checkpoint import build_detector, load_checkpoint
from als.data.layouts import load_records
from als.data.record import fingerprint
from als.evaluation.evaluate import evaluate
from als.images import as_rgb
from als.inference import Predictor
from als.model.interface import AnyDetector
from als.photographs import package_photographs
from benchmarks.recording import options, save
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
        metrics = evaluate(way, records, workers=0, progress=False)["metrics"]
        figures[pair] = {"AP50": metrics["AP50_area"], "AP75": metrics["AP75"], "AP": metrics["AP"]}
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
    for row in rows:
        print({name: round(value, 3) for name, value in row.items()})
    save(given.out, told | {"data": data, "rows": rows})


def _as_run(detector: AnyDetector, side: int, proposals: int, anchors: int) -> AnyDetector:
    """The same weights behind another size of the image, and other numbers into and out of NMS."""
    sizes = {"min_size": side, "max_size": round(side * 4 / 3)}
    sizes |= {"rpn_pre_nms_test": anchors, "rpn_post_nms_test": proposals}
    other = build_detector(replace(detector.config, **sizes), pretrained=False)
    other.load_state_dict(detector.state_dict())
    return other.eval()
