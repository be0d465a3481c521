"""Choices made on val: runs that train on `train` alone and are judged on `val`, never on test.

`recipes` are ways to train the model that ships, `variants` forms of the attention network part
beside the paper's. Each differs from its neighbour by one thing. Their records say which form or
recipe to take; figures that are reported come from test and from other seeds.
"""

from collections.abc import Mapping
from typing import Any

from als.reproduce.definitions import STEPS, TABLES, Data, Row, Run, Stage

JUDGED = Data("VOC2012:train", "VOC2012:val")


def _run(name: str, *stages: Stage) -> Run:
    return Run(name, stages, JUDGED)


def _recipes() -> tuple[Row, ...]:
    """The stages of configs/compact-*.yaml, from one first stage."""
    first = Stage("compact-stage1", JUDGED, out="recipes-compact/stage1")
    plain = {"data.augmentation": "flip", "data.jitter": False, "epochs": 4}
    flips = Stage("compact-stage2", JUDGED, plain, "recipes-compact/flips")
    crops = Stage("compact-stage2", JUDGED, out="recipes-compact/crops")
    end = Stage("compact-stage2-end", JUDGED, out="recipes-compact/crops-end")
    return (
        Row("stage1", "Stage 1 alone", None, _run("recipes-compact/stage1", first)),
        Row("flips", "4 epochs, flips", None, _run("recipes-compact/flips", first, flips)),
        Row("crops", "8 epochs, crops", None, _run("recipes-compact/crops", first, crops)),
        Row(
            "crops-end",
            "8 epochs, crops, and 2 without",
            None,
            _run("recipes-compact/crops-end", first, crops, end),
        ),
    )


VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "separation": ("Without attention", {"model.attention": False}),
    "proposed": ("The paper's form", {}),
    "residual": ("F (1 + A)", {"model.attention_form": "residual"}),
    "f-loc": ("F_cls = F_loc A_cls", {"model.attention_source": "F_loc"}),
    "wide": ("2,048 channels, the paper's width", {"model.attention_width": 2048}),
    "lambda3": ("lambda 3 = 0.1", {"model.lambda_att": 0.1}),
    "start": ("Maps start at 0.5", {"model.attention_bias": 0.0}),
    "biased": ("A_cls with biases", {"model.attention_cls_biased": True}),
}
"""Key -> title, and what differs from the proposed row of table 2's compact column."""


def _variants() -> tuple[Row, ...]:
    first = Stage("compact/als-stage1", JUDGED, out="variants-compact/stage1")
    rows = []
    for key, (title, changes) in VARIANTS.items():
        name = f"variants-compact/{key}"
        run = _run(name, first, Stage("compact/als-stage2", JUDGED, changes, name))
        rows.append(Row(key, title, None, run))
    return tuple(rows)


CHOICES: Mapping[str, tuple[Row, ...]] = {"recipes": _recipes(), "variants": _variants()}
ROWS: Mapping[str, tuple[Row, ...]] = TABLES | CHOICES
"""All that `als reproduce` can make."""

_BESIDE = tuple(("proposed", key) for key in VARIANTS if key != "proposed")
COMPARED: Mapping[str, tuple[tuple[str, str], ...]] = STEPS | {
    "variants": (*_BESIDE, ("separation", "residual"))
}
"""Pairs of rows whose difference is held against chance: a variant beside the paper's form."""
