"""The maps of one detection of one photograph, side by side: for notebooks."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from als.errors import InputError
from als.explain.registry import EXPLAINERS, Scene, make_maps
from als.images import as_rgb
from als.inference import Analysis, Predictor


def map_row(
    predictor: Predictor,
    image,
    maps: list[str],
    detection: int = 0,
    class_name: str | None = None,
) -> Figure:
    """The photograph with one detection, then each map, from its lowest to its highest value.

    Args:
        image: as `Predictor.predict` takes it. maps: names of `EXPLAINERS`.
        detection: row of the prediction, 0 for the highest score.
        class_name: explain this class, detected or not, and no detection.

    Raises:
        InputError: nothing, or not so much, is detected, or a map or class is unknown.
    """
    unknown = [name for name in maps if name not in EXPLAINERS]
    if unknown:
        raise InputError(f"map '{unknown[0]}' is unknown; choose of {', '.join(EXPLAINERS)}.")
    photo = as_rgb(image)
    analysis = predictor.analyse(photo)
    scene, title = _explained(predictor, analysis, detection, class_name)
    x1, y1, x2, y2 = scene.boxes[0]
    width = 2.3 * (len(maps) + 1)
    figure = Figure(figsize=(width, 2.3 * photo.height / photo.width + 0.5), layout="constrained")
    axes = figure.subplots(1, len(maps) + 1)
    axes[0].imshow(photo)
    axes[0].set_title(title, fontsize=9)
    for axis, name in zip(axes[1:], maps, strict=True):
        axis.imshow(np.asarray(photo.convert("L")), cmap="gray")
        axis.imshow(make_maps(name, scene)[0], cmap="viridis", alpha=0.7)
        axis.set_title(EXPLAINERS[name].title.replace(", ", "\n"), fontsize=8)
    for axis in axes:
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=1.5))
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _explained(
    predictor: Predictor, analysis: Analysis, detection: int, class_name: str | None
) -> tuple[Scene, str]:
    found = analysis.prediction
    if class_name is None:
        scene = predictor.scene(analysis, [detection])
        return scene, f"{found.names[detection]} {found.scores[detection]:.2f}"
    if class_name not in predictor.classes:
        raise InputError(
            f"class '{class_name}' is unknown; choose of {', '.join(predictor.classes)}."
        )
    label = predictor.classes.index(class_name) + 1
    return predictor.scene_of_class(analysis, label), class_name
