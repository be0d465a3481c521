"""A prediction as files: a picture with the boxes beside both maps, and JSON."""

from pathlib import Path

import numpy as np
from PIL import Image

from als.files import atomic_write, write_json
from als.images import as_rgb
from als.inference import Prediction
from als.report.sheet import comparison
from als.report.views import (
    Look,
    Panel,
    boxes_to_display,
    draw_boxes,
    overlay,
    to_display,
    value_range,
)

COMPRESSION = 1  # of PNG's 9 levels; the usual 6 takes 4.5 times as long and saves a tenth
LOOK = Look(rule="raw 0 to 1")  # both maps on the scale on which they multiply the feature


def save_prediction(
    path: Path, prediction: Prediction, out: Path, photo: Image.Image | None = None
) -> Path:
    """Write `<out>/<name>.png` and `<out>/<name>.json`; returns the picture's path.

    Args:
        path: the image that was predicted. out: folder, made if missing.
        photo: what the file holds, upright and RGB, at any size; None to read it.

    The JSON holds size [height, width] and for each detection name, score and box [x1, y1, x2,
    y2] in pixels of the upright image.
    """
    photo = to_display(as_rgb(path) if photo is None else photo)
    boxes = boxes_to_display(prediction.boxes, prediction.size)
    scored = list(zip(prediction.names, prediction.scores, strict=True))
    texts = [f"{name} {score:.2f}" for name, score in scored]
    panels = [Panel("Detections", draw_boxes(photo, boxes, prediction.labels, texts))]
    panels += [
        _map_panel(photo, "Localization map", prediction.localization_map),
        _map_panel(photo, "Classification map", prediction.classification_map),
    ]
    picture = out / f"{path.stem}.png"
    sheet = comparison([("", panels)], LOOK, path.name)
    with atomic_write(picture) as aside:
        sheet.save(aside, format="png", compress_level=COMPRESSION)
    detections = [
        {"name": name, "score": float(score), "box": box.tolist()}
        for (name, score), box in zip(scored, prediction.boxes, strict=True)
    ]
    record = {"image": path.name, "size": prediction.size, "detections": detections}
    write_json(out / f"{path.stem}.json", record)
    return picture


def _map_panel(photo, title: str, map: np.ndarray | None) -> Panel:
    if map is None:
        return Panel(title, None, "This model has no attention, so there is no such map.")
    return Panel(title, overlay(photo, map, LOOK), bar=value_range(map, LOOK.rule))
