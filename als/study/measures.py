"""Every measure of one map and one object, by name, with the way in which it is better."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from als.explain import localization, parts
from als.study.cases import Case


@dataclass(frozen=True)
class Measure:
    """A measure's title, group and direction.

    better: "higher", "lower", or "" where the measure describes and does not judge.
    value: (map [H, W], case) -> float, not a number where the case lacks what is needed. None for
        measures that need the detector too: `als.study.faithfulness` and `als.study.sanity`.
    """

    title: str
    group: str
    better: str
    value: Callable[[np.ndarray, Case], float] | None = None


def _in_mask(function) -> Callable[[np.ndarray, Case], float]:
    """A measure of (map, mask) of the pixels that are not void."""

    def value(map: np.ndarray, case: Case) -> float:
        if case.mask is None:
            return float("nan")
        return function(map[case.known], case.mask[case.known])

    return value


def _pointing(margin: float) -> Callable[[np.ndarray, Case], float]:
    def value(map: np.ndarray, case: Case) -> float:
        if case.mask is None:
            return float("nan")
        return localization.pointing_game(map, case.mask, margin)

    return value


def _leakage(map: np.ndarray, case: Case) -> float:
    if case.mask is None:
        return float("nan")
    return localization.leakage(map, case.mask, case.others)


def _on_head(function) -> Callable[[np.ndarray, Case], float]:
    def value(map: np.ndarray, case: Case) -> float:
        return float("nan") if case.head is None else function(map, case.head, case.mask)

    return value


WHERE, PART, FAITH, SANITY = "where", "part", "faithfulness", "sanity"
MEASURES: dict[str, Measure] = {
    "pointing": Measure("Pointing game, 15 px", WHERE, "higher", _pointing(localization.MARGIN)),
    "pointing_exact": Measure("Pointing game, no margin", WHERE, "higher", _pointing(0)),
    "energy_box": Measure(
        "Energy in the box", WHERE, "higher", lambda m, c: localization.energy(m, c.box)
    ),
    "energy_mask": Measure("Energy in the mask", WHERE, "higher", _in_mask(localization.energy)),
    "mask_iou": Measure("Mask IoU at 0.5", WHERE, "higher", _in_mask(localization.mask_iou)),
    "mask_iou_best": Measure(
        "Mask IoU, best threshold",
        WHERE,
        "higher",
        _in_mask(lambda m, r: localization.best_mask_iou(m, r)[0]),
    ),
    "leakage": Measure("Leakage onto others", WHERE, "lower", _leakage),
    "coverage": Measure("Coverage of the mask", PART, "", _in_mask(parts.coverage)),
    "entropy": Measure("Entropy in the mask", PART, "", _in_mask(parts.entropy)),
    "gini": Measure("Gini in the mask", PART, "", _in_mask(parts.gini)),
    "head_focus": Measure("Head focus", PART, "", _on_head(parts.head_focus)),
    "peak_on_head": Measure(
        "Peak on the head", PART, "", _on_head(lambda *a: parts.peak_on_head(*a)[0])
    ),
    "peak_on_head_chance": Measure(
        "Peak on the head, chance", PART, "", _on_head(lambda *a: parts.peak_on_head(*a)[1])
    ),
    "insertion": Measure("Insertion AUC", FAITH, "higher"),
    "deletion": Measure("Deletion AUC", FAITH, "lower"),
    "flip": Measure("Same after a flip", SANITY, "higher"),
    "shift": Measure("Same after a shift of 8 px", SANITY, "higher"),
    "random_head": Measure("Same with random output layers", SANITY, "lower"),
    "random_conv5": Measure("Same with random conv5, too", SANITY, "lower"),
    "random_attention": Measure("Same with random attention, too", SANITY, "lower"),
    "random_trunk": Measure("Same with a random trunk, too", SANITY, "lower"),
}
CHEAP = (WHERE, PART)  # groups that need no further pass through the detector
GROUPS = tuple(dict.fromkeys(measure.group for measure in MEASURES.values()))
