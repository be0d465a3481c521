"""The first tab: one photo, one model, five views, and the choice of what is explained."""

from pathlib import Path

import gradio as gr

from als.drawing import Panel
from als.errors import InputError
from als.inference import Predictor
from als.ui import parts
from als.ui.panels import (
    TITLES,
    attention_panels,
    detections_panel,
    explained_sentence,
    panels_of,
)
from als.ui.session import Choice, Session, SessionStore, detection_at, study_photo
from als.ui.settings import Settings

NO_CLASS = "the chosen detection"
NOTHING = ("", "", parts.EMPTY_PAGE, "")  # table, sentence, views and numbers without a photo
NO_PHOTO = "There is no photo here, or it is no longer kept in memory: choose it again."


class ExplainTab:
    """Handlers of the first tab; each gives (status, table, sentence, views, numbers)."""

    def __init__(self, predictor: Predictor, store: SessionStore):
        self.predictor, self.store = predictor, store

    def open_photo(self, request: gr.Request, payload: dict | None, *values):
        """Run the network on a new photo; the maps of one box follow in `refresh`.

        Gives the five outputs, then the photo (emptied if it cannot be read) and the class choice.
        """
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            if not payload or not payload.get("path"):
                # Emptying the photo after an error comes here too: what was said then stays.
                said, session.refused = gr.skip() if session.refused else "", False
                session.open(None)
                return said, *NOTHING, gr.skip(), NO_CLASS
            name = payload.get("orig_name") or Path(payload["path"]).name
            try:
                session.open(study_photo(self.predictor, payload["path"], name))
            except InputError as error:
                session.open(None)
                session.refused = True
                return parts.status(str(error), error=True), *NOTHING, None, NO_CLASS
            return *self._first_pictures(session, settings), gr.skip(), NO_CLASS

    def _first_pictures(self, session: Session, settings: Settings):
        study = session.photo
        waiting = [Panel(title, None, "Computing …") for title in TITLES[3:]]
        panels = [
            detections_panel(study, settings.threshold, None),
            *attention_panels(study, settings.look, None),
            *waiting,
        ]
        views = parts.grid([("", panels)], settings.look, settings.kind, clickable=True)
        return "", parts.detections_table(study, settings.threshold), "", views, ""

    def refresh(self, request: gr.Request, *values):
        """Everything of the photo as it is chosen and set now; new maps only where needed."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            if session.photo is None:
                return [gr.skip()] * 5
            return self._all(session, settings)

    def pick(self, request: gr.Request, event: gr.EventData, *values):
        """A click on a row of the table or on a picture; the sixth output is the class choice."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            study = session.photo
            if study is None:
                return parts.status(NO_PHOTO, error=True), *[gr.skip()] * 5
            row = event._data.get("row")
            if row is None:
                x, y = float(event._data["x"]), float(event._data["y"])
                row = detection_at(study, x, y, settings.threshold)
            if row is None or not 0 <= int(row) < len(study.prediction.boxes):
                said = "No detection there. Lower the threshold to see more, or choose a class."
                return parts.status(said), *[gr.skip()] * 5
            study.choice = Choice(detection=int(row))
            return *self._all(session, settings), NO_CLASS

    def pick_class(self, request: gr.Request, name: str, *values):
        """A class to explain at its best-scoring proposal, or back to the best detection."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            study = session.photo
            if study is None:
                return parts.status(NO_PHOTO, error=True), *[gr.skip()] * 4
            if name in study.predictor.classes:
                study.choice = Choice(label=study.predictor.classes.index(name) + 1)
            elif study.choice.detection is None and len(study.prediction.boxes):
                study.choice = Choice(detection=0)
            return self._all(session, settings)

    def _all(self, session: Session, settings: Settings):
        study = session.photo
        panels = panels_of(study, settings.look, settings.threshold, settings.kind)
        return (
            "",
            parts.detections_table(study, settings.threshold),
            parts.status(explained_sentence(study, settings.threshold)),
            parts.grid([("", panels)], settings.look, settings.kind, clickable=True),
            parts.numbers_table([("", study)], settings.kind),
        )
