"""AP against time over the image size and the number of proposals, of one checkpoint."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

from als.checkpoint import build_detector, read_checkpoint
from als.data.layouts import load_records
from als.evaluation.evaluate import evaluate
from als.files import atomic_write, write_json
from benchmarks.recording import made_with, options

SIZES, PROPOSALS = (256, 320, 384, 448), (50, 100, 300)
FIGURES = ("AP50_area", "AP75", "AP")


def operating_point(arguments: list[str]) -> None:
    """Evaluate one checkpoint at every size and number of proposals: choose on val, not on test."""
    parser = options(operating_point)
    parser.add_argument("checkpoint", help="a file, or a name of one in the package")
    parser.add_argument("--data", required=True, help="FOLDER:SPLIT")
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="shorter sides")
    parser.add_argument("--proposals", type=int, nargs="+", default=PROPOSALS)
    given = parser.parse_args(arguments)
    shipped, _, tensors = read_checkpoint(given.checkpoint)
    config = shipped.config
    records = load_records(given.data, given.root, config.classes)
    points = []
    for size in given.sizes:
        longest = round(size * config.max_size / config.min_size)
        for proposals in given.proposals:
            changed = replace(config, min_size=size, max_size=longest, rpn_post_nms_test=proposals)
            detector = build_detector(changed, pretrained=False)
            detector.load_state_dict(tensors)
            told = evaluate(detector, records, workers=0)
            figures = {name: told["metrics"][name] for name in FIGURES}
            seconds = told["seconds"]["detection"] / len(records)
            points.append({"min_size": size, "proposals": proposals, "seconds": seconds} | figures)
            print(points[-1], flush=True)
    record = {"checkpoint": str(given.checkpoint), "data": told["data"], "points": points}
    record["data"]["split"] = given.data
    write_json(given.out, record | made_with())
    with atomic_write(given.out.with_suffix(".png")) as aside:
        _draw(points, aside)


def _draw(points: list[dict], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for proposals in sorted({point["proposals"] for point in points}):
        own = [point for point in points if point["proposals"] == proposals]
        x, y = [[point[name] for point in own] for name in ("seconds", "AP")]
        axes.plot(x, [100 * value for value in y], "o-", label=f"{proposals} proposals")
        for point, at, up in zip(own, x, y, strict=True):
            axes.annotate(
                f"{point['min_size']} px",
                (at, 100 * up),
                xytext=(4, -10),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set(xlabel="seconds a photograph, in batches of eight", ylabel="AP, in percent")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)
