"""The second tab: the same photo, two checkpoints, the same views in two rows."""

from pathlib import Path

import gradio as gr

from als.errors import InputError
from als.inference import Predictor, load
from als.ui import parts
from als.ui.panels import panels_of, same_choice
from als.ui.session import Session, SessionStore, Study, study_photo
from als.ui.settings import Settings

NO_PHOTO = '<div class="als-empty"><p>Choose a photo first.</p></div>'
NO_SECOND = (
    '<div class="als-empty"><p><strong>No second checkpoint yet</strong></p><p>Give one above, for '
    "example the same detector trained without attention. A large one is named when the app "
    "starts: <code>als app --other FILE</code>.</p></div>"
)
NOT_COMPARED = (
    '<div class="als-empty"><p>Both models have yet to see this photo: press '
    "<strong>Compare on this photo</strong>.</p></div>"
)


class CompareTab:
    """Handlers of the second tab; each gives (status, views, numbers)."""

    def __init__(self, other: Predictor | None, store: SessionStore):
        self.other, self.store = other, store

    def photo_changed(self, request: gr.Request, payload: dict | None):
        """What stands here until the new photo is compared: nothing of the last one."""
        if (self.store.get(request.session_hash).second or self.other) is None:
            return "", NO_SECOND, ""
        return "", NOT_COMPARED if payload else NO_PHOTO, ""

    def photo_opened(self, request: gr.Request, payload: dict | None):
        """The same once the new photo is open: one of the last may have been compared meanwhile."""
        compared = self.store.get(request.session_hash).compared
        return self.photo_changed(request, payload) if compared is None else [gr.skip()] * 3

    def load_checkpoint(self, request: gr.Request, payload: dict | None, *values):
        """Take an uploaded checkpoint as the second model; the fourth output is its line."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            session.compared, session.second, said = None, None, ""
            if payload and payload.get("path"):
                try:
                    session.second = load(payload["path"]).require_branches()
                except InputError as error:
                    name = payload.get("orig_name") or Path(payload["path"]).name
                    said = str(error).replace(payload["path"], name)
                else:
                    session.second.source = payload.get("orig_name") or session.second.source
            second = session.second or self.other
            line = parts.model_line(second) if second else ""
            status, *shown = self._compared(session, settings)
            return parts.status(said, error=True) or status, *shown, line

    def refresh(self, request: gr.Request, *values):
        """Both rows; the second model runs only on a photo that it has not seen."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            return self._compared(session, settings)

    def redraw(self, request: gr.Request, *values):
        """The rows that there are, as they are chosen and set now; no trunk runs."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            if session.compared is None:
                return [gr.skip()] * 3
            return self._compared(session, settings)

    def _compared(self, session: Session, settings: Settings):
        first, second = session.photo, session.second or self.other
        if second is None:
            return "", NO_SECOND, ""
        if first is None:
            return "", NO_PHOTO, ""
        if session.compared is None:
            try:
                session.compared = study_photo(second, first.analysis.image, first.name)
            except InputError as error:
                return parts.status(str(error), error=True), NOT_COMPARED, ""
        session.compared.choice = same_choice(first, session.compared)
        rows = [
            (_title("First", first), first),
            (_title("Second", session.compared), session.compared),
        ]
        views = [
            (name, panels_of(study, settings.look, settings.threshold, settings.kind))
            for name, study in rows
        ]
        return (
            parts.status(_sentence(first, session.compared)),
            parts.grid(views, settings.look, settings.kind),
            parts.numbers_table(rows, settings.kind),
        )


def _title(which: str, study: Study) -> str:
    attention = study.predictor.detector.config.attention
    return f"{which}: {study.predictor.source} ({'with' if attention else 'without'} attention)"


def _sentence(first: Study, second: Study) -> str:
    """Which box of the second model stands beside the chosen one of the first."""
    mine, theirs = first.class_map(), second.class_map()
    how = "its detection of the same class there"
    if second.choice.detection is None:
        how = "its best-scoring proposal for that class, as it detects none there"
    return (
        f"First: {mine.name} {mine.score:.2f}, chosen on the first tab. Second: {theirs.name} "
        f"{theirs.score:.2f}, {how}."
    )
