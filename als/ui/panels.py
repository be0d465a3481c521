"""A study of one photo -> the panels of the page and the record that can be exported."""

import numpy as np

from als.drawing import (
    CONSTANT,
    Look,
    Panel,
    boxes_to_display,
    draw_boxes,
    overlay,
    value_range,
)
from als.inference import Explanation
from als.ui.numbers import iou, iou_at_half, rank_correlations, share_inside, share_of_area
from als.ui.session import BOX_KINDS, Choice, Study

TITLES = (
    "Detections",
    "Localization map",
    "Classification map",
    "Grad-CAM",
    "Gradient × activation",
)
SAYS = {
    TITLES[0]: "What the model reports over the threshold.{click}",
    TITLES[1]: "Where the model looks to place boxes. Attention of the whole photo, not an "
    "attribution of one box.",
    TITLES[2]: "Where it looks to say what things are. Attention of the whole photo too, not of "
    "the chosen box.",
    TITLES[3]: "What raises the chosen box's class score, with channel weights averaged over the "
    "photo: other objects can light up. Not where the box comes from.",
    TITLES[4]: "Cell by cell, what raises the {target} of the chosen box: only what its proposal "
    "reads can light up. Not a map of the whole object.",
}
NO_ATTENTION = "This model has no attention, so there is no such map."
EMPTY = "Empty map: nothing in the photo raises this value."
NEARLY_CONSTANT = 0.05  # range below which a stretched attention map says so
MATCH_IOU = 0.3  # a second model's detection counts as the same one from here


def panels_of(study: Study, look: Look, threshold: float, kind: str) -> list[Panel]:
    """The five panels; `kind` is what the last one explains (a key of BOX_KINDS)."""
    chosen, per_box = study.class_map(), study.proposal_map(BOX_KINDS[kind])
    return [
        detections_panel(study, threshold, chosen),
        *attention_panels(study, look, chosen),
        _map_panel(study, TITLES[3], chosen.map, look, chosen, chosen.empty),
        _map_panel(study, TITLES[4], per_box.map, look, chosen, per_box.empty),
    ]


def detections_panel(study: Study, threshold: float, chosen: Explanation | None) -> Panel:
    """Every detection over the threshold, and the chosen box even if it is below it."""
    found = study.prediction
    shown = int((found.scores >= threshold).sum())
    boxes, labels = found.boxes[:shown], found.labels[:shown]
    texts = [f"{n} {s:.2f}" for n, s in zip(found.names, found.scores, strict=True)][:shown]
    row = study.choice.detection if chosen is not None else None
    if chosen is not None and (row is None or row >= shown):
        boxes = np.concatenate([boxes, chosen.box[None]])
        labels, row = np.append(labels, chosen.label), shown
        texts.append(f"{chosen.name} {chosen.score:.2f}")
    picture = draw_boxes(
        study.display, boxes_to_display(boxes, found.size), labels, texts, chosen=row
    )
    alt = f"The photo with {shown} boxes: {', '.join(texts[:8]) or 'none'}"
    return Panel(TITLES[0], picture, alt=alt)


def attention_panels(study: Study, look: Look, chosen: Explanation | None) -> list[Panel]:
    """The localization and the classification map, or why there is none."""
    found, panels = study.prediction, []
    for title, map in zip(
        TITLES[1:3], (found.localization_map, found.classification_map), strict=True
    ):
        if map is None:
            panels.append(Panel(title, None, NO_ATTENTION))
        else:
            panels.append(_map_panel(study, title, map, look, chosen, False))
    return panels


def _map_panel(
    study: Study, title: str, map: np.ndarray, look: Look, chosen: Explanation | None, empty: bool
) -> Panel:
    box = None if chosen is None else boxes_to_display(chosen.box[None], study.prediction.size)
    picture = study.display if empty else overlay(study.display, map, look)
    if box is not None:
        picture = draw_boxes(picture, box, np.array([chosen.label]), [chosen.name], chosen=0)
    if empty:
        return Panel(title, picture, EMPTY, alt=f"{title}: empty")
    low, high = value_range(map, look.rule)
    alt = f"{title} over the photo, values {low:.3g} to {high:.3g}"
    return Panel(title, picture, _range_note(title, map, low, high), (low, high), alt)


def _range_note(title: str, map: np.ndarray, low: float, high: float) -> str:
    """What the colours hide: a constant, a stretched one, or values that the scale leaves dark."""
    spread = float(np.ptp(map))
    if not map.max() > 0:
        return "Empty map: 0 everywhere."
    if spread <= CONSTANT:
        return f"The same everywhere: {map.max():.2g}."
    if title in TITLES[1:3] and spread < NEARLY_CONSTANT and high - low < 2 * NEARLY_CONSTANT:
        return "Nearly the same everywhere: the colours stretch small differences."
    if spread < 0.1 * (high - low):
        return f"All values lie between {map.min():.2g} and {map.max():.2g} on this scale."
    return ""


def explained_sentence(study: Study, threshold: float) -> str:
    """What the per-box maps explain now, and whether it passed the threshold."""
    chosen, (height, width) = study.class_map(), study.prediction.size
    scored = f"{chosen.name} {chosen.score:.2f}"
    if study.choice.detection is not None and chosen.score >= threshold:
        said = f"Explaining detection {study.choice.detection + 1}: {scored}."
    elif chosen.score >= threshold:
        said = f"Explaining the best-scoring proposal for this class: {scored}."
    else:
        same = study.prediction.labels == chosen.label
        passing = (study.prediction.scores[same] >= threshold).any()
        none = "This one does not pass" if passing else f"No {chosen.name} passes"
        said = (
            f"{none} the threshold of {threshold:.2f}; explaining "
            f"{'the best-scoring proposal for it' if not passing else 'it'} all the same: {scored}."
        )
    return f"{study.name}, {width} × {height}. {said}"


def maps_of(study: Study, kind: str) -> dict[str, np.ndarray]:
    """The maps that there are, by title, raw; empty ones are zero."""
    found = study.prediction
    maps = {TITLES[1]: found.localization_map, TITLES[2]: found.classification_map}
    maps[TITLES[3]] = study.class_map().map
    maps[TITLES[4]] = study.proposal_map(BOX_KINDS[kind]).map
    return {title: map for title, map in maps.items() if map is not None}


def figures_of(study: Study, kind: str) -> dict:
    """The numbers beside the pictures, ready for JSON but for NaN (an empty map has none)."""
    maps, size = maps_of(study, kind), study.prediction.size
    height, width = maps[TITLES[3]].shape
    box = study.class_map().box * np.tile([width / size[1], height / size[0]], 2)
    return {
        "box_share_of_image": share_of_area((height, width), box),
        "share_inside_box": {t: share_inside(m, box) for t, m in maps.items()},
        "iou_at_half_with_box": {t: iou_at_half(m, box) for t, m in maps.items()},
        "rank_correlation": {f"{a} / {b}": v for (a, b), v in rank_correlations(maps).items()},
        "milliseconds": {step: 1000 * seconds for step, seconds in study.steps().items()},
    }


def record_of(study: Study, threshold: float, kind: str) -> dict:
    """Detections and numbers for export: boxes are xyxy pixels of the upright photo."""
    found, chosen = study.prediction, study.class_map()
    shown = int((found.scores >= threshold).sum())
    return {
        "photo": {"name": study.name, "height": found.size[0], "width": found.size[1]},
        "model": {
            "checkpoint": study.predictor.source,
            "classes": list(study.predictor.classes),
            "info": study.predictor.info,
        },
        "score_threshold": threshold,
        "detections": [
            {"box": found.boxes[i].tolist(), "class": found.names[i], "score": found.scores[i]}
            for i in range(shown)
        ],
        "explained": {
            "box": chosen.box.tolist(),
            "class": chosen.name,
            "score": chosen.score,
            "detection": study.choice.detection,
            "passed_threshold": chosen.score >= threshold,
            "target_of_per_box_map": BOX_KINDS[kind],
            "empty_maps": [t for t, m in maps_of(study, kind).items() if not m.max() > 0],
        },
        **figures_of(study, kind),
    }


def same_choice(first: Study, second: Study) -> Choice:
    """What to explain in `second` so that it stands beside the choice of `first`.

    Its detection of the same class that overlaps most, if any does well enough, else its
    best-scoring proposal for that class; the first detection where it does not know the class.
    """
    chosen, found = first.class_map(), second.prediction
    if chosen.name not in second.predictor.classes:
        return second.choice
    label = second.predictor.classes.index(chosen.name) + 1
    overlap = iou(chosen.box, found.boxes) * (found.labels == label)
    if len(overlap) and overlap.max() >= MATCH_IOU:
        return Choice(detection=int(overlap.argmax()))
    return Choice(label=label)
