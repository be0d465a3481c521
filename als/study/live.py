"""The maps of one detection of one photograph, side by side: for notebooks."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from als.errors import InputError
from als.images import as_rgb
from als.predictor import Predictor
from als.study.maps import MAPS, make_maps
from als.study.scenes import scene_of


def map_row(predictor: Predictor, image, maps: list[str], detection: int = 0) -> Figure:
    """The photograph with one detection, then each map, from its lowest to its highest value.

    Args:
        image: as `Predictor.predict` takes it. maps: names of `MAPS`.
        detection: row of the prediction, 0 for the highest score.

    Raises:
        InputError: nothing, or not so much, is detected, or a map is unknown.
    """
    unknown = [name for name in maps if name not in MAPS]
    if unknown:
        raise InputError(f"map '{unknown[0]}' is unknown; choose of {', '.join(MAPS)}.")
    photo = as_rgb(image)
    analysis = predictor.analyse(photo)
    found = analysis.prediction
    if detection >= len(found.boxes):
        raise InputError(f"detection {detection}: this image has {len(found.boxes)}.")
    scene = scene_of(predictor, analysis, [detection])
    x1, y1, x2, y2 = scene.boxes[0]
    width = 2.3 * (len(maps) + 1)
    figure = Figure(figsize=(width, 2.3 * photo.height / photo.width + 0.5), layout="constrained")
    axes = figure.subplots(1, len(maps) + 1)
    axes[0].imshow(photo)
    axes[0].set_title(f"{found.names[detection]} {found.scores[detection]:.2f}", fontsize=9)
    for axis, name in zip(axes[1:], maps, strict=True):
        axis.imshow(np.asarray(photo.convert("L")), cmap="gray")
        axis.imshow(make_maps(name, scene)[0], cmap="viridis", alpha=0.7)
        axis.set_title(MAPS[name].title.replace(", ", "\n"), fontsize=8)
    for axis in axes:
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=1.5))
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
