"""The page: which component stands where, and which handler answers which event."""

import re
from collections.abc import Callable
from copy import copy
from functools import partial, wraps
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
from als.ui.example_link import USUAL
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
# Gradio would drop what is chosen while the answer to the choice before is on its way. An event
# that says what was clicked is sent each time: put off, it would say what was clicked first.
LATEST, EACH = {"trigger_mode": "always_last"}, {"trigger_mode": "multiple"}
# Two events of a tab may be handled in the other order: each of these says when it was sent.
STAMP = {"js": "(sent, ...values) => [performance.now(), ...values]"}
# Gradio would decode the photo itself before the pixel limit is checked.
RAW = {"preprocess": False}
UPLOADS = {"multiple": "Photographs", "directory": "A folder"}  # by what Gradio calls them
Parts = dict[str, gr.components.Component]  # by the names that handlers answer with


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
    parts: Parts = {}
    with Page(title=TITLE, analytics_enabled=False, fill_width=True) as app:
        _head(parts, predictor, model)
        _inputs(parts, predictor)
        with gr.Tabs() as parts["tabs"]:
            with gr.Tab("Explain", id="Explain"):
                _explain(parts)
            with gr.Tab("Compare"):
                _compare(parts, other, model)
            with gr.Tab("What if"):
                _what_if(parts)
            with gr.Tab("Gallery"):
                _photographs(parts, predictor)
        _endpoint(predictor)
        _connect(app, Handlers(predictor, other, SessionStore(), model), parts)
    return app.queue(max_size=MAX_WAITING)


def _answering(parts: Parts, handler: Callable) -> Callable:
    """The handler, whose answer by name becomes one by component."""

    @wraps(handler)  # Gradio reads the annotations
    def answer(*given):
        try:
            told = {parts[name]: value for name, value in handler(*given).items()}
            return told or gr.skip()  # an empty answer would be a value
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answer


def _connect(app: gr.Blocks, handle: Handlers, parts: Parts) -> None:
    """Which handler answers which event."""
    answer, shown = partial(_answering, parts), list(parts.values())
    values = [parts[name] for name in USUAL]  # the controls, in the order of `Settings`
    # At each step of an event Gradio's page copies all that the parts hold that could show its
    # progress, the pictures too: where none is shown, that is one small part.
    quiet = {"show_progress": "hidden", "show_progress_on": [parts["status"]]}
    draw, hidden = quiet | DRAW, quiet | MODEL | RAW
    latest, each = LATEST | hidden, EACH | hidden
    stamp = gr.Number(visible=False)
    stamped = {"inputs": [stamp, *values], "outputs": shown} | STAMP
    refresh = {"fn": answer(handle.in_order(handle.refresh))} | stamped
    catch_up = {"fn": answer(handle.in_order(handle.catch_up))} | stamped

    def on(event: Callable, handler: Callable, *own: str, **options) -> gr.events.Dependency:
        """own: parts whose values come before those of the controls."""
        given = [*(parts[name] for name in own), *values]
        return event(answer(handler), given, shown, **options)

    def there(*names: str) -> dict:
        return {"show_progress_on": [parts[name] for name in names]} | MODEL | RAW

    def loading(place: str, anew: bool):
        @wraps(handle.load_gallery)
        def load(request, payload, *_):  # Gradio gives the defaults, which are not these
            given = payload, place, anew
            for told in handle.load_gallery(request, *given):  # several times, errors too
                yield {parts[name]: value for name, value in told.items()}

        return load

    views, compared = there("views", "compare_views"), there("compare_views")
    changed = there("changed_views") | {"preprocess": True}  # by `Canvas`
    opened = on(parts["photo"].change, handle.open_photo, "photo", **views)
    explainer, own = parts["explainer"], answer(handle.pick_explainer)
    of_explainer = explainer.input(own, explainer, parts["kind"], **LATEST, **draw)
    of_model = on(parts["model"].input, handle.choose_model, "model", **LATEST, **views)
    slow = [
        of_model,
        opened.then(**refresh, **latest),
        of_explainer.then(**refresh, **latest),
        parts["kind"].input(**refresh, **latest),
        on(parts["tabs"].select, handle.open_tab, **EACH, **views),
        on(parts["table"].pick, handle.pick, **each),
        on(parts["views"].pick, handle.pick, **each),
        on(parts["missed"].pick, handle.pick_missed, **each),
        on(parts["name"].input, handle.pick_class, "name", **latest),
        on(parts["boxed"].click, handle.explain_box, *handlers.CORNERS, **hidden),
        on(parts["second_file"].change, handle.load_second, "second_file", **compared),
        on(parts["second_model"].input, handle.choose_second, "second_model", **compared, **LATEST),
        on(parts["run"].click, handle.change_maps, "loc", "cls", "canvas", **changed),
    ]
    for event in slow:  # the settings that it was sent may be older by the time it answers
        event.then(**catch_up, **LATEST, **draw, **RAW)
    drawing = [parts[name].input for name in ("threshold", "opacity", "colour_map", "rule")]
    gr.on(drawing, **refresh, **LATEST, **draw, **RAW)
    parts["draw"].click(answer(handle.draw_box), None, shown, **draw)
    on(parts["export"].click, handle.download, **there("numbers"))

    listing = [parts["listed"], parts["order"]]
    again = {"fn": answer(handle.in_order(handle.list_gallery, "gallery"))}
    again |= {"inputs": [stamp, *listing, *values], "outputs": [parts["gallery"]]}
    again |= STAMP | LATEST | draw | RAW
    reading = {"show_progress_on": [parts["gallery"]]} | GALLERY | LATEST | RAW
    for place in UPLOADS:  # after the choice of a model they are read anew
        for event, anew in ((parts[place].change, False), (of_model.then, True)):
            event(loading(place, anew), parts[place], shown, **reading).then(**again)
    gr.on([*(one.input for one in listing), parts["threshold"].input], **again)
    on(parts["gallery"].pick, handle.open_listed, **each)
    app.load(answer(handle.follow_link), None, shown, **draw)
    app.unload(handle.forget)


def _head(parts: Parts, predictor: Predictor, model: str | None) -> None:
    """Title, what the model says of itself, and the choice of another."""
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            _html(HEAD, js_on_load=NAME_EXAMPLES)
            parts["about"] = _html(markup.model_line(predictor))
        with gr.Column(scale=1, min_width=240, visible=model is not None):
            parts["model"] = _chooser("Model", value=model, elem_id="model")


def _chooser(label: str, visible: bool = True, **options) -> gr.Dropdown:
    choices = [(title, name) for name, title in MODELS.items()]
    return gr.Dropdown(choices, label=label, visible=visible, **options)


def _inputs(parts: Parts, predictor: Predictor) -> None:
    """The row above the tabs."""
    lowest = lowest_of(predictor)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            parts["photo"] = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                label="Photo",
                height=240,
                elem_id="photo",
            )
            parts["status"] = _status("status", "#photo")
            gr.Examples(
                [[str(path)] for path in package_photographs()],
                [parts["photo"]],
                label="Examples",
                elem_id="examples",
                api_visibility="private",
            )
        with gr.Column(scale=4, min_width=300):
            value = max(lowest, DEFAULT_THRESHOLD)
            parts["threshold"] = gr.Slider(
                lowest, 1, value, step=0.01, label="Score threshold", elem_id="threshold"
            )
            parts["table"] = _html(js_on_load=PICK, elem_id="detections")
        with gr.Column(scale=3, min_width=300):
            parts["name"] = gr.Dropdown(
                [NO_CLASS, *predictor.classes],
                label="Explain",
                info="A class can be explained even if nothing of it is detected.",
                elem_id="class-choice",
            )
            parts["explainer"] = gr.Dropdown(
                [(title, name) for name, title in offered(predictor).items()],
                value=DEFAULT_EXPLAINER,
                label="Last view",
                elem_id="explainer",
            )
            parts["kind"] = gr.Dropdown(list(KIND_OF_WORDS), label="Last view explains the box's")
            with gr.Accordion("How maps are drawn", open=False, elem_id="drawing"):
                parts["opacity"] = gr.Slider(
                    0, 1, Look.opacity, step=0.05, label="Opacity", elem_id="opacity"
                )
                with gr.Row():
                    parts["colour_map"] = gr.Dropdown(
                        COLOUR_MAPS, value=Look.colour_map, label="Colours", scale=2, min_width=110
                    )
                    parts["rule"] = gr.Dropdown(
                        RULES, value=Look.rule, label="Scale, for every map", scale=3, min_width=220
                    )


def _explain(parts: Parts) -> None:
    """The first tab."""
    parts["sentence"] = _html(elem_id="sentence")
    parts["views"] = _html(handlers.NO_VIEWS, js_on_load=ENLARGE + PICK, elem_id="views")
    parts["box_status"] = _html(elem_id="box-status")
    with gr.Row(elem_id="own-box"):
        parts["draw"] = gr.Button(handlers.DRAW_A_BOX, min_width=140, elem_id="draw")
        for name in handlers.CORNERS:
            parts[name] = gr.Number(label=name, minimum=0, min_width=80)
        words = "Explain the box of these pixels"
        parts["boxed"] = gr.Button(words, min_width=140, elem_id="boxed")
    parts["missed"] = _html(js_on_load=PICK, elem_id="missed")
    parts["numbers"] = _html(elem_id="numbers")
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            parts["export"] = gr.Button("Export picture, numbers and maps", elem_id="export")
        with gr.Column(scale=2, min_width=300):
            parts["files"] = gr.File(
                label="PNG, JSON, NPZ",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )


def _compare(parts: Parts, other: Predictor | None, model: str | None) -> None:
    """The second tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            parts["second_file"] = gr.File(
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


def _what_if(parts: Parts) -> None:
    """The third tab."""
    _html(WHAT_IF)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            parts["loc"] = gr.Dropdown(CHANGES, value=NEUTRAL, label="Localization map becomes")
            parts["cls"] = gr.Dropdown(CHANGES, value=KEEP, label="Classification map becomes")
            parts["run"] = gr.Button("Run with these maps", variant="primary", elem_id="run")
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
    nothing = handlers.NOT_CHANGED
    parts["changed_views"] = _html(nothing, js_on_load=ENLARGE, elem_id="whatif-views")


def _photographs(parts: Parts, predictor: Predictor) -> None:
    """The fourth tab."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                for count, label in UPLOADS.items():
                    look = {"height": 150, "elem_classes": "als-files"}
                    look["elem_id"] = f"gallery-{count}"
                    parts[count] = gr.File(label=label, file_count=count, **look)
            parts["gallery_status"] = _status("gallery-status", ".als-files")
        with gr.Column(scale=2, min_width=240):
            classes = [handlers.EVERY_CLASS, *predictor.classes]
            parts["listed"] = gr.Dropdown(classes, label="Show", elem_id="gallery-class")
            parts["order"] = gr.Dropdown(list(ORDERS), label="Order", elem_id="gallery-order")
    parts["gallery"] = _html(handlers.NO_GALLERY, js_on_load=PICK, elem_id="gallery")


def _endpoint(predictor: Predictor) -> None:
    """`/analyse`, without a place on the page."""
    with gr.Group(visible=False):
        inputs = [
            gr.File(label="image"),
            gr.Number(DEFAULT_THRESHOLD, label="score_threshold"),
            gr.Textbox("", label="explain_class"),
            gr.Dropdown(["", *KIND_OF_WORDS], label="per_box_target"),
            gr.Textbox(DEFAULT_EXPLAINER, label="explainer"),
        ]
        outputs = [gr.JSON(label="record"), gr.File(label="comparison"), gr.File(label="maps")]
        public = MODEL | RAW | {"api_visibility": "public", "api_name": "analyse"}
        gr.Button().click(Endpoint(predictor).analyse, inputs, outputs, **public)


def _html(value: str = "", **options) -> gr.HTML:
    """The page's own HTML; Gradio's style for running text would draw lines into the tables."""
    return gr.HTML(value, apply_default_css=False, **options)


def _status(elem_id: str, place: str) -> gr.HTML:
    """A line for errors, which also refuses files that are too large for the uploads at `place`."""
    limits = {"place": place, "limit": MAX_FILE_SIZE, "together": MAX_UPLOAD}
    line = _html(elem_id=elem_id, js_on_load=REFUSE_LARGE % limits)
    line.refuse(_too_large, None, line, show_progress="hidden", **DRAW, **RAW)
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
