"""Which options go with which family, what a class list stands for, and what VGG16 is cut into."""

import pytest
import torch
from tiny import CLASSES, no_objects, random_images, tiny_config
from torchvision import models
from torchvision.models._meta import _COCO_CATEGORIES

from als.checkpoint import SHIPPED, build_detector
from als.classes import VOC_CLASSES
from als.config import ModelConfig
from als.errors import InputError
from als.inference import load
from als.model.backbone import build_backbone

RFCN = {"family": "rfcn", "attention": False, "separation": False}
MRCNN = {"family": "mrcnn", "attention": False, "separation": False}
SSD = {"family": "ssd", "attention": False, "separation": False}
SQUARE = {"min_size": 96, "max_size": 96}
SSD300 = SSD | {"backbone": "vgg16", "min_size": 300, "max_size": 300}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"family": "rfcn"}, "neither attention nor separated layers"),
        (RFCN | {"separation": True}, "neither attention nor separated layers"),
        (RFCN | {"attention_width": 8}, "family rfcn does not read attention_width"),
        (RFCN | {"backbone": "vgg16"}, "vgg16 does not go with family rfcn"),
        (MRCNN, "resnet101 does not go with family mrcnn"),
        (MRCNN | {"backbone": "vgg16"}, "RoI features of 7 x 7"),
        (MRCNN | {"backbone": "mobilenet_v2", "hard_rois_per_image": 4}, "read hard_rois"),
        (SSD, "resnet101 does not go with family ssd"),
        (SSD300 | {"attention": True}, "neither attention nor separated layers"),
        (SSD300 | {"pool_size": 7, "rpn_pre_nms_test": 9}, "read rpn_pre_nms_test, pool_size"),
        (SSD300 | {"max_size": 512}, "SSD resizes to a square"),
        (SSD300 | {"min_size": 320, "max_size": 320}, "a side of 300 or 512"),
        (SSD300 | {"fold_batch_norm": True}, "no batch normalisation"),
        ({"backbone": "vgg16"}, "RoI features of 7 x 7"),
        ({"backbone": "vgg16", "pool_size": 7, "fold_batch_norm": True}, "no batch normal"),
        ({"attention_form": "competition", "pool_size": 1}, "pool_size 1: a single bin"),
        ({"hard_rois_per_image": 4}, "family als does not read hard_rois_per_image"),
        ({"classes": "imagenet"}, "'imagenet' is no class list"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(InputError, match=said) as caught:
        ModelConfig(**options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "options",
    [
        RFCN | {"pool_size": 7, "hard_rois_per_image": 128},
        MRCNN | {"backbone": "vgg16", "pool_size": 7, "nms_threshold": 0.3},
        SSD300,
        SSD | SQUARE | {"backbone": "mobilenet_v2"},
        {"backbone": "vgg16", "pool_size": 7},
    ],
)
def test_a_config_survives_its_checkpoint(options):
    config = ModelConfig(classes=("cat",), **options)
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_defaults_are_the_papers():
    config = ModelConfig()
    assert (config.family, config.backbone) == ("als", "resnet101")
    assert config.attention and config.separation


@pytest.mark.skipif(not SHIPPED.is_file(), reason="needs the checkpoint that ships")
def test_a_checkpoint_from_before_the_families_loads():
    assert load().detector.config.family == "als"


def test_class_lists():
    assert ModelConfig(classes="voc").classes == VOC_CLASSES
    names = [name for name in _COCO_CATEGORIES if name not in ("__background__", "N/A")]
    assert ModelConfig(classes="coco").classes == tuple(names)


@pytest.mark.parametrize(
    "options",
    [
        RFCN | {"pool_size": 3, "rois_per_image": 8},
        MRCNN | {"pool_size": 2, "rois_per_image": 8},
        *(SSD | SQUARE, SSD | SQUARE | {"family": "led"}),
    ],
    ids=lambda options: options["family"],
)
def test_images_without_objects_train(options):
    torch.manual_seed(0)
    given = {"classes": CLASSES, "weights": None} | options | {"backbone": "mobilenet_v2"}
    detector = build_detector(ModelConfig(**given)).train()
    losses = detector(random_images(0, dtype=torch.float32), [no_objects(), no_objects()])
    assert losses["loss_loc"] == losses.get("loss_quality", 0) == 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    detector.total_loss(losses).backward()


def test_vgg16_is_cut_behind_conv5_3():
    with torch.device("meta"):  # shapes only
        backbone = build_backbone(tiny_config(backbone="vgg16", pool_size=7, frozen_blocks=2))
        feature = backbone.trunk(torch.rand(1, 3, 64, 96))
        vector = backbone.semantic(torch.rand(5, 512, 7, 7))
        network = models.vgg16(weights=None)
    assert feature.shape == (1, 512, 4, 6) and vector.shape == (5, 4096)
    assert (backbone.trunk_channels, backbone.semantic_channels) == (512, 4096)
    trains = [all(p.requires_grad for p in block.parameters()) for block in backbone.trunk]
    assert trains == [False, False, True, True, True]  # conv1 and conv2 do not train
    count = sum(p.numel() for p in network.parameters()) - 4096 * 1000 - 1000
    parts = (backbone.trunk, backbone.semantic)
    assert sum(p.numel() for part in parts for p in part.parameters()) == count


def test_vgg16_reads_weights_with_torchvisions_keys(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    config = tiny_config(backbone="vgg16", pool_size=7, weights=str(tmp_path / "vgg.pth"))
    with torch.device("meta"), pytest.raises(InputError, match="classifier.0.bias") as caught:
        build_backbone(config)
    # Thirteen convolutions, fc6 and fc7, a weight and a bias each, but the one that is there.
    assert "29 tensors of vgg16" in str(caught.value)
