"""Views to keep: the pictures as PNG, the numbers as JSON, the raw maps as NPZ."""

from pathlib import Path

import numpy as np

from als.drawing import comparison
from als.files import atomic_write, write_json
from als.model.grid import map_to_image
from als.views.panels import explained_sentence, panels_of, record_of
from als.views.photo_study import DEFAULT_EXPLAINER, Settings, Study


def save_views(
    study: Study, settings: Settings, folder: Path, compared: Study | None = None
) -> list[Path]:
    """Write comparison.png, detections.json and maps.npz into a folder; gives their paths.

    `compared` adds the second model's row to the picture.
    """
    picture, record, maps = (
        folder / name for name in ("comparison.png", "detections.json", "maps.npz")
    )
    studies = [study] if compared is None else [study, compared]
    rows = [(each.predictor.source, panels_of(each, settings)) for each in studies]
    heading = explained_sentence(study, settings.threshold)
    with atomic_write(picture) as aside:
        sheet = comparison(rows, settings.look, heading)
        sheet.save(aside, format="png", compress_level=3)
    write_json(record, record_of(study, settings))
    with atomic_write(maps) as aside, open(aside, "wb") as file:  # a path would get a suffix
        np.savez_compressed(file, **_arrays(study, settings))
    return [picture, record, maps]


def _arrays(study: Study, settings: Settings) -> dict[str, np.ndarray]:
    """Detections and raw maps at the photo's size; no attention maps where the model has none."""
    found, encoding = study.prediction, study.analysis.encoding
    default = settings.explainer == DEFAULT_EXPLAINER
    last, name = study.last_map(settings, whole=True), settings.explainer
    arrays = {
        "boxes": found.boxes,
        "labels": found.labels,
        "scores": found.scores,
        "grad_cam": study.class_map(whole=True).map,
        "gradient_x_activation" if default else name: None if last is None else last.map,
        "localization_map": map_to_image(encoding.a_loc, encoding),
        "classification_map": map_to_image(encoding.a_cls, encoding),
    }
    return {name: values for name, values in arrays.items() if values is not None}
