"""How cost grows with what comes in: the exponent of a power law for each of four curves.

Times t of sizes n are fitted as t = c n^p. A fixed cost hides in a small p, so the exponent between
the two largest sizes is given too, and that is the one that is held against `most`.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from als.evaluation.average_precision import voc_ap
from als.explain import grad_cams
from als.inference import Predictor
from als.model import Detector
from benchmarks.compare_networks import best_targets
from benchmarks.compare_pipelines import made_up
from benchmarks.networks import CLASSES, as_tensor, build_side, photographs
from benchmarks.recording import Setting, quick_options, save_of_machine
from benchmarks.timing import seconds_of

ROUNDS = 3
SLACK = 0.15  # an exponent that a measurement cannot tell from the one expected


@dataclass(frozen=True)
class Curve:
    """One thing that grows. prepare(n) makes the input of size n, run does the work on it.

    most: the exponent that is expected at most. why: what is inherent where that is over 1.
    """

    sizes: tuple[int, ...]
    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]
    most: float = 1.0
    why: str = ""


def curves(detector: Detector, setting: Setting) -> dict[str, Curve]:
    """The four that are watched, on the compact model, by name."""
    config, small = detector.config, setting.quick
    photo = photographs((config.min_size, config.max_size), 1)[0]
    analysis = Predictor(detector, {}, setting.device).analyse(photo)

    def square(side: int) -> torch.Tensor:
        detector.transform.min_size, detector.transform.max_size = (side,), side
        return as_tensor(photographs((side, side), 1)[0]).to(setting.device)

    def proposals(count: int) -> torch.Tensor:
        detector.transform.min_size = (config.min_size,)
        detector.transform.max_size = config.max_size
        detector.rpn._post_nms_top_n["testing"] = count
        return as_tensor(photo).to(setting.device)

    def detect(image: torch.Tensor) -> None:
        detector([image])

    return {
        "detections explained": Curve(
            (1, 2, 4) if small else (1, 2, 5, 10, 20, 50),
            lambda count: best_targets(analysis, count),
            lambda targets: grad_cams(detector, analysis.encoding, targets),
        ),
        "image side": Curve(
            (64, 96, 128) if small else (200, 300, 400, 600, 800, 1000),
            *(square, detect, 2.0),
            "the pixels grow with the square of the side; in pixels it is linear",
        ),
        "proposals": Curve((5, 10, 20) if small else (50, 100, 300, 600, 1000), proposals, detect),
        "images evaluated": Curve(
            (10, 20, 40) if small else (500, 1500, 5000, 15000, 50000),
            made_up,
            lambda pair: voc_ap(pair[1], pair[0], CLASSES),
            why="detections are sorted by score, n log n, in arrays that outgrow the cache",
        ),
    }


@torch.no_grad()
def grow(curve: Curve, rounds: int) -> dict[str, Any]:
    """Median seconds at each size after a first run that warms up, and the exponents."""
    seconds = []
    for size in curve.sizes:
        run = partial(curve.run, curve.prepare(size))
        _, *times = (seconds_of(run) for _ in range(rounds + 1))
        seconds.append(statistics.median(times))
    exponent, last = exponents(curve.sizes, seconds)
    return {
        "sizes": curve.sizes,
        "seconds": seconds,
        "exponent": exponent,
        "exponent_of_the_two_largest": last,
        "most": curve.most,
        "inherent": curve.why,
        "within": last <= curve.most + SLACK,
    }


def exponents(sizes, seconds) -> tuple[float, float]:
    """p of t = c n^p, by least squares of the logarithms: of all sizes, and of the two largest."""
    n, t = np.log(sizes), np.log(seconds)
    return float(np.polyfit(n, t, 1)[0]), float((t[-1] - t[-2]) / (n[-1] - n[-2]))


def growth(arguments: list[str]) -> None:
    """How cost grows with what comes in: exponents, and a record with the times."""
    given = quick_options(growth).parse_args(arguments)
    setting, grown = Setting(given.device, given.quick), {}
    for name, curve in curves(build_side("compact", "als", setting), setting).items():
        one = grown[name] = grow(curve, setting.few(ROUNDS))
        print(
            f"{name:22} exponent {one['exponent']:.2f}, between the two largest "
            f"{one['exponent_of_the_two_largest']:.2f}, at most {curve.most:g} expected: "
            + ("within" if one["within"] else "over"),
            flush=True,
        )
    save_of_machine({"curves": grown}, setting, given.out, "growth-")
