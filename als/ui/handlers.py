"""What the page does on each event: change the session, then draw the tab that is open."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from threading import Lock

import gradio as gr

from als.errors import InputError
from als.explain import EXPLAINERS
from als.images import MAX_SIDE
from als.inference import Predictor, load
from als.ui import markup, what_if
from als.ui.example_link import asked_for, example_of, link_of
from als.ui.gallery import MAX_PHOTOGRAPHS, ORDERS, read_gallery
from als.ui.gate import MAX_UPLOAD
from als.ui.session import Session, SessionStore
from als.ui.takeaway import fresh_folder, write_files
from als.ui.upload_names import name_of
from als.views.panels import captions, explained_sentence, first_panels, panels_of
from als.views.photo_study import Box, Choice, Settings, Study, study_photo, words_of

# Names of the package's checkpoints -> what the page calls them.
MODELS = {
    "shipped": "Six animals",
    "animals": "Six animals, the paper's F A",
    "twenty": "Twenty classes",
}
NO_CLASS = "the chosen detection"
NO_PHOTO = "There is no photo here, or it is no longer kept in memory: choose it again."
NO_VIEWS = markup.empty(
    "Drop one in, paste it, take one with the camera, or choose an example. Five pictures of it "
    "appear here: what is found, where the model looks to place boxes, where it looks to name what "
    "is in them, and two maps of one box.",
    "No photo yet",
)
NOT_COMPARED = markup.empty("Choose a photo: the views of both models appear here.")
NO_SECOND = markup.empty(
    "Give one above, for example the same detector trained without attention. A large one is named "
    "when the app starts: als app --other FILE.",
    "No second checkpoint yet",
)
NOT_CHANGED = markup.empty(
    "Choose what becomes of a map, then run. The boxes with the changed maps appear below the "
    "original ones."
)
NO_GALLERY = markup.empty(
    f"Choose up to {MAX_PHOTOGRAPHS} above, {MAX_UPLOAD // 2**20} MB together. With annotations "
    "beside them, VOC's XML files or a JSON file of COCO's, each shows what is true, false and "
    "missed. A click opens one on the first tab, which tells why an object was missed.",
    "No photographs yet",
)
EVERY_CLASS = "every class"
CORNERS = ("x1", "y1", "x2", "y2")
DRAW_A_BOX, STOP_DRAWING = "Draw a box", "Stop drawing"
FIRST_CORNER = "Click the first corner of the box on a picture, or stop."
EMPTY_PAGE = {
    **{"table": "", "sentence": "", "views": NO_VIEWS, "numbers": "", "name": NO_CLASS},
    **{"missed": "", "box_status": "", "draw": DRAW_A_BOX} | dict.fromkeys(CORNERS),
    **{"compare_status": "", "compare_views": NOT_COMPARED, "compare_numbers": ""},
    **{"changed_status": "", "changed_views": NOT_CHANGED, "changes": ""},
    "files": gr.update(visible=False, value=None),
}


def lowest_of(predictor: Predictor) -> float:
    """The least threshold of a page: the model's own, below which nothing was kept, or a hundredth
    above it, on the slider's grid."""
    return math.ceil(round(100 * predictor.detector.config.score_threshold, 6)) / 100


class Handlers:
    """One method an event. Each gives the parts of the page that change, by name.

    `values`: of the page's controls, as `Settings.from_page` takes them. predictor: the model that
    a page begins with, model its name if it is one of `MODELS`; those are loaded when they are
    asked for.
    """

    def __init__(
        self,
        predictor: Predictor,
        other: Predictor | None,
        store: SessionStore,
        model: str | None = None,
    ):
        self.predictor, self.other, self.store, self.model = predictor, other, store, model
        self.models = {} if model is None else {model: predictor}
        self.loading = Lock()

    def model_of(self, session: Session) -> Predictor:
        """The one that a page has chosen."""
        return self.predictor if session.model is None else self.models[session.model]

    def _named(self, name: str) -> Predictor:
        """One of `MODELS`. Raises InputError if it is none."""
        if not isinstance(name, str) or name not in MODELS:
            raise InputError(f"This page has no such model; it has {', '.join(MODELS)}.")
        with self.loading:  # of two pages that ask for it at once, one waits
            if name not in self.models:
                self.models[name] = load(name, str(self.predictor.device))
        return self.models[name]

    def _take_model(self, session: Session, name: str) -> dict:
        """Choose one of `MODELS`; what the page knows of it.

        Raises InputError for none of them, and where a page begins with a model of its owner.
        """
        if self.model is None:
            raise InputError("This page has one model: leave 'model' out of the address.")
        classes = self._named(name).classes
        session.model, session.gallery = name, None
        session.opening = session.asked = None  # their classes are the other model's
        return self._of_model(session) | {
            "listed": gr.update(choices=[EVERY_CLASS, *classes], value=EVERY_CLASS),
            **{"gallery": NO_GALLERY, "gallery_status": ""},
        }

    def _of_model(self, session: Session, label: int | None = None) -> dict:
        """What the page says of the model that it has chosen. label: the class at "Explain"."""
        predictor = self.model_of(session)
        names = [NO_CLASS, *predictor.classes]
        return {
            "threshold": gr.update(minimum=lowest_of(predictor)),
            "model": session.model or self.model,
            "about": markup.model_line(predictor),
            "name": gr.update(choices=names, value=names[label or 0]),
        }

    def choose_model(self, request: gr.Request, name: str, *values) -> dict:
        """The photo as another model sees it."""
        session = self.store.get(request.session_hash)
        with session.lock:
            told, before = EMPTY_PAGE | self._take_model(session, name), session.photo
            settings, least = Settings.from_page(*values), lowest_of(self.model_of(session))
            if settings.threshold < least:  # of which this model keeps nothing
                settings = replace(settings, threshold=least)
                told["threshold"] |= {"value": least}
            session.open(None)
            if before is not None:
                predictor = self.model_of(session)
                session.open(study_photo(predictor, before.analysis.image, before.name))
                session.photo.example = before.example
            return told | self._drawn(session, settings)

    def open_photo(self, request: gr.Request, payload: dict | None, *values) -> dict:
        """Run the network on a new photo; the maps of one box follow in `refresh`.

        A photo that cannot be read is taken off the page.
        """
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            came, known = (payload or {}).get("path"), (session.opening, session.listed)
            session.open(None)
            # Of two quick choices the first comes first; one that was clicked twice comes twice.
            listed = next((one for one in known if one and str(one.path) == came), None)
            if listed is session.opening:
                session.opening = None
            if not came:
                # Emptying the photo after an error comes here too: what was said then stays.
                said = {} if session.refused else {"status": ""}
                session.refused = False
                return EMPTY_PAGE | said | self._canvas(session)
            try:
                session.open(study_photo(self.model_of(session), came, name_of(payload)))
            except InputError as error:
                session.refused = True
                said = {"status": markup.status(str(error), error=True), "photo": None}
                return EMPTY_PAGE | said | self._canvas(session)
            if listed:
                session.listed, session.photo.truth = listed, listed.truth
                session.photo.name = listed.name
            self._as_asked(session, Path(came))
            panels = first_panels(session.photo, settings)
            # A page that was forgotten is back at the model it began with: it says so.
            told = EMPTY_PAGE | self._of_model(session, session.photo.choice.label)
            return told | {
                "status": "",
                "table": self._table(session.photo, settings),
                "views": markup.grid([("", panels)], settings.look, captions(settings, True)),
            }

    def _as_asked(self, session: Session, path: Path) -> None:
        """The choice of the address, on an example."""
        study, choice = session.photo, session.asked
        session.asked, study.example = None, example_of(path, study.name)
        rows = range(len(study.prediction.boxes))
        if study.example and choice and (choice.label or choice.detection in rows):
            study.choice = choice

    def follow_link(self, request: gr.Request) -> dict:
        """The model, the example and the settings that the page's address asks for, if it does."""
        session, query = self.store.get(request.session_hash), dict(request.query_params)
        with session.lock:
            told = {}
            try:
                if "model" in query:
                    told = self._take_model(session, query["model"])
                asked = asked_for(query, self.model_of(session))
            except InputError as error:
                return told | {"status": markup.status(str(error), error=True)}
            if asked is None:
                return told
            path, settings, session.asked = asked
            interactive = bool(EXPLAINERS[settings.explainer].kind)
            kind = gr.update(value=settings.kind, interactive=interactive)
            told |= asdict(settings) | {"photo": str(path), "kind": kind}
            if session.asked.label is not None:
                name = self.model_of(session).classes[session.asked.label - 1]
                told["name"] = told.get("name", {}) | gr.update(value=name)
            return told

    def in_order(self, handler: Callable, kind: str = "page") -> Callable:
        """The handler for events that say first when the page sent them, in its milliseconds.

        One that was sent before the last one of its kind that was handled does nothing.
        """

        @wraps(handler)
        def ordered(request: gr.Request, sent: float | None, *values) -> dict:
            session = self.store.get(request.session_hash)
            with session.lock:
                if isinstance(sent, int | float):  # as any page sends it
                    if sent < session.sent.get(kind, 0):
                        return {}
                    session.sent[kind] = sent
                return handler(request, *values)

        return ordered

    def refresh(self, request: gr.Request, *values) -> dict:
        """The open tab as it is chosen and set now; new maps only where needed."""
        session = self.store.get(request.session_hash)
        with session.lock:
            return self._drawn(session, Settings.from_page(*values))

    def catch_up(self, request: gr.Request, *values) -> dict:
        """After an answer that waited for the network: what was set meanwhile, if it was drawn."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            return {} if settings == session.drawn else self._drawn(session, settings)

    def open_tab(self, request: gr.Request, event: gr.EventData, *values) -> dict:
        """Another tab; the second model runs only on a photo that it has not seen."""
        session = self.store.get(request.session_hash)
        with session.lock:
            session.tab = str(event_of(event).get("value"))
            return self._drawn(session, Settings.from_page(*values))

    def pick(self, request: gr.Request, event: gr.EventData, *values) -> dict:
        """A click on a row of the table or on a picture."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            study, told = session.photo, event_of(event)
            if study is None:
                return {"status": markup.status(NO_PHOTO, error=True)}
            row, x, y = (told.get(name) for name in ("row", "x", "y"))
            is_place = row is None and all(isinstance(one, int | float) for one in (x, y))
            if is_place and session.corners is not None:
                return self._corner(session, x, y, settings)
            if is_place:
                row = study.detection_at(x, y, settings.threshold)
            if not isinstance(row, int) or not 0 <= row < len(study.prediction.boxes):
                said = "No detection there. Lower the threshold to see more, or choose a class."
                return {"status": markup.status(said)}
            study.choice = Choice(detection=row)
            # While a box is drawn, it says how.
            over = {"name": NO_CLASS} | ({} if session.corners is not None else {"box_status": ""})
            return self._drawn(session, settings) | over

    def pick_missed(self, request: gr.Request, event: gr.EventData, *values) -> dict:
        """A click on a missed object: explain its class at the proposal that came furthest."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        with session.lock:
            study, place = session.photo, event_of(event).get("row")
            if study is None or study.truth is None:
                return {"status": markup.status(NO_PHOTO, error=True)}
            told, _ = study.losses(settings.threshold)
            if not isinstance(place, int) or not 0 <= place < len(told):
                return self._drawn(session, settings)
            row, lost = told[place]
            if lost.proposal is None:
                said = "No region is proposed in this photo, so there is none to explain."
                return {"box_status": markup.status(said)}
            label = int(study.truth.labels[row])
            told = self._boxed(session, tuple(lost.roi.tolist()), settings, label)
            if study.choice.label == label:  # the box was not refused
                told["name"] = study.predictor.classes[label - 1]
            return told

    def draw_box(self, request: gr.Request) -> dict:
        """Begin to draw a box, or stop."""
        session = self.store.get(request.session_hash)
        with session.lock:
            if session.photo is None:
                return {"status": markup.status(NO_PHOTO, error=True)}
            session.corners = [] if session.corners is None else None
            return self._drawing(session)

    def explain_box(self, request: gr.Request, x1, y1, x2, y2, *values) -> dict:
        """The box of the number fields."""
        session, settings = self.store.get(request.session_hash), Settings.from_page(*values)
        box = x1, y1, x2, y2
        with session.lock:
            if session.photo is None:
                return {"status": markup.status(NO_PHOTO, error=True)}
            # Compared before anything is computed: JSON has whole numbers of any length.
            if not all(isinstance(one, int | float) and 0 <= one <= MAX_SIDE for one in box):
                said = "Give all four numbers, in pixels of the photo."
                return {"box_status": markup.status(said, error=True)}
            return self._boxed(session, box, settings)

    def _corner(self, session: Session, x: float, y: float, settings: Settings) -> dict:
        """A corner of a box that is drawn; x, y: 0 to 1. The second one ends the drawing."""
        height, width = session.photo.prediction.size
        session.corners.append((min(max(x, 0), 1) * width, min(max(y, 0), 1) * height))
        if len(session.corners) == 1:
            return self._drawing(session)
        (x1, x2), (y1, y2) = map(sorted, zip(*session.corners, strict=True))
        session.corners = None
        return self._drawing(session) | self._boxed(session, (x1, y1, x2, y2), settings)

    def _drawing(self, session: Session) -> dict:
        if session.corners is None:
            return {"box_status": "", "draw": DRAW_A_BOX}
        said = FIRST_CORNER
        if session.corners:
            x, y = session.corners[0]
            said = f"First corner at {x:.0f}, {y:.0f}. Click the opposite one, or stop."
        return {"box_status": markup.status(said), "draw": STOP_DRAWING}

    def _boxed(self, session: Session, box: Box, settings: Settings, label=None) -> dict:
        """Explain a box for a class: without `label`, that chosen at "Explain" if one is."""
        study, before = session.photo, session.photo.choice
        if label is None and before.detection is None:
            label = before.label
        study.choice = Choice(label=label, box=box)
        try:
            study.class_map()
        except InputError as error:
            study.choice = before
            return {"box_status": markup.status(str(error), error=True)}
        return self._drawing(session) | self._drawn(session, settings)

    def load_gallery(
        self, request: gr.Request, payload: list | None, place: str = "", anew: bool = False
    ) -> Iterator[dict]:
        """Run the network on several photographs, which are said to be done one by one.

        `list_gallery` then shows them, as the page is set by that time. place: which of the
        page's places for files gives them; one that is emptied takes its own away alone. anew:
        only if this place was the last that gave some, for another model.
        """
        session = self.store.get(request.session_hash)
        emptied = not payload and session.gallery is not None
        if (anew or emptied) and session.gallery_place != place:
            yield {} if anew else {"gallery_status": ""}
            return
        session.gallery, session.gallery_place = None, place
        predictor = self.model_of(session)
        if not payload:
            yield {"gallery": NO_GALLERY, "gallery_status": ""}
            return
        try:
            for gallery, left in read_gallery(predictor, payload):
                done = len(gallery.photographs)
                said = f"{done} of {done + left} photographs are done."
                yield {"gallery_status": markup.status(said)}
        except InputError as error:
            yield {"gallery": NO_GALLERY, "gallery_status": markup.status(str(error), error=True)}
            return
        if predictor is not self.model_of(session):  # which reads them after this
            return
        session.gallery = gallery
        # A page that was forgotten is back at the model it began with: it says so.
        yield {
            "about": markup.model_line(predictor),
            "model": session.model or self.model,
            "listed": gr.update(choices=[EVERY_CLASS, *predictor.classes]),
            "gallery_status": "",
        }

    def list_gallery(self, request: gr.Request, name: str, order: str, *values) -> dict:
        """The gallery for another class, order or threshold."""
        gallery = self.store.get(request.session_hash).gallery
        if gallery is None:
            return {}
        if order not in list(ORDERS) or name not in (EVERY_CLASS, *gallery.classes):
            raise InputError("These are not values of this page's controls: load the page again.")
        chosen = None if name == EVERY_CLASS else name
        threshold = Settings.from_page(*values).threshold
        return {"gallery": markup.gallery_grid(gallery, threshold, chosen, order)}

    def open_listed(self, request: gr.Request, event: gr.EventData, *values) -> dict:
        """A photograph of the gallery becomes the photo, on the first tab."""
        session, place = self.store.get(request.session_hash), event_of(event).get("row")
        with session.lock:
            photographs = [] if session.gallery is None else session.gallery.photographs
            known = isinstance(place, int) and 0 <= place < len(photographs)
            if not known or not photographs[place].path.is_file():
                said = "This photograph is no longer kept: upload it again."
                return {"gallery_status": markup.status(said, error=True)}
            session.tab = "Explain"
            first = {"tabs": gr.update(selected="Explain"), "gallery_status": ""}
            if session.listed is photographs[place]:  # it is on the page already
                return first | self._drawn(session, Settings.from_page(*values))
            session.opening = photographs[place]
            return first | {"photo": str(session.opening.path)}

    def pick_class(self, request: gr.Request, name: str, *values) -> dict:
        """A class to explain at its best-scoring proposal, or back to the best detection."""
        session = self.store.get(request.session_hash)
        with session.lock:
            study = session.photo
            if study is None:
                return {"status": markup.status(NO_PHOTO, error=True)}
            if name in study.predictor.classes:
                label = study.predictor.classes.index(name) + 1
                study.choice = Choice(label=label, box=study.choice.box)
            elif study.choice.detection is None:
                study.choice = study.best
            return self._drawn(session, Settings.from_page(*values))

    def pick_explainer(self, name: str) -> dict:
        """The choice of its scalar begins at the explainer's own; some explain none."""
        if not isinstance(name, str) or name not in EXPLAINERS:
            raise InputError("There is no such explainer on this page.")
        interactive = bool(EXPLAINERS[name].kind)
        return {"kind": gr.update(value=words_of(name), interactive=interactive)}

    def load_second(self, request: gr.Request, payload: dict | None, *values) -> dict:
        """Take an uploaded checkpoint as the second model."""
        session, said = self.store.get(request.session_hash), {}
        with session.lock:
            if not payload and any(session.second is one for one in self.models.values()):
                return {}  # the file was not in use
            session.compared = session.second = None
            if payload and payload.get("path"):
                try:
                    session.second = load(payload["path"]).require_branches()
                    session.second.source = name_of(payload)
                except InputError as error:
                    text = str(error).replace(payload["path"], name_of(payload))
                    said = {"compare_status": markup.status(text, error=True)}
            line = markup.model_line(session.second or self.other)
            told = self._drawn(session, Settings.from_page(*values))
            return told | {"second": line, "second_model": None} | said

    def choose_second(self, request: gr.Request, name: str, *values) -> dict:
        """One of `MODELS` as the second model."""
        session = self.store.get(request.session_hash)
        with session.lock:
            session.compared, session.second = None, self._named(name)
            told = self._drawn(session, Settings.from_page(*values))
            return told | {"second": markup.model_line(session.second)}

    def change_maps(self, request: gr.Request, loc: str, cls: str, painting, *values) -> dict:
        """Run the network with the maps replaced as asked."""
        session = self.store.get(request.session_hash)
        with session.lock:
            session.changed = None
            try:
                if session.photo is None:
                    raise InputError("Choose a photo first.")
                session.changed = what_if.with_changed_maps(session.photo, loc, cls, painting)
            except InputError as error:
                said = {"changed_status": markup.status(str(error), error=True)}
                return {"changed_views": NOT_CHANGED, "changes": ""} | said
            session.drawn = Settings.from_page(*values)
            return self._changed(session, session.drawn)

    def download(self, request: gr.Request, *values) -> dict:
        """The three files of what the page shows now."""
        session = self.store.get(request.session_hash)
        with session.lock:
            if session.photo is None:
                raise gr.Error("Choose a photo first.", duration=5, print_exception=False)
            if session.compared is not None:  # its tab may have been left before the last choice
                session.compared.choice = session.compared.same_choice(session.photo)
            files = write_files(session.photo, Settings.from_page(*values), session.compared)
            return {"files": gr.update(visible=True, value=files)}

    def forget(self, request: gr.Request) -> None:
        """The browser's tab was closed."""
        self.store.drop(request.session_hash)

    def _drawn(self, session: Session, settings: Settings) -> dict:
        """The table of detections and the open tab; what is not on the screen stays as it was."""
        session.drawn = settings
        if session.photo is None:
            return self._compared(session, settings) | self._canvas(session)
        draw = {"Compare": self._compared, "What if": self._changed}
        try:
            shown = draw.get(session.tab, self._explained)(session, settings)
        except InputError as error:
            return {"status": markup.status(str(error), error=True)}
        return {"status": "", "table": self._table(session.photo, settings)} | shown

    def _table(self, study: Study, settings: Settings) -> str:
        return markup.detections_table(study, settings.threshold, models=bool(self.models))

    def _explained(self, session: Session, settings: Settings) -> dict:
        study, panels = session.photo, panels_of(session.photo, settings)
        return {
            "sentence": markup.status(explained_sentence(study, settings.threshold))
            + markup.example_link(link_of(study, settings, session.model)),
            "views": markup.grid([("", panels)], settings.look, captions(settings, True)),
            "numbers": markup.numbers_table(study, settings),
            "missed": markup.missed_table(study, settings.threshold),
            **dict(zip(CORNERS, study.class_map().box.round().tolist(), strict=True)),
        }

    def _compared(self, session: Session, settings: Settings) -> dict:
        first, second = session.photo, session.second or self.other
        if first is None or second is None:
            views = NO_SECOND if second is None else NOT_COMPARED
            return {"compare_status": "", "compare_views": views, "compare_numbers": ""}
        if session.compared is None:
            least = first.predictor.detector.config.score_threshold
            image = first.analysis.image
            session.compared = study_photo(second, image, first.name, threshold=least)
        session.compared.choice = session.compared.same_choice(first)
        session.compared.above = first
        both = {"First": first, "Second": session.compared}
        rows = [(_title(which, study), study) for which, study in both.items()]
        views = [(name, panels_of(study, settings)) for name, study in rows]
        numbers = [markup.numbers_table(study, settings, name) for name, study in rows]
        return {
            "compare_status": markup.status(_which_boxes(first, session.compared)),
            "compare_views": markup.grid(views, settings.look, captions(settings)),
            "compare_numbers": "".join(numbers),
        }

    def _changed(self, session: Session, settings: Settings) -> dict:
        before, after, canvas = session.photo, session.changed, self._canvas(session)
        if after is None:
            return {"changed_views": NOT_CHANGED} | canvas
        rows = [
            ("As the network makes its maps", first_panels(before, settings, waiting=False)),
            ("With the maps replaced", first_panels(after, settings, waiting=False)),
        ]
        changes = what_if.changes_of(before, after, settings.threshold)
        gone = sum(row[2] == "gone" for row in changes)
        new = sum(row[1] == "none" for row in changes)
        said = f"Boxes: {len(changes) - gone - new} kept, {gone} gone, {new} new."
        return canvas | {
            "changed_status": markup.status(said),
            "changed_views": markup.grid(rows, settings.look, captions(settings)),
            "changes": markup.changes_table(changes),
        }

    def _canvas(self, session: Session) -> dict:
        """The photo to paint on, in the size of the page's pictures, unless it is there already.

        Only while its tab is open: an editor that is not on the screen does not take it.
        """
        if session.tab != "What if":
            return {}
        if session.photo is None:
            return {"canvas": None}
        if session.on_canvas is session.photo:
            return {}
        session.on_canvas = session.photo
        # A picture that Gradio stores itself goes to a file named after its content, which is
        # written again when the same picture comes again, perhaps while a browser reads it.
        path = fresh_folder() / "photo.png"
        session.photo.display.save(path, compress_level=1)
        return {"canvas": {"background": str(path), "layers": [], "composite": None}}


def event_of(event: gr.EventData) -> dict:
    """What came with an event; anybody may send one with nothing, or with something else."""
    return event._data if isinstance(event._data, dict) else {}


def _title(which: str, study: Study) -> str:
    attention = study.predictor.detector.config.attention
    return f"{which}: {study.predictor.source} ({'with' if attention else 'without'} attention)"


def _which_boxes(first: Study, second: Study) -> str:
    """Which box of the second model stands beside the chosen one of the first."""
    mine, theirs = first.class_map(), second.class_map()
    if second.choice.box is not None:
        how = "of the same box"
    elif theirs.name != mine.name:
        how = f"its own best, as it does not know {mine.name}"
    elif second.choice.detection is None:
        how = "its best-scoring proposal for that class, as it detects none there"
    else:
        how = "its detection of the same class there"
    return (
        f"First: {mine.name} {mine.score:.2f}, chosen on the first tab. Second: {theirs.name} "
        f"{theirs.score:.2f}, {how}."
    )
