"""The third tab: replace an attention map, run again, and see what that does to the boxes."""

import gradio as gr
import numpy as np
from PIL import Image

from als.drawing import Panel, sampled
from als.errors import InputError
from als.ui import parts
from als.ui.cache import fresh_picture
from als.ui.numbers import iou
from als.ui.panels import attention_panels, detections_panel
from als.ui.session import Session, SessionStore, Study, study_photo
from als.ui.settings import Settings

KEEP, ONES, SWAP, INSIDE, OUTSIDE, ONLY, NEVER = (
    "as the network makes it",
    "ones everywhere",
    "the other map",
    "the chosen box: 1 inside, 0 elsewhere",
    "the chosen box: 0 inside, the rest as made",
    "my strokes: 1 there, 0 elsewhere",
    "my strokes: 0 there, the rest as made",
)
CHANGES = [KEEP, ONES, SWAP, INSIDE, OUTSIDE, ONLY, NEVER]
NOTHING_YET = (
    '<div class="als-empty"><p>Choose what becomes of a map, then run. The boxes with the changed '
    "maps appear below the original ones.</p></div>"
)
SAME_OBJECT = 0.5  # IoU from which a box before and a box after are one object


class WhatIfTab:
    """Handlers of the third tab; `run` and `redraw` give (status, views, changes)."""

    def __init__(self, store: SessionStore):
        self.store = store

    def canvas(self, request: gr.Request):
        """The photo to paint on, in the size of the page's pictures."""
        session = self.store.get(request.session_hash)
        if session.painting:  # an editor that is not on the screen does not take it
            session.on_canvas = session.photo
        if session.photo is None:
            return None
        background = fresh_picture(session.photo.display)
        return {"background": background, "layers": [], "composite": None}

    def tab_opened(self, request: gr.Request):
        """The canvas when the tab is opened: strokes on the same photo stay."""
        session = self.store.get(request.session_hash)
        session.painting = True
        if session.photo is not None and session.on_canvas is session.photo:
            return gr.skip()
        return self.canvas(request)

    def tab_left(self, request: gr.Request) -> None:
        """Another tab is open."""
        self.store.get(request.session_hash).painting = False

    def photo_opened(self, request: gr.Request):
        """Nothing of the last photo, which may have been running when this one came."""
        changed = self.store.get(request.session_hash).changed
        return ("", NOTHING_YET, "") if changed is None else [gr.skip()] * 3

    def run(self, request: gr.Request, loc: str, cls: str, painting: dict | None, *values):
        """Run the network with the maps replaced as asked."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            study = session.photo
            if study is None:
                return parts.status("Choose a photo first.", error=True), NOTHING_YET, ""
            try:
                self._change(session, study, loc, cls, painting)
            except InputError as error:
                session.changed = None
                return parts.status(str(error), error=True), NOTHING_YET, ""
            return self._shown(session, settings)

    def _change(self, session: Session, study: Study, loc: str, cls: str, painting) -> None:
        if not study.predictor.detector.config.attention:
            raise InputError("This model has no attention maps that could be replaced.")
        found, regions = study.prediction, {}
        if {loc, cls} & {ONLY, NEVER}:
            regions[ONLY] = regions[NEVER] = strokes_of(painting, found.localization_map.shape)
        if {loc, cls} & {INSIDE, OUTSIDE}:
            regions[INSIDE] = regions[OUTSIDE] = chosen_box(study)
        session.changed = study_photo(
            study.predictor,
            study.analysis.image,
            study.name,
            _map(loc, "classification", found.localization_map, regions, found.size),
            _map(cls, "localization", found.classification_map, regions, found.size),
        )

    def redraw(self, request: gr.Request, *values):
        """The last result as it is set now; nothing is run."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            if session.changed is None:
                return [gr.skip()] * 3
            return self._shown(session, settings)

    def _shown(self, session: Session, settings: Settings):
        before, after = session.photo, session.changed
        rows = [
            ("As the network makes its maps", _panels(before, settings)),
            ("With the maps replaced", _panels(after, settings)),
        ]
        changes = changes_of(before, after, settings.threshold)
        gone = sum(row[2] == "gone" for row in changes)
        new = sum(row[1] == "none" for row in changes)
        said = f"Boxes: {len(changes) - gone - new} kept, {gone} gone, {new} new."
        return parts.status(said), parts.grid(rows, settings.look, ""), parts.changes_table(changes)


def _panels(study: Study, settings: Settings) -> list[Panel]:
    attention = attention_panels(study, settings.look, None)
    return [detections_panel(study, settings.threshold, None), *attention]


def _map(change: str, other: str, made: np.ndarray, regions: dict[str, np.ndarray], size):
    """What `Predictor.analyse` takes for one map of a photo of `size` (height, width)."""
    if change == SWAP:
        return other
    if change in (ONLY, INSIDE):
        return sampled(regions[change], size)
    if change in (NEVER, OUTSIDE):
        return sampled(made * (1 - regions[change]), size)
    return 1.0 if change == ONES else None


def chosen_box(study: Study) -> np.ndarray:
    """1 inside the box that is explained, 0 elsewhere: float32 [H, W] of the kept maps' size."""
    found = study.prediction
    height, width = found.localization_map.shape
    scale = np.tile([width / found.size[1], height / found.size[0]], 2)
    x1, y1, x2, y2 = np.round(study.class_map().box * scale).astype(int)
    region = np.zeros((height, width), np.float32)
    region[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = 1
    return region


def strokes_of(painting: dict | None, size: tuple[int, int]) -> np.ndarray:
    """The painted pixels as a map [H, W] of 0 and 1 of `size` (height, width).

    Raises:
        InputError: nothing was painted.
    """
    layers = (painting or {}).get("layers") or []
    painted = [np.asarray(layer)[..., 3] > 0 for layer in layers if np.ndim(layer) == 3]
    if not painted or not np.any(painted):
        raise InputError("Nothing is painted yet: draw on the photo, then run.")
    mask = Image.fromarray(np.any(painted, axis=0))
    return np.asarray(mask.resize((size[1], size[0])), dtype=np.float32)


def changes_of(before: Study, after: Study, threshold: float) -> list[tuple[str, str, str, str]]:
    """(class, score before, score after, IoU of the two boxes) of each box that is over the
    threshold before or after; boxes of one class that overlap by half are the same object."""
    old, new = before.prediction, after.prediction
    free = {i for i in range(len(new.boxes)) if new.scores[i] >= threshold}
    rows = []
    for i in np.flatnonzero(old.scores >= threshold):
        overlap = iou(old.boxes[i], new.boxes) * (new.labels == old.labels[i])
        best = max(free, key=lambda j: overlap[j], default=None)
        if best is not None and overlap[best] >= SAME_OBJECT:
            free.remove(best)
            after_score, both = f"{new.scores[best]:.3f}", f"{overlap[best]:.2f}"
        else:
            after_score, both = "gone", ""
        rows.append((old.names[i], f"{old.scores[i]:.3f}", after_score, both))
    rows += [(new.names[j], "none", f"{new.scores[j]:.3f}", "") for j in sorted(free)]
    return rows
