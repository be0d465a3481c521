"""A study of one photo -> the panels of the page, the numbers beside them, and the record."""

from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from als.drawing import (
    CLASSIFICATION,
    DETECTIONS,
    LOCALIZATION,
    Look,
    Panel,
    attention_panels,
    boxes_to_display,
    class_colours,
    draw_boxes,
    map_panel,
    sampled,
    scored_names,
)
from als.explain import EXPLAINERS
from als.explain.map_measures import box_region, energy, mask_iou
from als.inference import Explanation
from als.views.photo_study import DEFAULT_EXPLAINER, WORDS, Settings, Study

GRAD_CAM = "Grad-CAM"
GRADIENT_X_ACTIVATION = "Gradient × activation"
SAYS = {
    DETECTIONS: "What the model reports over the threshold.{click}",
    LOCALIZATION: "Where the model looks to place boxes. Attention of the whole photo, not an "
    "attribution of one box.",
    CLASSIFICATION: "Where it looks to say what things are. Attention of the whole photo too, not "
    "of the chosen box.",
    GRAD_CAM: "What raises the chosen box's class score, with channel weights averaged over the "
    "photo: other objects can light up. Not where the box comes from.",
}
SAYS_DEFAULT = (
    "Cell by cell, what raises the {target} of the chosen box: only what its proposal reads can "
    "light up. Not a map of the whole object."
)
NO_MAP = "This explainer makes no map of this model."
EMPTY = "Empty map: nothing in the photo raises this value."
CLICK = " Click inside a box to explain it."
GRID = (96, 96)  # rank correlations are of maps sampled on this grid: they are smooth


def last_title(settings: Settings) -> str:
    """The last view's title: the explainer's own, naming the scalar that is explained."""
    explainer = EXPLAINERS[settings.explainer]
    if settings.explainer == DEFAULT_EXPLAINER:
        return GRADIENT_X_ACTIVATION
    if settings.target == (explainer.kind or None):
        return explainer.title
    name, *rest = explainer.title.split(", ")  # name, scalar, more
    return ", ".join([name, WORDS[settings.target], *rest[1:]])


def captions(settings: Settings, clickable: bool = False) -> dict[str, str]:
    """What stands under each panel, by title. clickable: whether a click chooses a detection."""
    explainer, target = EXPLAINERS[settings.explainer], settings.target
    if settings.explainer == DEFAULT_EXPLAINER:
        last = SAYS_DEFAULT.format(target=WORDS[target])
    else:
        of = "the chosen box" if explainer.per_object else "the whole photo, the same for every box"
        last = f"Map of {of}."
        if target:
            last = f"What raises the {WORDS[target]} of {of}."
        else:
            last += " The choice of a score or side does not apply to it."
        if not explainer.learnt:
            last += " Not learnt: the same for any network."
    says = {title: text.format(click=CLICK if clickable else "") for title, text in SAYS.items()}
    return {last_title(settings): last} | says


def panels_of(study: Study, settings: Settings) -> list[Panel]:
    """The five panels."""
    chosen, last, title = study.class_map(), study.last_map(settings), last_title(settings)
    maps = [
        *_attention_panels(study, settings.look),
        _explanation_panel(study, GRAD_CAM, chosen, settings.look),
        _explanation_panel(study, title, last, settings.look),
    ]
    detections = detections_panel(study, settings.threshold, chosen)
    return [detections, *(_boxed(study, panel, chosen) for panel in maps)]


def first_panels(study: Study, settings: Settings, waiting: bool = True) -> list[Panel]:
    """Those that need no explanation; `waiting` holds the places of the other two."""
    maps = [detections_panel(study, settings.threshold, None)]
    maps += _attention_panels(study, settings.look)
    titles = (GRAD_CAM, last_title(settings)) if waiting else ()
    return maps + [Panel(title, None, "Computing …") for title in titles]


def detections_panel(study: Study, threshold: float, chosen: Explanation | None) -> Panel:
    """Every detection over the threshold, and the chosen box even if it is below it."""
    found, shown = study.prediction, study.shown(threshold)
    boxes, names, texts = found.boxes[:shown], found.names[:shown], scored_names(found)[:shown]
    row = study.choice.detection if chosen is not None else None
    if chosen is not None and (row is None or row >= shown):
        boxes = np.concatenate([boxes, chosen.box[None]])
        names, row = [*names, chosen.name], shown
        texts.append(f"{chosen.name} {chosen.score:.2f}")
    boxes = boxes_to_display(boxes, found.size)
    picture = draw_boxes(study.display, boxes, names, texts, row, colours_of(study, chosen))
    alt = f"The photo with {len(texts)} boxes: {', '.join(texts[:8]) or 'none'}"
    return Panel(DETECTIONS, picture, alt=alt)


def colours_of(study: Study, chosen: Explanation | None = None) -> dict[str, str]:
    """The colour of each class in every picture of the photo; the chosen one may be undetected.

    Classes of the study that this one stands below keep their colours.
    """
    names, above = study.prediction.names, study.above
    kept = above and colours_of(above, None if chosen is None else above.class_map())
    return class_colours(names if chosen is None else [*names, chosen.name], kept)


def _attention_panels(study: Study, look: Look) -> list[Panel]:
    if study.attention is None or study.attention[0] != look:
        study.attention = look, attention_panels(study.prediction, study.display, look)
    return study.attention[1]


def _explanation_panel(study: Study, title: str, told: Explanation | None, look: Look) -> Panel:
    if told is None:
        return Panel(title, None, NO_MAP)
    if told.empty:
        return Panel(title, study.display, EMPTY, alt=f"{title}: empty")
    return map_panel(title, told.map, study.display, look)


def _boxed(study: Study, panel: Panel, chosen: Explanation) -> Panel:
    """A map with the chosen box, where there is a map."""
    if panel.picture is None:
        return panel
    box = boxes_to_display(chosen.box[None], study.prediction.size)
    names, colours = [chosen.name], colours_of(study, chosen)
    boxed = draw_boxes(panel.picture, box, names, names, 0, colours)
    return replace(panel, picture=boxed)


def explained_sentence(study: Study, threshold: float) -> str:
    """What the per-box maps explain now, and whether it passed the threshold."""
    chosen, (height, width) = study.class_map(), study.prediction.size
    scored = f"{chosen.name} {chosen.score:.2f}"
    if study.choice.box is not None:
        corners = ", ".join(f"{value:.0f}" for value in chosen.box)
        said = f"Explaining the box {corners}: {scored}."
    else:
        what = "the best-scoring proposal for this class"
        if study.choice.detection is not None:
            what = f"detection {study.choice.detection + 1}"
        said = f"Explaining {what}: {scored}."
        if chosen.score < threshold:
            passing = chosen.label in study.prediction.labels[: study.shown(threshold)]
            none = "This one does not pass" if passing else f"No {chosen.name} passes"
            said = f"{none} the threshold of {threshold:.2f}; explaining {what} all the same: "
            said += f"{scored}."
    return f"{study.name}, {width} × {height}. {said}"


def maps_of(study: Study, settings: Settings) -> dict[str, np.ndarray]:
    """The maps that there are, by title, raw; empty ones are zero."""
    found, last = study.prediction, study.last_map(settings)
    maps = {
        LOCALIZATION: found.localization_map,
        CLASSIFICATION: found.classification_map,
        GRAD_CAM: study.class_map().map,
        last_title(settings): None if last is None else last.map,
    }
    return {title: values for title, values in maps.items() if values is not None}


def figures_of(study: Study, settings: Settings) -> dict:
    """The numbers beside the pictures, ready for JSON but for NaN (an empty map has none).

    An even map has inside the box its share of the photo. The IoU is at half of a map's maximum,
    because Grad-CAM has no scale of its own.
    """
    maps = maps_of(study, settings)
    region = box_region(study.class_map().box * study.scale, maps[GRAD_CAM].shape)

    def each(measure) -> dict[str, float]:
        return {t: measure(m, region) if m.max() > 0 else float("nan") for t, m in maps.items()}

    return {
        "box_share_of_image": float(region.mean()),
        "share_inside_box": each(energy),
        "iou_at_half_with_box": each(mask_iou),
        "rank_correlation": rank_correlations(maps),
        "milliseconds": {
            step: 1000 * seconds for step, seconds in study.seconds_of(settings).items()
        },
    }


def rank_correlations(maps: dict[str, np.ndarray]) -> dict[str, float]:
    """Spearman's rank correlation of each two maps [H, W]; NaN where one of them is constant."""
    ranks = [rankdata(sampled(values, GRID)) for values in maps.values()]
    with np.errstate(invalid="ignore"):
        square = np.corrcoef(np.reshape(ranks, (len(maps), -1)))
    places = combinations(enumerate(maps), 2)
    return {f"{a} / {b}": float(square[i, j]) for (i, a), (j, b) in places}


def record_of(study: Study, settings: Settings) -> dict:
    """Detections and numbers for export: boxes are xyxy pixels of the upright photo."""
    found, chosen, threshold = study.prediction, study.class_map(), settings.threshold
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
            for i in range(study.shown(threshold))
        ],
        "explained": {
            "box": chosen.box.tolist(),
            "class": chosen.name,
            "score": chosen.score,
            "detection": study.choice.detection,
            "passed_threshold": chosen.score >= threshold,
            "explainer_of_per_box_map": settings.explainer,
            "target_of_per_box_map": settings.target,
            "empty_maps": [t for t, m in maps_of(study, settings).items() if not m.max() > 0],
        },
        **figures_of(study, settings),
    }
