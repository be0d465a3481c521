"""Files to take away: the comparison as PNG, the numbers as JSON, the raw maps as NPZ; the API."""

import json
from pathlib import Path

import gradio as gr
import numpy as np

from als.drawing import Look, comparison
from als.errors import InputError
from als.files import write_json
from als.inference import Predictor
from als.model.grid import map_to_image
from als.ui.cache import fresh_folder
from als.ui.panels import explained_sentence, panels_of, record_of
from als.ui.session import BOX_KINDS, Choice, SessionStore, Study, study_photo
from als.ui.settings import DEFAULT_THRESHOLD, Settings


def write_files(study: Study, settings: Settings, compared: Study | None = None) -> list[str]:
    """[comparison.png, detections.json, maps.npz] in a fresh folder of Gradio's cache.

    `compared` adds the second model's row to the picture.
    """
    folder = fresh_folder()
    rows = [
        (s.predictor.source, panels_of(s, settings.look, settings.threshold, settings.kind))
        for s in (study, compared)
        if s is not None
    ]
    heading = explained_sentence(study, settings.threshold)
    comparison(rows, settings.look, heading).save(folder / "comparison.png", compress_level=3)
    write_json(folder / "detections.json", record_of(study, settings.threshold, settings.kind))
    np.savez_compressed(folder / "maps.npz", **_arrays(study, BOX_KINDS[settings.kind]))
    return [str(folder / name) for name in ("comparison.png", "detections.json", "maps.npz")]


def _arrays(study: Study, kind: str) -> dict[str, np.ndarray]:
    """Detections and raw maps at the photo's size; no attention maps where the model has none."""
    found, encoding = study.prediction, study.analysis.encoding
    attention = {
        "localization_map": map_to_image(encoding.a_loc, encoding),
        "classification_map": map_to_image(encoding.a_cls, encoding),
    }
    score = BOX_KINDS["class score"]
    return {
        "boxes": found.boxes,
        "labels": found.labels,
        "scores": found.scores,
        "grad_cam": study.explain_whole(score, "gradcam").map,
        "gradient_x_activation": study.explain_whole(kind, "gradact").map,
        **{name: map for name, map in attention.items() if map is not None},
    }


class Export:
    """The download button and the API endpoint."""

    def __init__(self, predictor: Predictor, store: SessionStore):
        self.predictor, self.store = predictor, store

    def download(self, request: gr.Request, *values):
        """The three files of what the page shows now."""
        session = self.store.get(request.session_hash)
        with session.lock:
            if session.photo is None:
                raise gr.Error("Choose a photo first.", duration=5)
            return write_files(session.photo, Settings.from_page(*values), session.compared)

    def analyse(
        self,
        image: dict | None,
        score_threshold: float = DEFAULT_THRESHOLD,
        explain_class: str = "",
        per_box_target: str = next(iter(BOX_KINDS)),
    ) -> tuple[dict, str, str]:
        """Detect, explain and measure one photo.

        image: a photo, as gradio_client.handle_file gives it. score_threshold: 0 to 1.
        explain_class: a class to explain at its best-scoring proposal; empty for the best
        detection. per_box_target: what the gradient x activation map explains.

        Returns detections and numbers (JSON), the five views (PNG), the raw maps (NPZ).
        """
        try:
            if not image or not image.get("path"):
                raise InputError("image: none given; send a photo with gradio_client.handle_file.")
            name = image.get("orig_name") or Path(image["path"]).name
            study = study_photo(self.predictor, image["path"], name)
            study.choice = self._choice(study, explain_class)
            settings = _checked(score_threshold, per_box_target)
        except InputError as error:
            raise gr.Error(str(error)) from error
        picture, record, maps = write_files(study, settings)
        told = json.loads(Path(record).read_text())
        Path(record).unlink()  # Gradio deletes what it hands out, an hour later, and nothing else
        return told, picture, maps

    def _choice(self, study: Study, explain_class: str) -> Choice:
        if not explain_class:
            return study.choice
        if explain_class not in self.predictor.classes:
            known = ", ".join(self.predictor.classes)
            raise InputError(f"explain_class '{explain_class}' is unknown; choose one of {known}.")
        return Choice(label=self.predictor.classes.index(explain_class) + 1)


def _checked(threshold, kind: str) -> Settings:
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise InputError(f"score_threshold {threshold!r}: give a number from 0 to 1.")
    if kind not in BOX_KINDS:
        raise InputError(f"per_box_target '{kind}': choose one of {', '.join(BOX_KINDS)}.")
    look = Look()
    return Settings(threshold, kind, look.opacity, look.colour_map, look.rule)
