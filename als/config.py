"""Every option and its default, written once.

The dataclasses are frozen; jsonargparse fills them from `configs/*.yaml` and the command line and
rejects unknown keys. A checkpoint carries its `ModelConfig`, so that it rebuilds the same network.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from als.classes import CLASS_LISTS
from als.errors import InputError

# The runs as YAML files: inside an installed package, beside it in a checkout.
CONFIGS = Path(__file__).parent / "configs"
if not CONFIGS.is_dir():
    CONFIGS = Path(__file__).parents[1] / "configs"

Family = Literal["als", "rfcn", "mrcnn", "ssd", "led"]
Backbone = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "vgg16", "convnext_tiny"
]

MaskOption = Literal["files", "boxes"]

ATTENTION_OPTIONS = (
    *("attention_width", "attention_bias", "attention_cls_biased", "attention_form"),
    *("attention_source", "attention_entropy", "lambda_att", "lambda_focus", "lambda_part"),
)
ROI_OPTIONS = (
    *("anchor_sizes", "anchor_ratios", "rpn_pre_nms_train", "rpn_post_nms_train"),
    *("rpn_pre_nms_test", "rpn_post_nms_test", "rpn_nms_threshold", "rpn_anchors_per_image"),
    *("pool", "pool_size", "rois_per_image", "roi_positive_fraction", "hard_rois_per_image"),
)
UNREAD = {  # by a family; a value other than the default would have no effect
    "als": ("hard_rois_per_image",),
    "rfcn": ATTENTION_OPTIONS,
    "mrcnn": (*ATTENTION_OPTIONS, "hard_rois_per_image"),
    "ssd": ATTENTION_OPTIONS + ROI_OPTIONS,
    "led": ATTENTION_OPTIONS + ROI_OPTIONS,
}
BACKBONES = {
    "als": get_args(Backbone),
    "rfcn": ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"),
    "mrcnn": ("vgg16", "mobilenet_v2"),
    "ssd": ("vgg16", "mobilenet_v2"),
    "led": ("vgg16", "mobilenet_v2"),
}
ONE_STAGE = ("ssd", "led")
SSD_SIDES = (300, 512)  # with vgg16; MobileNetV2's extra layers fit any side

# Least and most of a number, and of each in a list: what a network can be, and what a file from a
# stranger may ask memory for.
SHARE, COUNT = (0, 1), (1, 10_000)
LIMITS: dict[str, tuple[float, float]] = {
    **{"attention_width": (1, 16_384), "attention_bias": (-100, 100), "frozen_blocks": (0, 100)},
    **{"attention_entropy": SHARE},
    **{"pool_size": (1, 16), "min_size": (16, 2048), "max_size": (16, 4096)},
    **{"anchor_sizes": (1, 4096), "anchor_ratios": (0.01, 100)},
    **{"rpn_pre_nms_train": (1, 50_000), "rpn_post_nms_train": COUNT},
    **{"rpn_pre_nms_test": (1, 50_000), "rpn_post_nms_test": (1, 2000)},
    **{"rpn_nms_threshold": SHARE, "rpn_anchors_per_image": COUNT, "rois_per_image": COUNT},
    **{"roi_positive_fraction": SHARE, "hard_rois_per_image": (0, 10_000)},
    **{"score_threshold": SHARE, "nms_threshold": SHARE, "detections_per_image": COUNT},
    **dict.fromkeys(("lambda_cls", "lambda_loc", "lambda_att"), (0, 1e6)),
    **dict.fromkeys(("lambda_focus", "lambda_part"), (0, 1e6)),
    **{"batch_size": (1, 4096), "min_sizes": (16, 4096), "workers": (0, 256)},
    **{"repeat_threshold": SHARE},
    **{"lr": (1e-12, 100), "attention_lr_factor": (0, 1e4), "momentum": SHARE},
    **{"weight_decay": (0, 10), "warmup_steps": (0, 10**7), "milestones": SHARE},
    **{"gradient_clip": (0, 1e6), "seed": (0, 2**32 - 1), "epochs": (1, 100_000)},
    **{"num_nodes": COUNT, "max_steps": (1, 10**9), "val_check_interval": (1e-6, 10**9)},
    **{"check_val_every_n_epoch": (1, 10**6), "log_every_n_steps": (1, 10**6)},
    **{"accumulate_grad_batches": COUNT, "devices": (-1, 1024)},
}
MAY_BE_EMPTY = ("milestones",)
PATHS = ("out", "start_from", "root", "weights")
LONGEST_LIST = 100
MOST_CLASSES = 10_000
LONGEST_NAME = 100  # characters of a class
TOLD = {
    **{int: "a whole number", float: "a number", bool: "true or false", str: "a text"},
    **{NoneType: "null", tuple: "a list of numbers"},
}


@dataclass(frozen=True)
class ModelConfig:
    """The network (paper, sections 2.1 to 2.3).

    The defaults are the paper's: ResNet-101, both parts on, attention layers of 2,048 channels.
    `configs/compact-*.yaml` hold the differences of the model that trains on two cores.

    Args:
        classes: names of the classes to detect, also as one text "cat, dog"; or "voc" or "coco"
            for all 20 or 80 of them.
        family: "als" (this paper; with both parts off Faster R-CNN), or the rows beside it,
            "rfcn", "mrcnn", "ssd" and "led" (docs/baselines.md). A family refuses options that it
            does not read.
        backbone: torchvision network that gives the trunk (conv1 to conv4) and conv5; of vgg16
            conv1 to conv5 and fc6, fc7.
        weights: "imagenet" (torchvision's newest, of ResNet its IMAGENET1K_V1; downloaded once),
            a name of torchvision's as "IMAGENET1K_V2", a .safetensors or .pth file with its keys,
            or None for random weights.
        attention: the attention network part (section 2.1).
        separation: the layer separation part (section 2.2). Off: one conv5 serves both tasks.
        attention_width: channels of the two hidden 1x1 convolutions.
        attention_bias: logit that a map starts from; sigmoid(3) = 0.95, a map near one. The
            residual form starts from its negative, a map near zero: both keep the feature.
        attention_cls_biased: whether the classification attention's convolutions have biases (the
            text does not say). With them nothing but `lambda_part` keeps A_cls from
            becoming one everywhere.
        attention_form: "product" multiplies the feature by A (paper); "residual" by 1 + A, which
            detected better in every compact training here (docs/ablation.md); "competition" by A
            over its mean in the RoI (docs/model.md).
        attention_source: what A_cls is multiplied on: "F" (the paper's wording, 'the last block
            of conv4') or "F_loc", the object area-aware feature.
        attention_entropy: of competition: relative entropy of the weights in a RoI over which a
            positive RoI costs `lambda_focus` times the difference; 1 never costs.
        frozen_blocks: leading blocks of the trunk that do not train. ResNet: stem, layer1,
            layer2, layer3; MobileNetV2: features 0 to 13; VGG16: conv1 to conv5; ConvNeXt:
            features 0 to 5.
        fold_batch_norm: fold every frozen BN into the convolution before it (same function; the
            scale then trains along with the weight).
        pool: RoIAlign (aligned, 2 x 2 samples a bin) or RoIPool; R-FCN's position-sensitive form.
        pool_size: side of the RoI feature; 14 in the paper's family, 7 for VGG16 and R-FCN.
        min_size, max_size: shorter side in test, longest side, in pixels. SSD resizes to a
            square: both are its side, 300 or 512 with vgg16.
        anchor_sizes, anchor_ratios: sides in pixels and height / width ratios of RPN anchors.
        rpn_*: proposals before and after NMS in training and test, NMS threshold, anchors
            sampled an image. rois_per_image, roi_positive_fraction: RoIs sampled an image.
        hard_rois_per_image: how many of the RoIs sampled, those of the highest loss, carry the
            loss (R-FCN's online hard example mining); 0 is all.
        score_threshold, nms_threshold, detections_per_image: final detections.
        lambda_cls, lambda_loc, lambda_att: weights of equation 1 (lambda 1 to 3).
        lambda_part: weight of the self-distillation of A_cls (docs/model.md); 0, as in the paper,
            is none.
    """

    classes: tuple[str, ...] | str = ()
    family: Family = "als"
    backbone: Backbone = "resnet101"
    weights: str | None = "imagenet"
    attention: bool = True
    separation: bool = True
    attention_width: int = 2048
    attention_bias: float = 3.0
    attention_cls_biased: bool = True
    attention_form: Literal["product", "residual", "competition"] = "product"
    attention_source: Literal["F", "F_loc"] = "F"
    attention_entropy: float = 1.0
    frozen_blocks: int = 2
    fold_batch_norm: bool = False
    pool: Literal["align", "max"] = "align"
    pool_size: int = 14
    min_size: int = 600
    max_size: int = 1000
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_pre_nms_train: int = 12000
    rpn_post_nms_train: int = 2000
    rpn_pre_nms_test: int = 6000
    rpn_post_nms_test: int = 300
    rpn_nms_threshold: float = 0.7
    rpn_anchors_per_image: int = 256
    rois_per_image: int = 128
    roi_positive_fraction: float = 0.25
    hard_rois_per_image: int = 0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    lambda_cls: float = 1.0
    lambda_loc: float = 1.0
    lambda_att: float = 1.0
    lambda_focus: float = 1.0
    lambda_part: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "classes", class_names_of(self.classes))
        _check_values(self)
        if self.min_size > self.max_size:
            raise InputError(
                f"min_size {self.min_size} is over max_size {self.max_size}; raise max_size."
            )
        check_family(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; a file of weights without the folder that it lay in."""
        return asdict(self) | {"weights": self.weights and Path(self.weights).name}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The config of a checkpoint. Raises InputError for one that this version cannot read."""
        if not isinstance(values, dict):
            raise InputError(f"model config: {_short(values)} is no set of options.")
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(
                f"model config: unknown keys {_short(sorted(map(str, unknown)))}; the file is from "
                "another version."
            )
        return cls(**values)


def _check_values(config) -> None:
    """Raise InputError for a value of another type, an unknown word, or out of `LIMITS`.

    From Python too. Lists become tuples, and ~ at the start of a place the home folder.
    """
    for option in fields(config):
        if option.name != "classes":
            hint: Any = option.type  # `str | None`, or one that stands alone
            kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else [hint]
            value = _checked(option.name, getattr(config, option.name), kinds)
            if option.name in PATHS and value is not None:
                value = os.path.expanduser(value)  # no shell does it in a YAML file
            object.__setattr__(config, option.name, value)


def _checked(name: str, value: Any, kinds: Sequence[Any]) -> Any:
    if value is None and NoneType in kinds:
        return None
    lists = [kind for kind in kinds if get_origin(kind) is tuple]
    if lists and isinstance(value, list | tuple):
        if not (value or name in MAY_BE_EMPTY) or len(value) > LONGEST_LIST:
            raise InputError(
                f"{name}: give a list of 1 to {LONGEST_LIST} numbers, not of {len(value)}."
            )
        return tuple(_checked(name, item, [get_args(lists[0])[0]]) for item in value)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if words:
        if value in words:
            return value
        known = ", ".join(words)
        raise InputError(f"{name}: '{_short(value)}' is unknown; choose one of {known}.")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (float in kinds or int in kinds):
        whole, (least, most) = float not in kinds, LIMITS[name]
        if least <= value <= most and (isinstance(value, int) or not whole):
            return value
        told = f"a {'whole ' * whole}number from {least:.10g} to {most:.10g}"
    elif type(value) in kinds and not (isinstance(value, str) and "\0" in value):
        return value
    else:
        told = " or ".join(TOLD.get(get_origin(k) or k, "a section of options") for k in kinds)
    raise InputError(f"{name} {_short(repr(value))}: give {told}.")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def class_names_of(given: Any) -> tuple[str, ...]:
    """Class names of a list, or of a text: "cat, dog", "[cat, dog]", "voc" or "coco".

    Raises InputError for anything else, a name twice, or one that cannot be printed.
    """
    if isinstance(given, str):
        given = _names_in(given)
    if not isinstance(given, list | tuple) or len(given) > MOST_CLASSES:
        raise InputError(
            f"classes: '{_short(given)}' is no list of at most {MOST_CLASSES} names; give one as "
            "[cat, dog], or voc or coco."
        )
    for name in given:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"classes: {_short(repr(name))} is no name; give texts of 1 to {LONGEST_NAME} "
                "signs, in quotes."
            )
    if len(set(given)) != len(given):
        twice = next(name for name in given if list(given).count(name) > 1)
        raise InputError(f"classes: '{twice}' is there twice; name each class once.")
    return tuple(given)


def _names_in(text: str) -> tuple[str, ...]:
    """Of YAML's list [yes, 1] too, which to YAML holds no text."""
    if text in CLASS_LISTS:
        return CLASS_LISTS[text]
    if not text.startswith("[") and "," not in text:
        raise InputError(
            f"classes: '{_short(text)}' is no class list; give a list as [cat, dog], voc or coco."
        )
    inside = text.strip("[] ")
    return tuple(name.strip(" '\"") for name in inside.split(",")) if inside else ()


def check_family(config: "ModelConfig") -> None:
    """Raise InputError where options do not go with the family or the backbone."""
    family, backbone = config.family, config.backbone
    if backbone not in BACKBONES[family]:
        raise InputError(
            f"backbone {backbone} does not go with family {family}; choose one of "
            f"{', '.join(BACKBONES[family])}."
        )
    if family != "als" and (config.attention or config.separation):
        raise InputError(
            f"family {family} has neither attention nor separated layers; set attention: false "
            "and separation: false."
        )
    defaults = {option.name: option.default for option in fields(config)}
    unread = [name for name in UNREAD[family] if getattr(config, name) != defaults[name]]
    if unread:
        raise InputError(f"family {family} does not read {', '.join(unread)}; leave it out.")
    if backbone == "vgg16":
        _check_vgg16(config)
    if config.attention and config.attention_form == "competition" and config.pool_size == 1:
        raise InputError("pool_size 1: a single bin has no rival; competition needs 2 at least.")
    if family in ONE_STAGE and config.min_size != config.max_size:
        raise InputError(
            f"min_size {config.min_size}, max_size {config.max_size}: SSD resizes to a square; "
            "set both to its side."
        )


def least_batch(config: "ModelConfig") -> int:
    """Images that a training step needs at least.

    The last map of SSDLite is a single cell, and its batch normalisation trains: of one image it
    would take the statistics of one value.
    """
    lite = config.family in ONE_STAGE and config.backbone == "mobilenet_v2"
    return 2 if lite else 1


def _check_vgg16(config: "ModelConfig") -> None:
    if config.fold_batch_norm:
        raise InputError("vgg16 has no batch normalisation; leave fold_batch_norm out.")
    if config.family not in ONE_STAGE and config.pool_size != 7:
        raise InputError(
            f"pool_size {config.pool_size}: fc6 of vgg16 takes RoI features of 7 x 7; set "
            "pool_size: 7."
        )
    if config.family in ONE_STAGE and config.min_size not in SSD_SIDES:
        raise InputError(
            f"min_size {config.min_size}: SSD on vgg16 has a side of 300 or 512; set one of them."
        )


@dataclass(frozen=True)
class DataConfig:
    """What is trained and validated on.

    Args:
        root: folder that holds the data folders named in `train` and `val`.
        train, val: unions of VOC-layout folders and splits, "VOC2007:trainval + VOC2012:trainval".
            `val` chooses the best checkpoint; None keeps the last.
        only_with_masks: train on the images alone that have a segmentation mask (section 3.2).
        masks: what A_loc learns from: "files", the segmentation masks; an image without one trains
            without the attention loss. "boxes": such an image gets a mask by GrabCut from its
            boxes, made once and kept in `<out>/masks`; needs OpenCV.
        batch_size: images a step and process.
        augmentation: "flip" (and a size drawn); "crop": before the size is drawn, some images are
            zoomed out and some cropped around an object; or "ssd": SSD's zooming out, cropping,
            distortion and flip, resized to a square of `max_size`, which reads neither min_sizes
            nor jitter.
        min_sizes: shorter sides in pixels, one drawn for each training image.
        max_size: longest side in pixels of a training image.
        jitter: photometric distortion (brightness, contrast, saturation, hue) in training.
        repeat_threshold: images with a class that fewer than this share of them show are seen
            more often (`repeat_factors` in data/sampler.py); 0 is off.
        workers: processes that load images.
        keep_decoded: each loading process keeps decoded images in memory, in the end all of them.
        skip_broken: leave broken files out, counted, instead of stopping at the first.
    """

    root: str = "."
    train: str = "VOC2007:trainval + VOC2012:trainval"
    val: str | None = None
    only_with_masks: bool = False
    masks: MaskOption = "files"
    batch_size: int = 1
    augmentation: Literal["flip", "crop", "ssd"] = "flip"
    min_sizes: tuple[int, ...] = (600,)
    max_size: int = 1000
    jitter: bool = False
    repeat_threshold: float = 0
    workers: int = 2
    keep_decoded: bool = False
    skip_broken: bool = False

    def __post_init__(self):
        _check_values(self)
        if self.only_with_masks and self.masks == "boxes":
            raise InputError(
                "only_with_masks leaves no image to masks: boxes; leave one of the two out."
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule.

    Args:
        name: "sgd", the detectors' custom, or "adamw", whose steps do not shrink with the small
            gradient that reaches a map near one.
        lr: learning rate of a step, for the images of all processes and accumulated batches.
        attention_lr_factor: the attention layers learn at `lr` times this.
        momentum: of SGD.
        weight_decay: of all parameters, biases too.
        warmup_steps: steps over which the rate rises linearly from a thousandth of `lr`, at most
            half of all; 0 begins with `lr`.
        schedule: "cosine" to zero, or "step": a tenth at each of `milestones`.
        milestones: shares of all steps at which a step schedule drops.
        gradient_clip: largest norm of all gradients together; 0 is off.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    attention_lr_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    schedule: Literal["cosine", "step"] = "step"
    milestones: tuple[float, ...] = (0.73,)
    gradient_clip: float = 10.0

    def __post_init__(self):
        _check_values(self)


@dataclass(frozen=True)
class TrainConfig:
    """One run: `als train CONFIG`.

    Args:
        out: folder of the run (checkpoints, logs, resolved config).
        start_from: inference checkpoint (.safetensors, or a name as "animals") whose tensors the
            run starts from, as stage 2 starts from stage 1 (section 3.2). Attention layers may be
            new, the branches may be separated, and of the RoI heads the rows of classes that the
            checkpoint does not know are new.
        seed: of weights, order, augmentation and sampling.
        epochs: passes over the training images.
        channels_last: memory layout of the convolutions.
        compile: compile trunk and semantic layers (torch.compile); the start takes minutes.
    """

    out: str = "runs/als"
    start_from: str | None = None
    seed: int = 0
    epochs: int = 1
    channels_last: bool = True
    compile: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self):
        _check_values(self)
        if self.data.batch_size < least_batch(self.model):
            raise InputError(
                "data.batch_size: the batch normalisation of SSDLite's extra layers needs 2 images "
                "a step; raise it."
            )


@dataclass(frozen=True)
class TrainerConfig:
    """Arguments of lightning's Trainer that a run takes, under `trainer.`; None is its default.

    What a run sets itself, or what would make another schedule or resumption, is not among them.
    logger: where figures go besides `metrics.csv`; None is TensorBoard, "csv" nowhere. Weights &
    Biases and MLflow are installed apart.
    """

    accelerator: str | None = None
    strategy: str | None = None
    devices: tuple[int, ...] | int | str | None = None
    num_nodes: int | None = None
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] | None = None
    max_steps: int | None = None
    max_time: str | None = None
    val_check_interval: int | float | None = None
    check_val_every_n_epoch: int | None = None
    log_every_n_steps: int | None = None
    logger: Literal["tensorboard", "wandb", "mlflow", "csv"] | None = None
    accumulate_grad_batches: int | None = None
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    deterministic: bool | None = None
    benchmark: bool | None = None
    sync_batchnorm: bool | None = None
    detect_anomaly: bool | None = None

    def __post_init__(self):
        _check_values(self)

    def given(self) -> dict[str, Any]:
        """The arguments that are not left at their defaults."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
