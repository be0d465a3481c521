"""The page: which component stands where, and which handler answers which event."""

import re
from collections.abc import Callable
from copy import copy
from functools import wraps
from pathlib import Path
from urllib.parse import unquote

import gradio as gr
from gradio.utils import get_upload_folder

from als.drawing import COLOUR_MAPS, RULES, Look
from als.errors import InputError
from als.inference import Predictor
from als.photographs import package_photographs
from als.ui import handlers, markup
from als.ui.canvas import Canvas
from als.ui.gallery import ORDERS
from als.ui.gate import MAX_FILE_SIZE, MAX_UPLOAD
from als.ui.handlers import MODELS, NO_CLASS, Handlers, event_of, lowest_of
from als.ui.session import SessionStore
from als.ui.style import ENLARGE, NAME_EXAMPLES, PICK, REFUSE_LARGE
from als.ui.takeaway import Endpoint
from als.ui.upload_names import shown_name
from als.ui.what_if import CHANGES, KEEP, NEUTRAL
from als.views.photo_study import DEFAULT_EXPLAINER, DEFAULT_THRESHOLD, KIND_OF_WORDS, offered

MAX_WAITING = 64  # events in the queue; who comes later is told that it is full
UPLOADED = re.compile(r"https?://[^/]+/gradio_api/file=(.+)")
NOT_UPLOADED = "That file was not uploaded to this page, or it is gone: upload it again."
TITLE = "Attentive layer separation"
HEAD = (
    f'<div class="als-head"><h1>{TITLE}</h1><p>Where a detector looks to say <em>where</em>, and '
    "where it looks to say <em>what</em>.</p></div>"
)
WHAT_IF = (
    '<p class="als-status">The two maps are part of the computation, so they can be tested by '
    "intervention: replace one, and boxes and scores follow. The classification map is made "
    "from the localization map's feature and follows it, unless you replace it too. In Python: "
    '<code>predictor.predict(photo, localization_map="neutral")</code>.</p>'
)
# Events of one group run one at a time: the network has one lock anyway, and a queue is fair.
MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
DRAW = {"concurrency_id": "draw", "concurrency_limit": 4, "api_visibility": "private"}
GALLERY = {"concurrency_id": "gallery", "concurrency_limit": 1, "api_visibility": "private"}
HIDDEN = {"show_progress": "hidden"}
# Gradio would drop what is chosen while the answer to the choice before is on its way. An event
# that says what was clicked is sent each time: put off, it would say what was clicked first.
LATEST, EACH = {"trigger_mode": "always_last"}, {"trigger_mode": "multiple"}
# Two events of a tab may be handled in the other order: each of these says when it was sent.
STAMP = {"js": "(sent, ...values) => [performance.now(), ...values]"}
# Gradio would decode the photo itself before the pixel limit is checked.
RAW = {"preprocess": False}


class Page(gr.Blocks):
    """Blocks that take a file from the folder of uploads or not at all, in every event.

    `/analyse` may be sent its first values alone, as `gradio_client` allows too: programs that post
    four values are older than the fifth.
    """

    async def preprocess_data(self, block_fn, inputs: list, state, explicit_call: bool = False):
        """Raises gr.Error, one sentence, for values that the page would not send."""
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error as error:  # of a Dropdown, for what is none of its choices
            error.print_exception = False
            raise
        except Exception as error:  # pydantic, PIL, KeyError, ...: made by hand
            said = f"These are not the values that this event takes ({type(error).__name__})."
            raise gr.Error(said, print_exception=False) from error

    async def postprocess_data(self, block_fn, predictions, state) -> list:
        # Gradio makes each component anew that an answer by component leaves out: as long as most
        # answers take. Here it sees those that the answer holds.
        told, outputs = copy(block_fn), block_fn.outputs
        if isinstance(predictions, dict) and len(outputs) > 1:
            told.outputs = [block for block in outputs if block in predictions]
            if not told.outputs:
                return [gr.skip() for _ in outputs]
        values = iter(await super().postprocess_data(told, predictions, state))
        answer = [next(values) if block in told.outputs else gr.skip() for block in outputs]
        # One that an update changes is made anew under another number, by which its next value is
        # kept: a session would hold every value that it ever showed.
        for number, block in state.blocks_config.blocks.items() if state else ():
            block._id = number
        return answer

    def validate_inputs(self, block_fn, inputs: list) -> None:
        if block_fn.api_name == "analyse":
            inputs.extend(block.value for block in block_fn.inputs[len(inputs) :])
        super().validate_inputs(block_fn, inputs)
        _refuse_other_files(inputs, Path(get_upload_folder()).resolve())


def _refuse_other_files(value, folder: Path) -> None:
    """Raise gr.Error if a value names a file that is not in the folder, or none at all: the same
    sentence for both, so that nobody learns which files there are."""
    if isinstance(value, dict):
        path = value.get("path")
        if path is not None:
            if isinstance(path, str) and (upload := UPLOADED.match(path)):
                path = value["path"] = unquote(upload[1])  # by its address, as MCP gives it
            try:
                inside = folder in Path(path).resolve().parents and Path(path).is_file()
            except (TypeError, ValueError, OSError):
                inside = False
            if not inside:
                raise gr.Error(NOT_UPLOADED, print_exception=False)
            value["meta"] = {"_type": "gradio.FileData"}
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            _refuse_other_files(one, folder)
        elif isinstance(one, str) and not one.isascii() and "\\ud" in ascii(one):
            # A lone surrogate: an answer that repeats it could not be sent.
            raise gr.Error("A text that is no text was sent.", print_exception=False)


def build_app(
    predictor: Predictor, other: Predictor | None = None, model: str | None = None
) -> gr.Blocks:
    """The page for one model and, on its second tab, another one beside it.

    model: the predictor's name if it is one of `MODELS`; the page then offers the others too.
    Use `launch` to serve it; who serves it otherwise passes what `serving` gives.
    """
    handle = Handlers(predictor, other, SessionStore(), model)
    with Page(title=TITLE, analytics_enabled=False, fill_width=True) as app:
        of_models = _head(predictor, model)
        parts, controls = _inputs(predictor)
        parts |= of_models
        with gr.Tabs() as tabs:
            with gr.Tab("Explain", id="Explain"):
                export, corners, boxed = _explain(parts)
            with gr.Tab("Compare"):
                file = _compare(parts, other, model)
            with gr.Tab("What if"):
                run, changes = _what_if(parts)
            with gr.Tab("Gallery"):
                uploads, listing = _photographs(parts, predictor)
        _endpoint(Endpoint(predictor))
        parts["tabs"] = tabs
        answer, values = _answering(parts), list(controls.values())
        shown, quiet = list(parts.values()), _quiet(parts)
        given = [*corners, *values]
        slow = [boxed.click(answer(handle.explain_box), given, shown, **quiet, **MODEL, **RAW)]
        there = {"show_progress_on": [parts["compare_views"]]} | MODEL | RAW
        slow += [file.change(answer(handle.load_second), [file, *values], shown, **there)]
        second, given = parts["second_model"], [parts["second_model"], *values]
        slow += [second.input(answer(handle.choose_second), given, shown, **there, **LATEST)]
        there = {"show_progress_on": [parts["changed_views"]]} | MODEL
        given = [*changes, parts["canvas"], *values]
        slow += [run.click(answer(handle.change_maps), given, shown, **there)]
        of_model = _connect(handle, parts, controls, slow)
        _connect_gallery(handle, parts, controls, uploads, listing, of_model)
        there = {"show_progress_on": [parts["numbers"]]} | MODEL | RAW
        export.click(answer(handle.download), values, shown, **there)
        linked = parts | controls
        unique = list(dict.fromkeys(linked.values()))
        app.load(_answering(linked)(handle.follow_link), None, unique, **quiet, **DRAW)
        app.unload(handle.forget)
    return app.queue(max_size=MAX_WAITING)


def _quiet(parts: dict) -> dict:
    """Of an event that shows no progress.

    At each step of an event Gradio's page copies all that the parts hold that could show it, the
    pictures too: here it is one small part.
    """
    return HIDDEN | {"show_progress_on": [parts["status"]]}


def _answering(parts: dict[str, gr.components.Component]) -> Callable:
    """What turns a handler's answer, by name, into one by component."""

    def answering(handler):
        @wraps(handler)  # Gradio reads the annotations
        def answer(*given):
            try:
                told = {parts[name]: value for name, value in handler(*given).items()}
                return told or gr.skip()  # an empty answer would be a value
            except InputError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return answer

    return answering


def _connect_gallery(
    handle: Handlers, parts: dict, controls: dict, uploads, listing, of_model
) -> None:
    """Events of the fourth tab; after `of_model`, the choice of a model, it is read anew."""
    answer, values, shown = _answering(parts), list(controls.values()), list(parts.values())
    quiet = _quiet(parts)
    given = [gr.Number(visible=False), *listing, *values]
    listed = answer(handle.in_order(handle.list_gallery, "gallery"))

    def loading(place: str, anew: bool):
        @wraps(handle.load_gallery)
        def load(request, payload, *_):  # Gradio gives the defaults, which are not these
            given = payload, place, anew
            for told in handle.load_gallery(request, *given):  # several times, errors too
                yield {parts[name]: value for name, value in told.items()}

        return load

    again = {"fn": listed, "inputs": given, "outputs": [parts["gallery"]]} | STAMP
    again |= quiet | DRAW | RAW
    there = {"show_progress_on": [parts["gallery"]]} | GALLERY | RAW
    for upload in uploads:
        for event, anew in ((upload.change, False), (of_model.then, True)):
            load = loading(upload.elem_id, anew)
            event(load, upload, shown, **there, **LATEST).then(**again, **LATEST)
    triggers = [*(one.input for one in listing), controls["threshold"].input]
    gr.on(triggers, **again, **LATEST)
    parts["gallery"].pick(
        answer(handle.open_listed), values, shown, **EACH, **quiet, **MODEL, **RAW
    )


def _connect(handle: Handlers, parts: dict, controls: dict, slow: list) -> gr.events.Dependency:
    """Events of the row above the tabs, of the pictures and of the tabs; the choice of a model."""
    answer, values, shown = _answering(parts), list(controls.values()), list(parts.values())
    quiet = _quiet(parts)
    stamped = {"inputs": [gr.Number(visible=False), *values], "outputs": shown} | STAMP
    refresh = {"fn": answer(handle.in_order(handle.refresh))} | stamped
    catch_up = {"fn": answer(handle.in_order(handle.catch_up))} | stamped
    hidden = quiet | MODEL | RAW
    latest, each = LATEST | hidden, EACH | hidden
    views = {"show_progress_on": [parts["views"], parts["compare_views"]]} | MODEL | RAW
    opened = parts["photo"].change(
        answer(handle.open_photo), [parts["photo"], *values], shown, **views
    )
    explainer, own = controls["explainer"], answer(handle.pick_explainer)
    of_explainer = explainer.input(own, explainer, parts["kind"], **LATEST, **quiet, **DRAW)
    chosen = [parts["model"], *values]
    of_model = parts["model"].input(answer(handle.choose_model), chosen, shown, **LATEST, **views)
    slow += [
        of_model,
        opened.then(**refresh, **latest),
        of_explainer.then(**refresh, **latest),
        controls["kind"].input(**refresh, **latest),
        parts["tabs"].select(answer(handle.open_tab), values, shown, **EACH, **views),
        parts["table"].pick(answer(handle.pick), values, shown, **each),
        parts["views"].pick(answer(handle.pick), values, shown, **each),
        parts["missed"].pick(answer(handle.pick_missed), values, shown, **each),
        parts["name"].input(answer(handle.pick_class), [parts["name"], *values], shown, **latest),
    ]
    for event in slow:  # the settings that it was sent may be older by the time it answers
        event.then(**catch_up, **LATEST, **quiet, **DRAW, **RAW)
    parts["draw"].click(answer(handle.draw_box), None, shown, **quiet, **DRAW)
    drawing = [controls[name].input for name in ("threshold", "opacity", "colour_map", "rule")]
    gr.on(drawing, **refresh, **LATEST, **quiet, **DRAW, **RAW)
    return of_model


def _head(predictor: Predictor, model: str | None) -> dict:
    """Title, what the model says of itself, and the choice of another."""
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            _html(HEAD, js_on_load=NAME_EXAMPLES)
            about = _html(markup.model_line(predictor))
        with gr.Column(scale=1, min_width=240, visible=model is not None):
            chooser = _chooser("Model", value=model, elem_id="model")
    return {"about": about, "model": chooser}


def _chooser(label: str, visible: bool = True, **options) -> gr.Dropdown:
    choices = [(title, name) for name, title in MODELS.items()]
    return gr.Dropdown(choices, label=label, visible=visible, **options)


def _inputs(predictor: Predictor) -> tuple[dict, dict]:
    """The row above the tabs: parts that handlers change, and controls in the order of Settings."""
    lowest = lowest_of(predictor)
    kinds = list(KIND_OF_WORDS)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            photo = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                label="Photo",
                height=240,
                elem_id="photo",
            )
            status = _status("status", "#photo")
            gr.Examples(
                [[str(path)] for path in package_photographs()],
                [photo],
                label="Examples",
                elem_id="examples",
                api_visibility="private",
            )
        with gr.Column(scale=4, min_width=300):
            value = max(lowest, DEFAULT_THRESHOLD)
            threshold = gr.Slider(
                lowest, 1, value, step=0.01, label="Score threshold", elem_id="threshold"
            )
            table = _html(js_on_load=PICK, elem_id="detections")
        with gr.Column(scale=3, min_width=300):
            name = gr.Dropdown(
                [NO_CLASS, *predictor.classes],
                value=NO_CLASS,
                label="Explain",
                info="A class can be explained even if nothing of it is detected.",
                elem_id="class-choice",
            )
            explainer = gr.Dropdown(
                [(title, name) for name, title in offered(predictor).items()],
                value=DEFAULT_EXPLAINER,
                label="Last view",
                elem_id="explainer",
            )
            kind = gr.Dropdown(kinds, value=kinds[0], label="Last view explains the box's")
            with gr.Accordion("How maps are drawn", open=False, elem_id="drawing"):
                opacity = gr.Slider(
                    0, 1, Look.opacity, step=0.05, label="Opacity", elem_id="opacity"
                )
                with gr.Row():
                    colour_map = gr.Dropdown(
                        COLOUR_MAPS, value=Look.colour_map, label="Colours", scale=2, min_width=110
                    )
                    rule = gr.Dropdown(
                        RULES, value=Look.rule, label="Scale, for every map", scale=3, min_width=220
                    )
    parts = {"photo": photo, "status": status, "table": table, "name": name, "kind": kind}
    parts["threshold"] = threshold
    controls = {"threshold": threshold, "kind": kind, "opacity": opacity}
    return parts, controls | {"colour_map": colour_map, "rule": rule, "explainer": explainer}


def _explain(parts: dict) -> tuple[gr.Button, list[gr.Number], gr.Button]:
    """The first tab; gives its button for the three files, and the fields and button of a box."""
    parts["sentence"] = _html(elem_id="sentence")
    parts["views"] = _html(handlers.NO_VIEWS, js_on_load=ENLARGE + PICK, elem_id="views")
    parts["box_status"] = _html(elem_id="box-status")
    with gr.Row(elem_id="own-box"):
        parts["draw"] = gr.Button(handlers.DRAW_A_BOX, min_width=140, elem_id="draw")
        corners = [gr.Number(label=name, minimum=0, min_width=80) for name in handlers.CORNERS]
        parts |= dict(zip(handlers.CORNERS, corners, strict=True))
        boxed = gr.Button("Explain the box of these pixels", min_width=140, elem_id="boxed")
    parts["missed"] = _html(js_on_load=PICK, elem_id="missed")
    parts["numbers"] = _html(elem_id="numbers")
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            button = gr.Button("Export picture, numbers and maps", elem_id="export")
        with gr.Column(scale=2, min_width=300):
            parts["files"] = gr.File(
                label="PNG, JSON, NPZ",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )
    return button, corners, boxed


def _compare(parts: dict, other: Predictor | None, model: str | None) -> gr.File:
    """The second tab; gives the place of the second checkpoint."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            file = gr.File(
                label="Second checkpoint (.safetensors)",
                file_types=[".safetensors"],
                height=150,
                elem_id="second-checkpoint",
            )
        with gr.Column(scale=2, min_width=300):
            parts["second_model"] = _chooser("Or one of the package", model is not None, value=None)
            parts["second"] = _html(markup.model_line(other))
            parts["compare_status"] = _status("compare-status", "#second-checkpoint")
    nothing = handlers.NOT_COMPARED if other else handlers.NO_SECOND
    parts["compare_views"] = _html(nothing, js_on_load=ENLARGE, elem_id="compare-views")
    parts["compare_numbers"] = _html(elem_id="compare-numbers")
    return file


def _what_if(parts: dict) -> tuple[gr.Button, list[gr.Dropdown]]:
    """The third tab; gives its button and what becomes of the two maps."""
    _html(WHAT_IF)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            loc = gr.Dropdown(CHANGES, value=NEUTRAL, label="Localization map becomes")
            cls = gr.Dropdown(CHANGES, value=KEEP, label="Classification map becomes")
            run = gr.Button("Run with these maps", variant="primary", elem_id="run")
            parts["changed_status"] = _html(elem_id="whatif-status")
            parts["changes"] = _html(elem_id="whatif-changes")
        with gr.Column(scale=1, min_width=300):
            parts["canvas"] = Canvas(
                label="Strokes",
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=40, colors=["#E69F00"], color_mode="fixed"),
                height=420,
                elem_id="canvas",
            )
    views = _html(handlers.NOT_CHANGED, js_on_load=ENLARGE, elem_id="whatif-views")
    parts["changed_views"] = views
    return run, [loc, cls]


def _photographs(
    parts: dict, predictor: Predictor
) -> tuple[list[gr.File], list[gr.components.Component]]:
    """The fourth tab; gives the places for files, and what they are listed by."""
    uploads = []
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                for count, label in (("multiple", "Photographs"), ("directory", "A folder")):
                    look = {"height": 150, "elem_classes": "als-files"}
                    look["elem_id"] = f"gallery-{count}"
                    uploads.append(gr.File(label=label, file_count=count, **look))
            parts["gallery_status"] = _status("gallery-status", ".als-files")
        with gr.Column(scale=2, min_width=240):
            classes = [handlers.EVERY_CLASS, *predictor.classes]
            name = gr.Dropdown(classes, value=classes[0], label="Show", elem_id="gallery-class")
            orders = list(ORDERS)
            order = gr.Dropdown(orders, value=orders[0], label="Order", elem_id="gallery-order")
    parts["listed"] = name
    parts["gallery"] = _html(handlers.NO_GALLERY, js_on_load=PICK, elem_id="gallery")
    return uploads, [name, order]


def _endpoint(endpoint: Endpoint) -> None:
    """`/analyse`, without a place on the page."""
    with gr.Group(visible=False):
        inputs = [
            gr.File(label="image"),
            gr.Number(DEFAULT_THRESHOLD, label="score_threshold"),
            gr.Textbox("", label="explain_class"),
            gr.Dropdown(["", *KIND_OF_WORDS], value="", label="per_box_target"),
            gr.Textbox(DEFAULT_EXPLAINER, label="explainer"),
        ]
        outputs = [gr.JSON(label="record"), gr.File(label="comparison"), gr.File(label="maps")]
        public = MODEL | RAW | {"api_visibility": "public", "api_name": "analyse"}
        gr.Button().click(endpoint.analyse, inputs, outputs, **public)


def _html(value: str = "", **options) -> gr.HTML:
    """The page's own HTML; Gradio's style for running text would draw lines into the tables."""
    return gr.HTML(value, apply_default_css=False, **options)


def _status(elem_id: str, place: str) -> gr.HTML:
    """A line for errors, which also refuses files that are too large for the uploads at `place`."""
    limits = {"limit": MAX_FILE_SIZE, "together": MAX_UPLOAD}
    refuse = REFUSE_LARGE % ({"place": place} | limits)
    line = _html(elem_id=elem_id, js_on_load=refuse)
    line.refuse(_too_large, None, line, **HIDDEN, **DRAW, **RAW)
    return line


def _too_large(event: gr.EventData) -> str:
    told = event_of(event)
    try:
        name, megabytes = shown_name(told["name"]), float(told["size"]) / 2**20
    except (KeyError, TypeError, ValueError):
        name, megabytes = "the file", float("inf")
    limit = f"the limit of {MAX_FILE_SIZE / 2**20:g} MB; give a smaller file."
    if not name:
        name, limit = "All files", f"the limit of {MAX_UPLOAD / 2**20:g} MB; give fewer at once."
    return markup.status(f"{name}: {megabytes:.1f} MB are over {limit}", error=True)
