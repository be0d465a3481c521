"""The controls that every tab shares, and their values as one object."""

from dataclasses import dataclass

import gradio as gr

from als.drawing import COLOUR_MAPS, RULES, Look
from als.ui.session import BOX_KINDS

# Events of one group run one at a time: the network has one lock anyway, and a queue is fair.
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
DRAW = {"concurrency_id": "draw", "concurrency_limit": 4}
DEFAULT_THRESHOLD = 0.5
MAX_FILE_SIZE = 40 * 2**20  # bytes of a photo or a checkpoint


@dataclass(frozen=True)
class Settings:
    """Values of the controls, in the order of `Controls.inputs`."""

    threshold: float
    kind: str
    opacity: float
    colour_map: str
    rule: str

    @classmethod
    def from_page(cls, threshold, kind, opacity, colour_map, rule) -> "Settings":
        """What the controls hold: an emptied number is its default, any other is kept in 0 to 1."""
        return cls(
            _zero_to_one(threshold, DEFAULT_THRESHOLD),
            kind,
            _zero_to_one(opacity, Look.opacity),
            colour_map,
            rule,
        )

    @property
    def look(self) -> Look:
        return Look(self.opacity, self.colour_map, self.rule)


def _zero_to_one(value: float | None, default: float) -> float:
    return default if value is None else min(max(float(value), 0.0), 1.0)


@dataclass(frozen=True)
class Controls:
    """The components behind `Settings`."""

    threshold: gr.Slider
    kind: gr.Dropdown
    opacity: gr.Slider
    colour_map: gr.Dropdown
    rule: gr.Dropdown

    @property
    def inputs(self) -> list:
        return [self.threshold, self.kind, self.opacity, self.colour_map, self.rule]

    @property
    def redrawing(self) -> list:
        """Those whose change needs no network."""
        return [self.threshold, self.opacity, self.colour_map, self.rule]


def build_threshold(lowest: float) -> gr.Slider:
    """`lowest` is the model's own threshold: below it nothing was kept."""
    value = max(lowest, DEFAULT_THRESHOLD)
    return gr.Slider(lowest, 1, value, step=0.01, label="Score threshold", elem_id="threshold")


def build_controls(threshold: gr.Slider) -> Controls:
    """What the last view explains, and, folded away, how maps are drawn."""
    kinds = list(BOX_KINDS)
    kind = gr.Dropdown(kinds, value=kinds[0], label="Gradient × activation explains its")
    with gr.Accordion("How maps are drawn", open=False, elem_id="drawing"):
        opacity = gr.Slider(0, 1, Look.opacity, step=0.05, label="Opacity", elem_id="opacity")
        with gr.Row():
            colour_map = gr.Dropdown(
                list(COLOUR_MAPS), value=Look.colour_map, label="Colours", scale=2, min_width=110
            )
            rule = gr.Dropdown(
                list(RULES), value=Look.rule, label="Scale, for every map", scale=3, min_width=220
            )
    return Controls(threshold, kind, opacity, colour_map, rule)
