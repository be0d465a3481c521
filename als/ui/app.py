"""The page: which component stands where, and which handler answers which event."""

import gradio as gr

from als.inference import Predictor
from als.photographs import package_photographs
from als.ui import parts, whatif_tab
from als.ui.compare_tab import NO_SECOND, CompareTab
from als.ui.explain_tab import NO_CLASS, ExplainTab
from als.ui.export import Export
from als.ui.session import BOX_KINDS, SessionStore
from als.ui.settings import (
    DEFAULT_THRESHOLD,
    DRAW,
    MAX_FILE_SIZE,
    MODEL,
    Controls,
    build_controls,
    build_threshold,
)
from als.ui.style import ENLARGE, NAME_EXAMPLES, PICK, REFUSE_LARGE
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
            with gr.Tab("Explain") as explain_tab:
                sentence = _html(elem_id="sentence")
                views = _html(parts.EMPTY_PAGE, js_on_load=ENLARGE + PICK, elem_id="views")
                numbers = _html(elem_id="numbers")
                _export(predictor, store, photo, controls)
            shown = [status, table, sentence, views, numbers]
            with gr.Tab("Compare") as compare_tab:
                redraw_comparison, clear_comparison = _compare(
                    compare_tab, CompareTab(other, store), photo, controls
                )
            with gr.Tab("What if") as tab:
                redraw_whatif, clear_whatif, canvas, left = _what_if(
                    tab, WhatIfTab(store), photo, controls
                )
        gr.on([explain_tab.select, compare_tab.select], **left)
        opened, chosen = _connect(explain, photo, name, controls, shown)
        opened.then(**canvas).then(**clear_comparison).then(**clear_whatif)
        for choice in chosen:
            choice.then(**redraw_comparison)
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
            status = _status("status", "#photo")
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


def _status(elem_id: str, place: str) -> gr.HTML:
    """A line for errors, which also refuses files that are too large for the upload at `place`."""
    refuse = REFUSE_LARGE % {"place": place, "limit": MAX_FILE_SIZE}
    line = _html(elem_id=elem_id, js_on_load=refuse)
    line.refuse(_too_large, None, line, show_progress="hidden", **DRAW, **PRIVATE)
    return line


def _too_large(event: gr.EventData) -> str:
    name, megabytes = str(event._data["name"]), event._data["size"] / 2**20
    limit = f"the limit of {MAX_FILE_SIZE / 2**20:g} MB; give a smaller file."
    return parts.status(f"{name}: {megabytes:.1f} MB are over {limit}", error=True)


def _connect(explain: ExplainTab, photo, name, controls: Controls, shown: list) -> tuple:
    """Events of the photo, and a list of those that choose what is explained."""
    refresh = {"fn": explain.refresh, "inputs": controls.inputs, "outputs": shown}
    hidden = {"show_progress": "hidden"} | MODEL | PRIVATE
    opened = photo.change(
        explain.open_photo,
        [photo, *controls.inputs],
        [*shown, photo, name],
        show_progress_on=[shown[3]],
        **MODEL,
        **PRIVATE,
    ).then(**refresh, **hidden)
    chosen = [
        picked.pick(explain.pick, controls.inputs, [*shown, name], **hidden)
        for picked in (shown[1], shown[3])
    ]
    chosen.append(name.input(explain.pick_class, [name, *controls.inputs], shown, **hidden))
    chosen.append(controls.kind.input(**refresh, **hidden))
    return opened, chosen


def _compare(tab: gr.Tab, compare: CompareTab, photo, controls: Controls) -> tuple[dict, dict]:
    """The second tab; gives the events that redraw it and that clear it for an opened photo."""
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
            status = _status("compare-status", "#second-checkpoint")
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
    draw = {"show_progress": "hidden"} | DRAW | PRIVATE
    photo.change(compare.photo_changed, photo, shown, **draw)
    redraw = {"fn": compare.redraw, "inputs": controls.inputs, "outputs": shown, **draw}
    return redraw, {"fn": compare.photo_opened, "inputs": photo, "outputs": shown, **draw}


def _what_if(tab: gr.Tab, what_if: WhatIfTab, photo, controls: Controls) -> tuple[dict, ...]:
    """The third tab; gives four events: to redraw it, to clear it for an opened photo, to put the
    photo on its canvas, and that another tab is open."""
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
            canvas = _canvas()
    views = _html(whatif_tab.NOTHING_YET, js_on_load=ENLARGE, elem_id="whatif-views")
    shown = [status, views, table]
    draw = {"show_progress": "hidden"} | DRAW | PRIVATE
    tab.select(what_if.tab_opened, None, canvas, **draw)
    photo.change(lambda: ("", whatif_tab.NOTHING_YET, ""), None, shown, **draw)
    run.click(
        what_if.run,
        [loc, cls, canvas, *controls.inputs],
        shown,
        show_progress_on=[views],
        api_visibility="private",
        **MODEL,
    )
    redraw = {"fn": what_if.redraw, "inputs": controls.inputs, "outputs": shown, **draw}
    clear = {"fn": what_if.photo_opened, "inputs": None, "outputs": shown, **draw}
    fill = {"fn": what_if.canvas, "inputs": None, "outputs": canvas, **draw}
    return redraw, clear, fill, {"fn": what_if.tab_left, "inputs": None, "outputs": None, **draw}


def _canvas() -> gr.ImageEditor:
    """Where strokes are painted on the photo."""
    return gr.ImageEditor(
        label="Strokes",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=40, colors=["#E69F00"], color_mode="fixed"),
        height=420,
        elem_id="canvas",
    )


def _export(predictor: Predictor, store: SessionStore, photo, controls: Controls) -> None:
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
    hide = {"fn": lambda: gr.update(visible=False, value=None), "outputs": files}
    photo.change(**hide, show_progress="hidden", **DRAW, **PRIVATE)
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
