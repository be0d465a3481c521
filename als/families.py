"""The families of detectors, and which options and backbones go with which."""

from dataclasses import fields
from typing import TYPE_CHECKING, Literal, get_args

from als.errors import InputError

if TYPE_CHECKING:
    from als.config import ModelConfig

Family = Literal["als", "rfcn", "ssd"]
Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "vgg16"]

ATTENTION_OPTIONS = (
    *("attention_width", "attention_bias", "attention_cls_biased", "attention_form"),
    *("attention_source", "lambda_att"),
)
ROI_OPTIONS = (
    *("anchor_sizes", "anchor_ratios", "rpn_pre_nms_train", "rpn_post_nms_train"),
    *("rpn_pre_nms_test", "rpn_post_nms_test", "rpn_nms_threshold", "rpn_anchors_per_image"),
    *("pool", "pool_size", "rois_per_image", "roi_positive_fraction", "hard_rois_per_image"),
)
UNREAD = {  # by a family; a value other than the default would have no effect
    "als": ("hard_rois_per_image",),
    "rfcn": ATTENTION_OPTIONS,
    "ssd": ATTENTION_OPTIONS + ROI_OPTIONS,
}
BACKBONES = {
    "als": get_args(Backbone),
    "rfcn": tuple(name for name in get_args(Backbone) if name != "vgg16"),
    "ssd": ("vgg16", "mobilenet_v2"),
}
SSD_SIDES = (300, 512)  # with vgg16; MobileNetV2's extra layers fit any side


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
    if family == "ssd" and config.min_size != config.max_size:
        raise InputError(
            f"min_size {config.min_size}, max_size {config.max_size}: SSD resizes to a square; "
            "set both to its side."
        )


def least_batch(config: "ModelConfig") -> int:
    """Images that a training step needs at least.

    The last map of SSDLite is a single cell, and its batch normalisation trains: of one image it
    would take the statistics of one value.
    """
    return 2 if (config.family, config.backbone) == ("ssd", "mobilenet_v2") else 1


def _check_vgg16(config: "ModelConfig") -> None:
    if config.fold_batch_norm:
        raise InputError("vgg16 has no batch normalisation; leave fold_batch_norm out.")
    if config.family == "als" and config.pool_size != 7:
        raise InputError(
            f"pool_size {config.pool_size}: fc6 of vgg16 takes RoI features of 7 x 7; set "
            "pool_size: 7."
        )
    if config.family == "ssd" and config.min_size not in SSD_SIDES:
        raise InputError(
            f"min_size {config.min_size}: SSD on vgg16 has a side of 300 or 512; set one of them."
        )
