"""The paper's Figs. 1 and 3: detections, localization map and classification map of photographs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from als.drawing import Look, boxes_to_display, draw_boxes, overlay, to_display
from als.errors import InputError
from als.images import as_rgb
from als.predictor import Prediction, Predictor

SIDE = 360  # pixels; 'all the figures are resized to the same size', says the paper of its Fig. 3
ROWS = ("Detections", "Localization map", "Classification map")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def photographs_in(folder: str | Path) -> list[Path]:
    """The image files of a folder by name. Raises InputError if it, or any in it, is missing."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder.")
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ENDINGS)
    if not paths:
        raise InputError(f"{folder}: no image file; give a folder with {', '.join(ENDINGS)}.")
    return paths


def attention_figure(
    predictor: Predictor,
    images: Sequence,
    score_threshold: float = 0.5,
    look: Look | None = None,
) -> Figure:
    """A column an image, a row for the detections and each map; every map has its values below.

    Args:
        images: paths, PIL images or arrays, as `Predictor.predict` takes them.
        look: how maps are shown; None is opaque enough to read colours off, from 0 to 1.

    Raises:
        InputError: no image, one that cannot be read, or a model without attention.
    """
    if not len(images):
        raise InputError("no image to show; give at least one.")
    if not predictor.detector.config.attention:
        raise InputError(f"{predictor.source}: has no attention maps to show.")
    look = look or Look(opacity=0.75, rule="raw 0 to 1")
    figure = Figure(figsize=(2.6 * len(images) + 0.9, 8.4), layout="constrained")
    axes = figure.subplots(len(ROWS), len(images), squeeze=False)
    for column, image in zip(axes.T, images, strict=True):
        prediction = predictor.predict(image, score_threshold=score_threshold)
        _draw_column(column, as_rgb(image), prediction, look)
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(name, fontsize=11)
    return figure


def _draw_column(column: Sequence[Axes], photo, prediction: Prediction, look: Look) -> None:
    shown = to_display(photo)
    boxes = boxes_to_display(prediction.boxes, prediction.size)
    texts = [f"{n} {s:.2f}" for n, s in zip(prediction.names, prediction.scores, strict=True)]
    pictures = [draw_boxes(shown, boxes, prediction.labels, texts)]
    notes = [f"{len(boxes)} found"]
    for map in (prediction.localization_map, prediction.classification_map):
        pictures.append(overlay(shown, map, look))
        low, high = np.percentile(map, [5, 95])
        notes.append(f"mean {map.mean():.2f}, 5 to 95%: {low:.2f} to {high:.2f}")
    for axis, picture, note in zip(column, pictures, notes, strict=True):
        axis.imshow(picture.resize((SIDE, SIDE)))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel(note, fontsize=8)
        axis.spines[:].set_visible(False)
