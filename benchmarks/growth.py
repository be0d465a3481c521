"""How cost grows with what comes in: plots, and the exponent of a power law fitted to each.

    python -m benchmarks.growth [--out results/bench] [--quick]

Times t of sizes n are fitted as t = c n^p. A fixed cost hides in a small p, so the exponent between
the two largest sizes is given too, and that is the one that is held against `most`.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from als.evaluation.average_precision import voc_ap
from als.explain import grad_cams
from als.inference import Predictor
from als.model import Detector
from benchmarks.command import circumstances, options_on_devices, write
from benchmarks.evaluation_speed import CLASSES, made_up
from benchmarks.explaining import best_targets
from benchmarks.goals import described
from benchmarks.pairs import seconds_of
from benchmarks.subjects import Setting, as_tensor, build_side, photographs

ROUNDS = 3
SLACK = 0.15  # an exponent that a measurement cannot tell from the one expected


@dataclass(frozen=True)
class Curve:
    """One thing that grows. run(n) does the work of size n; prepare(n) makes its input first.

    most: the exponent that is expected at most. why: what is inherent where that is over 1.
    """

    name: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]
    most: float = 1.0
    why: str = ""


def curves(detector: Detector, setting: Setting) -> list[Curve]:
    """The four that are watched, on the compact model."""
    predictor = Predictor(detector, {}, setting.device)
    config = detector.config
    photo = photographs((config.min_size, config.max_size), 1)[0]
    analysis = predictor.analyse(photo)
    image = as_tensor(photo).to(setting.device)

    def square(side: int) -> torch.Tensor:
        detector.transform.min_size, detector.transform.max_size = (side,), side
        return as_tensor(photographs((side, side), 1)[0]).to(setting.device)

    def proposals(count: int) -> torch.Tensor:
        detector.transform.min_size = (config.min_size,)
        detector.transform.max_size = config.max_size
        detector.rpn._post_nms_top_n["testing"] = count
        return image

    def explain(targets) -> None:
        grad_cams(detector, analysis.encoding, targets)

    def detect(pixels: torch.Tensor) -> None:
        detector([pixels])

    small = setting.quick
    return [
        Curve(
            "detections explained",
            (1, 2, 4) if small else (1, 2, 5, 10, 20, 50),
            lambda count: best_targets(analysis, count),
            explain,
        ),
        Curve(
            "image side",
            (64, 96, 128) if small else (200, 300, 400, 600, 800, 1000),
            square,
            detect,
            most=2.0,
            why="the pixels grow with the square of the side; in pixels it is linear",
        ),
        Curve("proposals", (5, 10, 20) if small else (50, 100, 300, 600, 1000), proposals, detect),
        Curve(
            "images evaluated",
            (10, 20, 40) if small else (500, 1500, 5000, 15000, 50000),
            made_up,
            lambda pair: voc_ap(pair[1], pair[0], CLASSES),
            why="detections are sorted by score, n log n, in arrays that outgrow the cache",
        ),
    ]


@torch.no_grad()
def grow(curve: Curve, rounds: int) -> dict[str, Any]:
    """Median seconds at each size, and the exponents."""
    seconds = []
    for size in curve.sizes:
        given = curve.prepare(size)
        seconds_of(lambda given=given: curve.run(given))  # warms up
        times = [seconds_of(lambda given=given: curve.run(given)) for _ in range(rounds)]
        seconds.append(statistics.median(times))
    exponent, last = exponents(curve.sizes, seconds)
    return {
        "sizes": list(curve.sizes),
        "seconds": seconds,
        "exponent": exponent,
        "exponent_of_the_two_largest": last,
        "most": curve.most,
        "inherent": curve.why,
        "within": last <= curve.most + SLACK,
    }


def exponents(sizes, seconds) -> tuple[float, float]:
    """p of t = c n^p, by least squares of the logarithms: of all sizes, and of the two largest."""
    n, t = np.log(np.asarray(sizes, float)), np.log(np.asarray(seconds, float))
    return float(np.polyfit(n, t, 1)[0]), float((t[-1] - t[-2]) / (n[-1] - n[-2]))


def draw(record: dict[str, Any], path: Path) -> None:
    """A double-logarithmic plot for each curve, with its fit."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, (name, grown) in zip(
        figure.subplots(2, 2).flat, record["curves"].items(), strict=True
    ):
        sizes, seconds = np.array(grown["sizes"], float), np.array(grown["seconds"])
        middle = np.exp(np.log(seconds).mean() - grown["exponent"] * np.log(sizes).mean())
        axes.loglog(sizes, middle * sizes ** grown["exponent"], color="#7a8088", linestyle="--")
        axes.loglog(sizes, seconds, marker="o", color="#1f5fa8")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        axes.minorticks_off()
        axes.set_xlabel(name)
        axes.set_ylabel("seconds")
        axes.set_title(
            f"exponent {grown['exponent']:.2f}, "
            f"{grown['exponent_of_the_two_largest']:.2f} between the two largest",
            fontsize=9,
        )
    figure.suptitle(described(record["machine"], record["device"]), fontsize=9)
    figure.savefig(path, dpi=150, format="png")


def main(arguments: list[str] | None = None) -> None:
    """Measure every curve, print the exponents, write record and figure."""
    given = options_on_devices(__doc__.splitlines()[0]).parse_args(arguments)
    setting = Setting(given.device, given.quick)
    record: dict[str, Any] = {"curves": {}} | circumstances(setting)
    for curve in curves(build_side("compact", "als", setting), setting):
        grown = record["curves"][curve.name] = grow(curve, setting.few(ROUNDS))
        print(
            f"{curve.name:22} exponent {grown['exponent']:.2f}, between the two largest "
            f"{grown['exponent_of_the_two_largest']:.2f}, at most {curve.most:g} expected: "
            + ("within" if grown["within"] else "over"),
            flush=True,
        )
    write(record, given.out, "growth-", draw)


if __name__ == "__main__":
    main()
