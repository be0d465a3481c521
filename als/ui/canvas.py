"""The editor on which strokes are painted, with bounds on what it takes and keeps."""

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import EditorDataBlobs

MAX_KEPT = 64 * 2**20  # bytes of strokes that were sent and not yet run


def _preprocess(self, payload) -> dict:
    """{"layers": [...]}, each the content or the path of a file, not decoded."""
    if payload is not None and payload.id is not None:
        payload = self.blob_storage.pop(payload.id, None)
    layers = [] if payload is None else [layer for layer in payload.layers if layer is not None]
    return {"layers": [one if isinstance(one, bytes) else one.path for one in layers]}


@server
def _accept_blobs(self, data) -> None:
    """Keep a layer that the page sends; the background is the photo, which is known."""
    name, painted = data.data["id"], data.files[0][1]
    if data.data["type"] == "layer":
        kept = self.blob_storage.pop(name, None)
        layers = [*([] if kept is None else kept.layers), painted]
        self.blob_storage[name] = EditorDataBlobs(background=None, layers=layers, composite=None)
    while sum(len(x) for one in self.blob_storage.values() for x in one.layers) > MAX_KEPT:
        del self.blob_storage[next(iter(self.blob_storage))]


# Gradio's own opens whatever Pillow can, makes as many layers as a request's number says, and
# keeps every painting that nobody runs. A class, since Gradio makes a component anew for each tab;
# and made by `type`, since Gradio's metaclass would write a .pyi file beside this one.
Canvas = type.__new__(
    type(gr.ImageEditor),
    "Canvas",
    (gr.ImageEditor,),
    {
        "__module__": __name__,
        "__doc__": "An image editor whose strokes reach a handler undecoded, by `_preprocess`.",
        "is_template": True,  # the page shows an image editor
        "preprocess": _preprocess,
        "accept_blobs": _accept_blobs,
    },
)
