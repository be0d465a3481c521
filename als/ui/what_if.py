"""What becomes of an attention map on the third tab, and then of the boxes."""

from pathlib import Path

import numpy as np
from PIL import Image

from als.drawing import sampled
from als.errors import InputError
from als.images import painted
from als.views.photo_study import Study, iou, study_photo

KEEP, NEUTRAL, SWAP, INSIDE, OUTSIDE, ONLY, NEVER = CHANGES = (
    "as the network makes it",
    "no attention (the neutral map)",
    "the other map",
    "the chosen box: 1 inside, 0 elsewhere",
    "the chosen box: 0 inside, the rest as made",
    "my strokes: 1 there, 0 elsewhere",
    "my strokes: 0 there, the rest as made",
)
SAME_OBJECT = 0.5  # IoU from which a box before and a box after are one object


def with_changed_maps(study: Study, loc: str, cls: str, painting: dict | None) -> Study:
    """The same photo with the localization and the classification map replaced (see CHANGES).

    painting: what the canvas holds.

    Raises:
        InputError: the model has no attention, or strokes are asked for and there are none.
    """
    if not study.predictor.detector.config.attention:
        raise InputError("This model has no attention maps that could be replaced.")
    found, regions = study.prediction, {}
    if {loc, cls} & {ONLY, NEVER}:
        regions[ONLY] = regions[NEVER] = strokes_of(painting, found.localization_map.shape)
    if {loc, cls} & {INSIDE, OUTSIDE}:
        regions[INSIDE] = regions[OUTSIDE] = chosen_box(study)
    maps = (
        _map(loc, "classification", found.localization_map, regions, found.size),
        _map(cls, "localization", found.classification_map, regions, found.size),
    )
    changed = study_photo(study.predictor, study.analysis.image, study.name, *maps)
    changed.above = study
    return changed


def _map(change: str, other: str, made: np.ndarray, regions: dict[str, np.ndarray], size):
    """What `Predictor.analyse` takes for one map of a photo of `size` (height, width)."""
    if change in (ONLY, INSIDE):
        return sampled(regions[change], size)
    if change in (NEVER, OUTSIDE):
        return sampled(made * (1 - regions[change]), size)
    return {KEEP: None, NEUTRAL: "neutral", SWAP: other}[change]


def chosen_box(study: Study) -> np.ndarray:
    """1 inside the box that is explained, 0 elsewhere: float32 [H, W] of the kept maps' size."""
    height, width = study.prediction.localization_map.shape
    x1, y1, x2, y2 = np.round(study.class_map().box * study.scale).astype(int)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)  # one at the edge keeps a pixel
    region = np.zeros((height, width), np.float32)
    region[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = 1
    return region


def strokes_of(painting: dict | None, size: tuple[int, int]) -> np.ndarray:
    """The painted pixels as a map [H, W] of 0 and 1 of `size` (height, width).

    painting: layers as the canvas gives them.

    Raises:
        InputError: nothing was painted, or a layer is no image.
    """
    strokes = np.zeros(size, dtype=bool)
    for layer in (painting or {}).get("layers") or []:
        mask = Image.fromarray(painted(layer if isinstance(layer, bytes) else Path(layer)))
        strokes |= np.asarray(mask.resize((size[1], size[0])), dtype=bool)
    if not strokes.any():
        raise InputError("Nothing is painted yet: draw on the photo, then run.")
    return strokes.astype(np.float32)


def changes_of(before: Study, after: Study, threshold: float) -> list[tuple[str, str, str, str]]:
    """(class, score before, score after, IoU of the two boxes) of each box that is over the
    threshold before or after; boxes of one class that overlap by half are the same object."""
    old, new = before.prediction, after.prediction
    free = set(np.flatnonzero(new.scores >= threshold))
    rows = []
    for i in np.flatnonzero(old.scores >= threshold):
        overlap = iou(old.boxes[i], new.boxes) * (new.labels == old.labels[i])
        best = max(free, key=lambda j: overlap[j], default=None)
        if best is not None and overlap[best] >= SAME_OBJECT:
            free.remove(best)
            after_score, both = f"{new.scores[best]:.3f}", f"{overlap[best]:.2f}"
        else:
            after_score, both = "gone", ""
        rows.append((old.names[i], f"{old.scores[i]:.3f}", after_score, both))
    return rows + [(new.names[j], "none", f"{new.scores[j]:.3f}", "") for j in sorted(free)]
