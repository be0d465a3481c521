"""The page: which component stands where, and which handler answers which event."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from als.drawing import COLOUR_MAPS, RULES, Look
from als.errors import InputError
from als.inference import Predictor
from als.photographs import package_photographs
from als.ui import handlers, markup, what_if
from als.ui.canvas import Canvas
from als.ui.gate import MAX_FILE_SIZE
from als.ui.handlers import NO_CLASS, Handlers, event_of
from als.ui.session import SessionStore, shown_name
from als.ui.style import ENLARGE, NAME_EXAMPLES, PICK, REFUSE_LARGE
from als.ui.takeaway import Endpoint
from als.views.photo_study import DEFAULT_EXPLAINER, DEFAULT_THRESHOLD, KIND_OF_WORDS, offered

MAX_WAITING = 64  # events in the queue; who comes later is told that it is full
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
HIDDEN = {"show_progress": "hidden"}
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


def build_app(predictor: Predictor, other: Predictor | None = None) -> gr.Blocks:
    """The page for one model and, on its second tab, another one beside it.

    Use `launch` to serve it; who serves it otherwise passes what `serving` gives.
    """
    handle = Handlers(predictor, other, SessionStore())
    with Page(title=TITLE, analytics_enabled=False, fill_width=True) as app:
        _html(HEAD + markup.model_line(predictor), js_on_load=NAME_EXAMPLES)
        parts, controls = _inputs(predictor)
        with gr.Tabs() as tabs:
            with gr.Tab("Explain"):
                export = _explain(parts)
            with gr.Tab("Compare"):
                file = _compare(parts, other)
            with gr.Tab("What if"):
                run, changes = _what_if(parts)
        _endpoint(Endpoint(predictor))
        _connect(handle, parts, controls, tabs)

        answer, values = _answering(parts), list(controls.values())
        shown = list(parts.values())
        there = {"show_progress_on": [parts["compare_views"]]} | MODEL | RAW
        file.change(answer(handle.load_second), [file, *values], shown, **there)
        there = {"show_progress_on": [parts["changed_views"]]} | MODEL
        given = [*changes, parts["canvas"], *values]
        run.click(answer(handle.change_maps), given, shown, **there)
        there = {"show_progress_on": [parts["numbers"]]} | MODEL | RAW
        export.click(answer(handle.download), values, shown, **there)
        app.unload(handle.forget)
    return app.queue(max_size=MAX_WAITING)


def _answering(parts: dict[str, gr.components.Component]) -> Callable:
    """What turns a handler's answer, by name, into one by component."""

    def answering(handler):
        @wraps(handler)  # Gradio reads the annotations
        def answer(*given):
            try:
                return {parts[name]: value for name, value in handler(*given).items()}
            except InputError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return answer

    return answering


def _connect(handle: Handlers, parts: dict, controls: dict, tabs: gr.Tabs) -> None:
    """Events of the row above the tabs, of the pictures and of the tabs."""
    answer, values, shown = _answering(parts), list(controls.values()), list(parts.values())
    refresh = {"fn": answer(handle.refresh), "inputs": values, "outputs": shown}
    hidden = HIDDEN | MODEL | RAW
    views = {"show_progress_on": [parts["views"], parts["compare_views"]]} | MODEL | RAW
    opened = answer(handle.open_photo)
    parts["photo"].change(opened, [parts["photo"], *values], shown, **views).then(
        **refresh, **hidden
    )
    tabs.select(answer(handle.open_tab), values, shown, **views)
    for part in (parts["table"], parts["views"]):
        part.pick(answer(handle.pick), values, shown, **hidden)
    parts["name"].input(answer(handle.pick_class), [parts["name"], *values], shown, **hidden)
    controls["kind"].input(**refresh, **hidden)
    explainer, own = controls["explainer"], answer(handle.pick_explainer)
    explainer.input(own, explainer, parts["kind"], **HIDDEN, **DRAW).then(**refresh, **hidden)
    drawing = [controls[name].input for name in ("threshold", "opacity", "colour_map", "rule")]
    gr.on(drawing, **refresh, trigger_mode="always_last", **HIDDEN, **DRAW, **RAW)


def _inputs(predictor: Predictor) -> tuple[dict, dict]:
    """The row above the tabs: parts that handlers change, and controls in the order of Settings."""
    lowest = predictor.detector.config.score_threshold  # below it nothing was kept
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
    controls = {"threshold": threshold, "kind": kind, "opacity": opacity}
    return parts, controls | {"colour_map": colour_map, "rule": rule, "explainer": explainer}


def _explain(parts: dict) -> gr.Button:
    """The first tab; gives its button for the three files."""
    parts["sentence"] = _html(elem_id="sentence")
    parts["views"] = _html(handlers.NO_VIEWS, js_on_load=ENLARGE + PICK, elem_id="views")
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
    return button


def _compare(parts: dict, other: Predictor | None) -> gr.File:
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
            parts["second"] = _html(markup.model_line(other))
            parts["compare_status"] = _status("compare-status", "#second-checkpoint")
    nothing = handlers.NOT_COMPARED if other else handlers.NO_SECOND
    parts["compare_views"] = _html(nothing, js_on_load=ENLARGE, elem_id="compare-views")
    parts["compare_numbers"] = _html(elem_id="compare-numbers")
    return file


def _what_if(parts: dict) -> tuple[gr.Button, list[gr.Dropdown]]:
    """The third tab; gives its button and what becomes of the two maps."""
    _html(WHAT_IF)
    changes, (keep, neutral) = list(what_if.CHANGES), what_if.CHANGES[:2]
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            loc = gr.Dropdown(changes, value=neutral, label="Localization map becomes")
            cls = gr.Dropdown(changes, value=keep, label="Classification map becomes")
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


def _endpoint(endpoint: Endpoint) -> None:
    """`/analyse`, without a place on the page."""
    with gr.Group(visible=False):
        inputs = [
            gr.File(label="image"),
            gr.Number(DEFAULT_THRESHOLD, label="score_threshold"),
            gr.Textbox("", label="explain_class"),
            gr.Dropdown(list(KIND_OF_WORDS), label="per_box_target"),
            gr.Textbox(DEFAULT_EXPLAINER, label="explainer"),
        ]
        outputs = [gr.JSON(label="record"), gr.File(label="comparison"), gr.File(label="maps")]
        public = MODEL | RAW | {"api_visibility": "public", "api_name": "analyse"}
        gr.Button().click(endpoint.analyse, inputs, outputs, **public)


def _html(value: str = "", **options) -> gr.HTML:
    """The page's own HTML; Gradio's style for running text would draw lines into the tables."""
    return gr.HTML(value, apply_default_css=False, **options)


def _status(elem_id: str, place: str) -> gr.HTML:
    """A line for errors, which also refuses files that are too large for the upload at `place`."""
    refuse = REFUSE_LARGE % {"place": place, "limit": MAX_FILE_SIZE}
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
    return markup.status(f"{name}: {megabytes:.1f} MB are over {limit}", error=True)
