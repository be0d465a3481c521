"""What the page hands out: files in a folder of its own, and the API for programs."""

import json
import shutil
import tempfile
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from als.errors import InputError
from als.inference import Predictor
from als.ui.upload_names import name_of
from als.views.keeping import save_views
from als.views.photo_study import (
    DEFAULT_EXPLAINER,
    DEFAULT_THRESHOLD,
    KIND_OF_WORDS,
    Choice,
    Settings,
    Study,
    offered,
    study_photo,
    words_of,
)


def fresh_folder() -> Path:
    """An empty folder of Gradio's cache, which the page may read."""
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="als-", dir=get_upload_folder()))


def write_files(study: Study, settings: Settings, compared: Study | None = None) -> list[str]:
    """`save_views` into a fresh folder of Gradio's cache, which is gone again after an error."""
    folder = fresh_folder()
    try:
        return [str(path) for path in save_views(study, settings, folder, compared)]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class Endpoint:
    """`/analyse`: what the page computes, asked for from a program."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    def analyse(
        self,
        image: dict | None,
        score_threshold: float = DEFAULT_THRESHOLD,
        explain_class: str = "",
        per_box_target: str = "",
        explainer: str = DEFAULT_EXPLAINER,
    ) -> tuple[dict, str, str]:
        """Detect the objects of one photo, explain one of them and measure its maps.

        Args:
            image: a photo by gradio_client.handle_file; of MCP a data: URL or an upload's address.
            score_threshold: 0 to 1; detections below it are left out.
            explain_class: a class to explain at its best proposal; empty for the best detection.
            per_box_target: what the last map explains; empty for the explainer's own.
            explainer: what makes the last map.

        Returns:
            Detections and numbers (JSON), the five views (PNG), the raw maps (NPZ).
        """
        try:
            if not isinstance(image, dict) or not image.get("path"):
                raise InputError("image: none given; send a photo with gradio_client.handle_file.")
            settings = self._settings(score_threshold, per_box_target, explainer)
            choice = self._choice(explain_class) if explain_class else None
            given = self.predictor, image["path"], name_of(image)
            study = study_photo(*given, threshold=settings.threshold)
            study.choice = choice or study.choice
            picture, record, maps = write_files(study, settings)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return json.loads(Path(record).read_text()), picture, maps

    def _choice(self, name: str) -> Choice:
        classes = self.predictor.classes
        if not isinstance(name, str) or name not in classes:
            known = ", ".join(classes)
            raise InputError(f"explain_class {name!r} is unknown; choose one of {known}.")
        return Choice(label=classes.index(name) + 1)

    def _settings(self, threshold, kind: str, explainer: str) -> Settings:
        if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise InputError(f"score_threshold {threshold!r}: give a number from 0 to 1.")
        if kind not in ("", *KIND_OF_WORDS):
            raise InputError(f"per_box_target {kind!r}: choose one of {', '.join(KIND_OF_WORDS)}.")
        if not isinstance(explainer, str) or explainer not in offered(self.predictor):
            known = ", ".join(offered(self.predictor))
            raise InputError(f"explainer {explainer!r} is not offered; choose one of {known}.")
        return Settings(threshold=threshold, kind=kind or words_of(explainer), explainer=explainer)
