"""The page: which component stands where, and which handler answers which event."""

import gradio as gr

from als.photographs import package_photographs
from als.predictor import Predictor
from als.ui import parts, whatif_tab
from als.ui.compare_tab import NO_SECOND, CompareTab
from als.ui.explain_tab import NO_CLASS, ExplainTab
from als.ui.export import Export
from als.ui.session import BOX_KINDS, SessionStore
from als.ui.settings import (
    DEFAULT_THRESHOLD,
    DRAW,
    MODEL,
    Controls,
    build_controls,
    build_threshold,
)
from als.ui.style import ENLARGE, NAME_EXAMPLES, PICK
from als.ui.whatif_tab import WhatIfTab

MAX_WAITING = 64  # events in the queue; who comes later is told that it is full
CACHE_SECONDS = (600, 3600)  # look every ten minutes, delete what is older than an hour
HEAD = (
    '<div class="als-head"><h1>Attentive layer separation</h1><p>Where a detector looks to say '
    "<em>where</em>, and where it looks to say <em>what</em>.</p></div>"
)
# Raw payloads: Gradio would decode the photo itself before the pixel limit is checked.
PRIVATE = {"api_visibility": "private", "preprocess": False}


def build_app(predictor: Predictor, other: Predictor | None = None) -> gr.Blocks:
    """The page for one model and, on its second tab, another one beside it.

    Use `launch` to serve it; who serves it otherwise passes what `serving` gives.
    """
    store = SessionStore()
    with gr.Blocks(
        title="Attentive layer separation",
        analytics_enabled=False,
        delete_cache=CACHE_SECONDS,
        fill_width=True,
    ) as app:
        _html(HEAD + parts.model_line(predictor), js_on_load=NAME_EXAMPLES)
        explain = ExplainTab(predictor, store)
        photo, status, table, name, controls = _inputs(predictor)
        with gr.Tabs():
            with gr.Tab("Explain"):
                sentence = _html(elem_id="sentence")
                views = _html(parts.EMPTY_PAGE, js_on_load=ENLARGE + PICK, elem_id="views")
                numbers = _html(elem_id="numbers")
                _export(predictor, store, controls)
            shown = [status, table, sentence, views, numbers]
            with gr.Tab("Compare") as tab:
                redraw_comparison = _compare(tab, CompareTab(other, store), controls)
            with gr.Tab("What if") as tab:
                redraw_whatif = _what_if(tab, WhatIfTab(store), photo, controls)
        _connect(explain, photo, name, controls, shown)
        drawing = [component.input for component in controls.redrawing]
        draw = {"show_progress": "hidden", "trigger_mode": "always_last"} | DRAW | PRIVATE
        drawn = gr.on(drawing, explain.refresh, controls.inputs, shown, **draw)
        drawn.then(**redraw_comparison).then(**redraw_whatif)
        app.unload(_forget(store))
    return app.queue(max_size=MAX_WAITING)


def _inputs(predictor: Predictor) -> tuple:
    """The row above the tabs: (photo, status, table, class to explain, controls)."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            photo = gr.Image(
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                label="Photo",
                height=240,
                elem_id="photo",
            )
            status = _html(elem_id="status")
            gr.Examples(
                [[str(path)] for path in package_photographs()],
                [photo],
                label="Examples",
                elem_id="examples",
                api_visibility="private",
            )
        with gr.Column(scale=4, min_width=300):
            threshold = build_threshold(predictor.detector.config.score_threshold)
            table = _html(js_on_load=PICK, elem_id="detections")
        with gr.Column(scale=3, min_width=300):
            name = gr.Dropdown(
                [NO_CLASS, *predictor.classes],
                value=NO_CLASS,
                label="Explain",
                info="A class can be explained even if nothing of it is detected.",
                elem_id="class-choice",
            )
            controls = build_controls(threshold)
    return photo, status, table, name, controls


def _html(value: str = "", **options) -> gr.HTML:
    """The page's own HTML; Gradio's style for running text would draw lines into the tables."""
    return gr.HTML(value, apply_default_css=False, **options)


def _connect(explain: ExplainTab, photo, name, controls: Controls, shown: list) -> None:
    """Events of the photo, of the choice of a detection, and of what the last view explains."""
    refresh = {"fn": explain.refresh, "inputs": controls.inputs, "outputs": shown}
    photo.change(
        explain.open_photo,
        [photo, *controls.inputs],
        [*shown, photo, name],
        show_progress_on=[shown[3]],
        **MODEL,
        **PRIVATE,
    ).then(**refresh, show_progress="hidden", **MODEL, **PRIVATE)
    for picked in (shown[1], shown[3]):
        picked.pick(
            explain.pick,
            controls.inputs,
            [*shown, name],
            show_progress="hidden",
            **MODEL,
            **PRIVATE,
        )
    name.input(
        explain.pick_class,
        [name, *controls.inputs],
        shown,
        show_progress="hidden",
        **MODEL,
        **PRIVATE,
    )
    controls.kind.input(**refresh, show_progress="hidden", **MODEL, **PRIVATE)


def _compare(tab: gr.Tab, compare: CompareTab, controls: Controls) -> dict:
    """The second tab; gives the event that redraws it."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            file = gr.File(
                label="Second checkpoint (.safetensors)",
                file_types=[".safetensors"],
                height=150,
                elem_id="second-checkpoint",
            )
        with gr.Column(scale=2, min_width=300):
            line = _html(parts.model_line(compare.other) if compare.other else "")
            status = _html(elem_id="compare-status")
            button = gr.Button("Compare on this photo", variant="primary")
    views = _html(NO_SECOND, js_on_load=ENLARGE, elem_id="compare-views")
    numbers = _html(elem_id="compare-numbers")
    shown = [status, views, numbers]
    refresh = {"fn": compare.refresh, "inputs": controls.inputs, "outputs": shown}
    tab.select(**refresh, show_progress_on=[views], **MODEL, **PRIVATE)
    button.click(**refresh, show_progress_on=[views], **MODEL, **PRIVATE)
    file.change(
        compare.load_checkpoint,
        [file, *controls.inputs],
        [*shown, line],
        show_progress_on=[views],
        **MODEL,
        **PRIVATE,
    )
    draw = {"inputs": controls.inputs, "outputs": shown, "show_progress": "hidden"}
    return {"fn": compare.redraw, **draw, **DRAW, **PRIVATE}


def _what_if(tab: gr.Tab, what_if: WhatIfTab, photo, controls: Controls) -> dict:
    """The third tab; gives the event that redraws it."""
    _html(
        '<p class="als-status">The two maps are part of the computation, so they can be tested by '
        "intervention: replace one, and boxes and scores follow. The classification map is made "
        "from the localization map's feature and follows it, unless you replace it too. In Python: "
        "<code>predictor.predict(photo, localization_map=1.0)</code>.</p>"
    )
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            changes = whatif_tab.CHANGES
            loc = gr.Dropdown(changes, value=whatif_tab.ONES, label="Localization map becomes")
            cls = gr.Dropdown(changes, value=whatif_tab.KEEP, label="Classification map becomes")
            run = gr.Button("Run with these maps", variant="primary")
            status = _html(elem_id="whatif-status")
            table = _html(elem_id="whatif-changes")
        with gr.Column(scale=1, min_width=300):
            canvas = gr.ImageEditor(
                label="Strokes",
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=40, colors=["#E69F00"], color_mode="fixed"),
                height=420,
                elem_id="canvas",
            )
    views = _html(whatif_tab.NOTHING_YET, js_on_load=ENLARGE, elem_id="whatif-views")
    shown = [status, views, table]
    for moment in (tab.select, photo.change):
        moment(what_if.canvas, None, canvas, show_progress="hidden", **DRAW, **PRIVATE)
    run.click(
        what_if.run,
        [loc, cls, canvas, *controls.inputs],
        shown,
        show_progress_on=[views],
        api_visibility="private",
        **MODEL,
    )
    draw = {"inputs": controls.inputs, "outputs": shown, "show_progress": "hidden"}
    return {"fn": what_if.redraw, **draw, **DRAW, **PRIVATE}


def _export(predictor: Predictor, store: SessionStore, controls: Controls) -> None:
    """The button for the three files, and the API endpoint `/analyse`."""
    export = Export(predictor, store)
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            button = gr.Button("Export picture, numbers and maps", elem_id="export")
        with gr.Column(scale=2, min_width=300):
            files = gr.File(
                label="PNG, JSON, NPZ",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )
    button.click(
        lambda: gr.update(visible=True, value=None), None, files, api_visibility="private"
    ).then(export.download, controls.inputs, files, **MODEL, **PRIVATE)
    with gr.Group(visible=False):
        inputs = [
            gr.File(label="image"),
            gr.Number(DEFAULT_THRESHOLD, label="score_threshold"),
            gr.Textbox("", label="explain_class"),
            gr.Dropdown(list(BOX_KINDS), label="per_box_target"),
        ]
        outputs = [gr.JSON(label="record"), gr.File(label="comparison"), gr.File(label="maps")]
        gr.Button().click(
            export.analyse, inputs, outputs, api_name="analyse", preprocess=False, **MODEL
        )


def _forget(store: SessionStore):
    def forget(request: gr.Request):
        store.drop(request.session_hash)

    return forget
