"""Tables 1 to 3: their rows, and the runs that give each row, at both scales.

`full` is the paper's own setting (`configs/paper`); `compact` is the same table on the
photographs of voc-animals with the compact models, small enough for two CPU cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Scale = Literal["full", "compact"]
SCALES: tuple[Scale, ...] = ("full", "compact")


@dataclass(frozen=True)
class Data:
    """Splits that are trained and tested on, as `als.data.voc_layout.load_records` takes them.

    prepare: data sets of `als data prepare` that hold them. converted_from: folder of the data
    root that `als data to-coco` makes the splits' folder from.
    """

    train: str
    test: str
    prepare: tuple[str, ...] = ()
    converted_from: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders below the data root."""
        parts = f"{self.train} + {self.test}".split("+")
        return tuple(dict.fromkeys(part.strip().partition(":")[0] for part in parts))


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

    full, compact: its runs; None where the row stays the paper's alone. reimplemented: whether
    this repository has the network.
    """

    key: str
    title: str
    full: Run | None = None
    compact: Run | None = None
    reimplemented: bool = True

    def run(self, scale: Scale) -> Run | None:
        return self.full if scale == "full" else self.compact


VOC = Data("VOC2007:trainval + VOC2012:trainval", "VOC2007:test", ("voc07+12", "sbd"))
COCO = Data("coco2017:train2017", "coco2017:val2017", ("coco2017",))
ANIMALS = Data("VOC2012:trainval", "VOC2012:test")
ANIMALS_COCO = Data("voc-animals-coco:trainval", "voc-animals-coco:test", (), "VOC2012")


def one_stage(name: str, config: str, data: Data) -> Run:
    return Run(name, (Stage(config, data),), data)


def parts(name: str, first: Stage, second: str, data: Data, **model: Any) -> Run:
    """Two stages (section 3.2); `model` are options of the network that the second changes."""
    changes = {f"model.{option}": value for option, value in model.items()}
    is_plain = not changes and data != ANIMALS_COCO
    return Run(name, (first, Stage(second, data, changes, None if is_plain else name)), data)


# The first stage knows no attention, so that rows of like separation share it: they differ by what
# the second stage makes. Rows without attention train the second stage too, on the same images:
# no row of the ablation sees more of them than another.
SHARED = Stage("compact/faster-rcnn", ANIMALS)
SEPARATED = Stage("compact/als-stage1", ANIMALS)
ABLATION = {
    "faster-rcnn": (SHARED, {"attention": False, "separation": False}),
    "separation": (SEPARATED, {"attention": False}),
    "attention": (SHARED, {"separation": False}),
    "proposed": (SEPARATED, {}),
}
COMPACT = {
    key: parts(f"table2-compact/{key}", first, "compact/als-stage2", ANIMALS, **off)
    for key, (first, off) in ABLATION.items()
}
# No row of the paper's: the form that val chose among the variants (als.reproduce.choices).
COMPACT["residual"] = parts(
    "table2-compact/residual", SEPARATED, "compact/als-stage2", ANIMALS, attention_form="residual"
)
# Boxes are the same in both layouts and stage 1 reads no masks: one first stage serves both.
COMPACT_COCO = {
    key: parts(f"table3-compact/{key}", first, "compact/als-stage2", ANIMALS_COCO, **off)
    for key, (first, off) in ABLATION.items()
}
# Detectors of one stage train as long as both stages together: their configs say so.
SSD300 = one_stage("table1-compact/ssd300", "compact/ssdlite320", ANIMALS)
SSD512 = one_stage("table1-compact/ssd512", "compact/ssdlite512", ANIMALS)
RFCN = one_stage("table1-compact/rfcn", "compact/rfcn", ANIMALS)
RFCN_COCO = Run("table3-compact/rfcn", RFCN.stages, ANIMALS_COCO)

FULL = {
    key: one_stage(f"voc-full/{key}", f"paper/voc-{config}", VOC)
    for key, config in (
        ("faster-rcnn-vgg16", "faster-rcnn-vgg16"),
        ("ssd300", "ssd300"),
        ("ssd512", "ssd512"),
        ("faster-rcnn", "faster-rcnn-resnet101"),
        ("rfcn", "rfcn-resnet101"),
        ("separation", "als-resnet101-stage1"),
    )
}
STAGE2 = "paper/voc-als-resnet101-stage2"
FULL["proposed"] = parts("voc-full/proposed", FULL["separation"].stages[0], STAGE2, VOC)
FULL["attention"] = parts(
    "voc-full/attention", FULL["faster-rcnn"].stages[0], STAGE2, VOC, separation=False
)
FULL_COCO = {
    key: one_stage(f"coco-full/{key}", f"paper/coco-{key}-resnet101", COCO)
    for key in ("faster-rcnn", "rfcn")
}
FULL_COCO["proposed"] = parts(
    "coco-full/proposed",
    Stage("paper/coco-als-resnet101-stage1", COCO),
    "paper/coco-als-resnet101-stage2",
    COCO,
)

TABLES: Mapping[str, tuple[Row, ...]] = {
    "table1": (
        Row("faster-rcnn-vgg16", "Faster R-CNN, VGG16", FULL["faster-rcnn-vgg16"]),
        Row("ssd300", "SSD300 (compact: SSDLite, 320)", FULL["ssd300"], SSD300),
        Row("mr-cnn", "MR-CNN", reimplemented=False),
        Row("led300", "LED300", reimplemented=False),
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
    ),
    "table3": (
        Row("faster-rcnn-original", "Faster R-CNN, its authors' figure"),
        Row("faster-rcnn", "Faster R-CNN", FULL_COCO["faster-rcnn"], COMPACT_COCO["faster-rcnn"]),
        Row("rfcn", "R-FCN", FULL_COCO["rfcn"], RFCN_COCO),
        Row("proposed", "Proposed", FULL_COCO["proposed"], COMPACT_COCO["proposed"]),
    ),
}

STEPS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "table2": (
        ("faster-rcnn", "separation"),
        ("separation", "proposed"),
        ("faster-rcnn", "attention"),
        ("attention", "proposed"),
        ("faster-rcnn", "proposed"),
        ("proposed", "residual"),
        ("separation", "residual"),
        ("faster-rcnn", "residual"),
    ),
}
"""Pairs of rows whose difference is held against chance, by the images of the test set."""
