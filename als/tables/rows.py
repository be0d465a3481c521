"""The rows of tables 1 to 3 and of the choices made on val, and the runs that give each row.

A table has two scales: `full` is the paper's own setting (`configs/paper`); `compact` is the same
table on the photographs of voc-animals with the compact models, small enough for two CPU cores.

Choices train on `train` alone and are judged on `val`, never on test: `recipes` are ways to train
`animals`, `variants` forms of the attention part beside the paper's, `competition` one
of them over its knob, `distillation` forms whose A_cls has a target. Each differs from its
neighbour by one thing. Their records say which form or recipe to take; figures that are reported
come from test and from other seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Scale = Literal["full", "compact"]
SCALES: tuple[Scale, ...] = ("full", "compact")


@dataclass(frozen=True)
class Data:
    """Splits that are trained and tested on, as `als.data.layouts.load_records` takes them.

    prepare: data sets of `als data prepare` that hold them. converted_from: folder of the data
    root that `als data to-coco` makes the splits' folder from.
    """

    train: str
    test: str
    prepare: tuple[str, ...] = ()
    converted_from: str | None = None


@dataclass(frozen=True)
class Stage:
    """One training: a config, and what differs from it.

    config: below `configs/`, without ending. changes: dotted option -> value. out: folder below
    `runs/`; None is the config's own, so that a run made by `als train` counts too.
    """

    config: str
    data: Data
    changes: Mapping[str, Any] = field(default_factory=dict)
    out: str | None = None


@dataclass(frozen=True)
class Run:
    """What is trained, stage after stage, and tested on `data` to give a row.

    name: FOLDER/ROW; its record is `results/FOLDER/ROW-seedK.json`.
    """

    name: str
    stages: tuple[Stage, ...]
    data: Data


@dataclass(frozen=True)
class Row:
    """A row of a table. key: as in `published.csv`, or a row that the paper left out.

    full, compact: its runs; None where the row stays the paper's alone.
    """

    key: str
    title: str
    full: Run | None = None
    compact: Run | None = None

    def run(self, scale: Scale) -> Run | None:
        return self.full if scale == "full" else self.compact


VOC = Data("VOC2007:trainval + VOC2012:trainval", "VOC2007:test", ("voc07+12", "sbd"))
COCO = Data("coco2017:train2017", "coco2017:val2017", ("coco2017",))
ANIMALS = Data("VOC2012:trainval", "VOC2012:test")
EVERYDAY_COCO = Data("everyday-coco:coco_trainval", "everyday-coco:coco_test", (), "Everyday")
JUDGED = Data("VOC2012:train", "VOC2012:val")


def _run(name: str, data: Data, config: str, *before: Stage, **model: Any) -> Run:
    """A training after those `before` (section 3.2); model: options of the network it changes.

    A config as it stands, on its own data, keeps its folder.
    """
    changes = {f"model.{option}": value for option, value in model.items()}
    as_it_stands = not changes and data in (VOC, COCO, ANIMALS)
    return Run(name, (*before, Stage(config, data, changes, None if as_it_stands else name)), data)


# The first stage knows no attention, so that rows of like separation share it: they differ by what
# the second stage makes. Rows without attention train the second stage too, on the same images:
# no row of the ablation sees more of them than another.
SHARED = Stage("compact/faster-rcnn", ANIMALS)
SEPARATED = Stage("compact/als-stage1", ANIMALS)
SECOND = "compact/als-stage2"
ABLATION: Mapping[str, tuple[Stage, dict[str, Any]]] = {
    "faster-rcnn": (SHARED, {"attention": False, "separation": False}),
    "separation": (SEPARATED, {"attention": False}),
    "attention": (SHARED, {"separation": False}),
    "proposed": (SEPARATED, {}),
}
DISTILLED = {"attention_form": "residual", "attention_cls_biased": True, "lambda_part": 0.3}
# No rows of the paper's: the form that val chose among the variants, without and with a target for
# A_cls (docs/model.md).
CHOSEN = {
    "residual": (SEPARATED, {"attention_form": "residual"}),
    "distilled": (SEPARATED, DISTILLED),
}
COMPACT = {
    key: _run(f"table2-compact/{key}", ANIMALS, SECOND, first, **changes)
    for key, (first, changes) in (ABLATION | CHOSEN).items()
}
# Table 3 has COCO's photographs among Everyday, of VOC's 20 classes, through COCO's layout.
TWENTY = {"model.classes": "voc"}
COMPACT_COCO = {
    key: _run(
        f"table3-compact/{key}",
        EVERYDAY_COCO,
        SECOND,
        Stage(first.config, EVERYDAY_COCO, TWENTY, f"table3-compact/stage1-of-{key}"),
        classes="voc",
        **ABLATION[key][1],
    )
    for key, first in (("faster-rcnn", SHARED), ("proposed", SEPARATED))
}
# Detectors of one stage train as long as both stages together: their configs say so.
SSD300 = _run("table1-compact/ssd300", ANIMALS, "compact/ssdlite320")
SSD512 = _run("table1-compact/ssd512", ANIMALS, "compact/ssdlite512")
LED300 = _run("table1-compact/led300", ANIMALS, "compact/led320")
MRCNN = _run("table1-compact/mr-cnn", ANIMALS, "compact/mrcnn")
RFCN = _run("table1-compact/rfcn", ANIMALS, "compact/rfcn")
RFCN_COCO = _run("table3-compact/rfcn", EVERYDAY_COCO, "compact/rfcn", classes="voc")

FULL = {
    key: _run(f"voc-full/{key}", VOC, f"paper/voc-{config}")
    for key, config in (
        ("faster-rcnn-vgg16", "faster-rcnn-vgg16"),
        ("ssd300", "ssd300"),
        ("mr-cnn", "mrcnn-vgg16"),
        ("ssd512", "ssd512"),
        ("led300", "led300"),
        ("faster-rcnn", "faster-rcnn-resnet101"),
        ("rfcn", "rfcn-resnet101"),
        ("separation", "als-resnet101-stage1"),
    )
}
STAGE2 = "paper/voc-als-resnet101-stage2"
FULL["proposed"] = _run("voc-full/proposed", VOC, STAGE2, *FULL["separation"].stages)
FULL["attention"] = _run(
    "voc-full/attention", VOC, STAGE2, *FULL["faster-rcnn"].stages, separation=False
)
FULL_COCO = {
    key: _run(f"coco-full/{key}", COCO, f"paper/coco-{key}-resnet101")
    for key in ("faster-rcnn", "rfcn")
}
FULL_COCO["proposed"] = _run(
    "coco-full/proposed",
    COCO,
    "paper/coco-als-resnet101-stage2",
    Stage("paper/coco-als-resnet101-stage1", COCO),
)

TABLES: Mapping[str, tuple[Row, ...]] = {
    "table1": (
        Row("faster-rcnn-vgg16", "Faster R-CNN, VGG16", FULL["faster-rcnn-vgg16"]),
        Row("ssd300", "SSD300 (compact: SSDLite, 320)", FULL["ssd300"], SSD300),
        Row("mr-cnn", "MR-CNN", FULL["mr-cnn"], MRCNN),
        Row("led300", "LED300 (ours: after LED; compact: 320)", FULL["led300"], LED300),
        Row("ssd512", "SSD512 (compact: SSDLite, 512)", FULL["ssd512"], SSD512),
        Row("faster-rcnn-original", "Faster R-CNN, its authors' figure"),
        Row("faster-rcnn", "Faster R-CNN", FULL["faster-rcnn"], COMPACT["faster-rcnn"]),
        Row("rfcn", "R-FCN", FULL["rfcn"], RFCN),
        Row("proposed", "Proposed", FULL["proposed"], COMPACT["proposed"]),
    ),
    "table2": (
        Row("faster-rcnn-original", "Faster R-CNN, its authors' figure"),
        Row("faster-rcnn", "Neither: Faster R-CNN", FULL["faster-rcnn"], COMPACT["faster-rcnn"]),
        Row("separation", "Separation", FULL["separation"], COMPACT["separation"]),
        Row("attention", "Attention alone", FULL["attention"], COMPACT["attention"]),
        Row("proposed", "Separation and attention", FULL["proposed"], COMPACT["proposed"]),
        Row("residual", "Separation and attention, F (1 + A)", None, COMPACT["residual"]),
        Row(
            "distilled",
            "Separation and attention, F (1 + A), self-distilled",
            None,
            COMPACT["distilled"],
        ),
    ),
    "table3": (
        Row("faster-rcnn-original", "Faster R-CNN, its authors' figure"),
        Row("faster-rcnn", "Faster R-CNN", FULL_COCO["faster-rcnn"], COMPACT_COCO["faster-rcnn"]),
        Row("rfcn", "R-FCN", FULL_COCO["rfcn"], RFCN_COCO),
        Row("proposed", "Proposed", FULL_COCO["proposed"], COMPACT_COCO["proposed"]),
    ),
}

VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "separation": ("Without attention", {"attention": False}),
    "proposed": ("The paper's form", {}),
    "residual": ("F (1 + A)", {"attention_form": "residual"}),
    "f-loc": ("F_cls = F_loc A_cls", {"attention_source": "F_loc"}),
    "wide": ("2,048 channels, the paper's width", {"attention_width": 2048}),
    "lambda3": ("lambda 3 = 0.1", {"lambda_att": 0.1}),
    "start": ("Maps start at 0.5", {"attention_bias": 0.0}),
    "biased": ("A_cls with biases", {"attention_cls_biased": True}),
}
"""Key -> title, and the options of the network that differ from table 2's proposed row."""

COMPETITION: Mapping[str, tuple[str, dict[str, Any]]] = {
    "separation": VARIANTS["separation"],
    "competition": ("Competition", {"attention_form": "competition"}),
} | {
    f"competition-{h}": (
        f"Competition, h = 0.{h}",
        {"attention_form": "competition", "attention_entropy": h / 100, "lambda_focus": 10.0},
    )
    for h in (85, 75, 60)
}
"""The same over the entropy h that a RoI's weights may have (docs/model.md). Its cost has no
gradient at the top: with lambda_focus 1 the entropy was still 1 after 150 of 885 steps."""

DISTILLATION: Mapping[str, tuple[str, dict[str, Any]]] = {
    "separation": VARIANTS["separation"],
    "distilled": ("F (1 + A), self-distilled", DISTILLED),
    "distilled-product": (
        "The paper's form, self-distilled",
        DISTILLED | {"attention_form": "product"},
    ),
    "distilled-competition": (
        "Competition, self-distilled",
        DISTILLED | {"attention_form": "competition"},
    ),
} | {
    f"distilled-{weight}": (
        f"F (1 + A), self-distilled, lambda_part {weight / 100:g}",
        DISTILLED | {"lambda_part": weight / 100},
    )
    for weight in (10, 100)
}
"""A_cls is told which bins of a RoI tell its class (docs/model.md); over the weight of that."""


def _recipe(key: str, title: str, *later: Stage) -> Row:
    first = Stage("compact-stage1", JUDGED, out="recipes-compact/stage1")
    return Row(key, title, None, Run(f"recipes-compact/{key}", (first, *later), JUDGED))


def _variant(key: str, title: str, changes: Mapping[str, Any]) -> Row:
    first = Stage("compact/als-stage1", JUDGED, out="variants-compact/stage1")
    run = _run(f"variants-compact/{key}", JUDGED, SECOND, first, **changes)
    return Row(key, title, None, run)


FLIPS = {"data.augmentation": "flip", "data.jitter": False, "epochs": 4}
CROPS = Stage("compact-stage2", JUDGED, out="recipes-compact/crops")
END = Stage("compact-stage2-end", JUDGED, out="recipes-compact/crops-end")
CHOICES: Mapping[str, tuple[Row, ...]] = {
    "recipes": (
        _recipe("stage1", "Stage 1 alone"),
        _recipe(
            "flips",
            "4 epochs, flips",
            Stage("compact-stage2", JUDGED, FLIPS, "recipes-compact/flips"),
        ),
        _recipe("crops", "8 epochs, crops", CROPS),
        _recipe("crops-end", "8 epochs, crops, and 2 without", CROPS, END),
    ),
    "variants": tuple(_variant(key, *told) for key, told in VARIANTS.items()),
    "competition": tuple(_variant(key, *told) for key, told in COMPETITION.items()),
    "distillation": tuple(_variant(key, *told) for key, told in DISTILLATION.items()),
}
ROWS: Mapping[str, tuple[Row, ...]] = TABLES | CHOICES
"""All that `als reproduce` can make."""


def _against_proposed(table: str) -> tuple[tuple[str, str], ...]:
    compact = [row.key for row in TABLES[table] if row.compact is not None]
    return tuple((key, "proposed") for key in compact if key != "proposed")


COMPARED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "table1": _against_proposed("table1"),
    "table2": (
        ("faster-rcnn", "separation"),
        ("separation", "proposed"),
        ("faster-rcnn", "attention"),
        ("attention", "proposed"),
        ("faster-rcnn", "proposed"),
        ("proposed", "residual"),
        ("separation", "residual"),
        ("faster-rcnn", "residual"),
        ("residual", "distilled"),
        ("separation", "distilled"),
    ),
    "table3": _against_proposed("table3"),
    "variants": (
        *(("proposed", key) for key in VARIANTS if key != "proposed"),
        ("separation", "residual"),
    ),
    "competition": tuple(("separation", key) for key in COMPETITION if key != "separation"),
    "distillation": tuple(("separation", key) for key in DISTILLATION if key != "separation"),
}
"""Pairs of rows whose difference is held against chance, by the images of the test set."""
