"""Every measure of one map and one object, by name, with the way in which it is better.

A measure more is one entry of `MEASURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from als.explain import map_measures as where
from als.study.cases import Case, StudiedPhoto
from als.study.sanity import Compare, under_flip, under_randomization, under_shift


@dataclass(frozen=True)
class Measure:
    """A measure's title, group and direction, and how it is taken: one of two ways.

    better: "higher", "lower", or "" where the measure describes and does not judge.
    value: (map [H, W], case) -> float, not a number where the case lacks what is needed.
    of_photo: for measures that need the detector too: a photograph -> (name of a map, its maps
        [K, H, W] of the objects that were found) -> their K values. Called once for all maps, so
        that the network sees a change of the photograph, or its own change, once.
    """

    title: str
    group: str
    better: str
    value: Callable[[np.ndarray, Case], float] | None = None
    of_photo: Callable[[StudiedPhoto], Compare] | None = None

    def on(self, photo: StudiedPhoto) -> Compare:
        """(Name of a map, its maps [K, H, W]) -> the values of the K objects that were found."""
        if self.of_photo is not None:
            return self.of_photo(photo)
        return lambda _, maps: [self.value(*pair) for pair in zip(maps, photo.seen, strict=True)]


def _masked(function: Callable[[np.ndarray, Case], float]):
    return lambda heat, case: float("nan") if case.mask is None else function(heat, case)


def _in_mask(function):
    """A measure of (map, mask) of the pixels that are not void."""
    return _masked(lambda heat, case: function(heat[case.known], case.mask[case.known]))


def _pointing(margin: float):
    return _masked(lambda heat, case: where.pointing_game(heat, case.mask, margin))


def _on_head(function):
    return lambda m, case: float("nan") if case.head is None else function(m, case.head, case.mask)


def _area(photo: StudiedPhoto, curve: str) -> Compare:
    return lambda name, maps: photo.areas(name, maps, curve)


def _over_all(photo: StudiedPhoto) -> Compare:
    """OA, the over-all measure of VX-CODE (Yamauchi et al. 2024) and of ODExAI (2025)."""
    curves = ("insertion", "deletion")
    return lambda name, maps: np.subtract(*(photo.areas(name, maps, one) for one in curves))


def _stage(title: str, name: str) -> Measure:
    def on(photo: StudiedPhoto) -> Compare:
        return under_randomization(photo.scene, photo.stages[name])

    return Measure(title, SANITY, "lower", of_photo=on)


def _cost(photo: StudiedPhoto, of: str) -> Compare:
    return lambda name, maps: [getattr(photo, of)[name] / len(maps)] * len(maps)


WHERE, PART, FAITH, SANITY, COST = "where", "part", "faithfulness", "sanity", "cost"
MEASURES: dict[str, Measure] = {
    "pointing": Measure("Pointing game, 15 px", WHERE, "higher", _pointing(where.MARGIN)),
    "pointing_exact": Measure("Pointing game, no margin", WHERE, "higher", _pointing(0)),
    "energy_box": Measure(
        "Energy in the box", WHERE, "higher", lambda m, c: where.energy(m, c.box)
    ),
    "energy_mask": Measure("Energy in the mask", WHERE, "higher", _in_mask(where.energy)),
    "mask_iou": Measure("Mask IoU at 0.5", WHERE, "higher", _in_mask(where.mask_iou)),
    "mask_iou_best": Measure(
        *("Mask IoU, best threshold", WHERE, "higher"),
        _in_mask(lambda heat, mask: where.best_mask_iou(heat, mask)[0]),
    ),
    "leakage": Measure(
        *("Leakage onto others", WHERE, "lower"),
        _masked(lambda heat, case: where.leakage(heat, case.mask, case.others)),
    ),
    "odi": Measure(
        *("Object discrimination index", WHERE, "lower"),
        _masked(lambda heat, case: where.odi(heat, case.mask, case.others)),
    ),
    "coverage": Measure("Coverage of the mask", PART, "", _in_mask(where.coverage)),
    "entropy": Measure("Entropy in the mask", PART, "", _in_mask(where.entropy)),
    "gini": Measure("Gini in the mask", PART, "", _in_mask(where.gini)),
    "head_focus": Measure("Head focus", PART, "", _on_head(where.head_focus)),
    "peak_on_head": Measure(
        "Peak on the head", PART, "", _on_head(lambda *a: where.peak_on_head(*a)[0])
    ),
    "peak_on_head_chance": Measure(
        "Peak on the head, chance", PART, "", _on_head(lambda *a: where.peak_on_head(*a)[1])
    ),
    "insertion": Measure(
        "Insertion AUC", FAITH, "higher", of_photo=partial(_area, curve="insertion")
    ),
    "deletion": Measure("Deletion AUC", FAITH, "lower", of_photo=partial(_area, curve="deletion")),
    "over_all": Measure("Insertion minus deletion", FAITH, "higher", of_photo=_over_all),
    "seconds": Measure("Seconds a map", COST, "lower", of_photo=partial(_cost, of="seconds")),
    "passes": Measure("Passes a map", COST, "lower", of_photo=partial(_cost, of="passes")),
    "flip": Measure(
        *("Same after a flip", SANITY, "higher"),
        of_photo=lambda photo: under_flip(photo.predictor, photo.image, photo.scene),
    ),
    "shift": Measure(
        *("Same after a shift of 8 px", SANITY, "higher"),
        of_photo=lambda photo: under_shift(photo.predictor, photo.image, photo.scene),
    ),
    "random_head": _stage("Same with random output layers", "random_head"),
    "random_conv5": _stage("Same with random conv5, too", "random_conv5"),
    "random_attention": _stage("Same with random attention, too", "random_attention"),
    "random_trunk": _stage("Same with a random trunk, too", "random_trunk"),
}
CHEAP = (WHERE, PART)  # groups that need no further pass through the detector
GROUPS = tuple(dict.fromkeys(measure.group for measure in MEASURES.values()))
