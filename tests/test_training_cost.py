"""The derived cost of a training: against published counts, and by hand."""

import re

import pytest
from torchvision.models.detection import SSD300_VGG16_Weights

from als.config import CONFIGS, ModelConfig
from als.errors import InputError
from als.tables.stage_config import read_config
from benchmarks.training_cost import cost, describe, image_size

NO_PARTS = {"attention": False, "separation": False}
SSD300 = NO_PARTS | {"family": "ssd", "backbone": "vgg16", "frozen_blocks": 0}
SSD300 |= {"min_size": 300, "max_size": 300}
SMALL = NO_PARTS | {"backbone": "mobilenet_v2", "rois_per_image": 8, "weights": None}


def test_ssd300_counts_what_torchvision_says():
    classes = tuple(f"class {k}" for k in range(90))  # torchvision's 91 with the background
    step = cost(ModelConfig(classes=classes, **SSD300), 300, 300, batch=1)
    published = SSD300_VGG16_Weights.COCO_V1.meta
    assert step["parameters"] == published["num_params"]
    # torchvision counts a multiplication and an addition as one operation.
    assert step["flop_forward"] / 2e9 == pytest.approx(published["_ops"], rel=0.01)
    # The backward pass does twice the forward's work, but for the gradient of the image.
    assert 2.8 < step["flop"] / step["flop_forward"] <= 3.0
    # Weight, gradient and momentum in float32, and more for the activations.
    assert step["bytes"] > 12 * step["parameters"]


def test_batches_share_the_parameters():
    config = ModelConfig(classes=("cat",), **SMALL)
    one, two = (cost(config, 96, 128, batch) for batch in (1, 2))
    assert two["flop"] == pytest.approx(2 * one["flop"], rel=1e-6)
    assert one["bytes"] < two["bytes"] < 2 * one["bytes"]
    adamw = cost(config, 96, 128, 1, state=2)
    trained = (adamw["bytes"] - one["bytes"]) / 4
    assert 0 < trained < one["parameters"], "a state more for each parameter that trains"


def test_each_part_costs_something():
    bare = cost(ModelConfig(classes=("cat",), **SMALL), 96, 128, 1)["flop"]
    for change in ({"separation": True}, {"attention": True, "attention_width": 16}):
        assert cost(ModelConfig(classes=("cat",), **(SMALL | change)), 96, 128, 1)["flop"] > bare


def test_photographs_that_nobody_counted_are_named():
    changes = {"data.train": "VOC2012:trainval + mine:train", "model.weights": None}
    config = read_config(CONFIGS / "compact-stage1.yaml", changes)
    with pytest.raises(InputError, match="mine:train: not counted"):
        describe(config, 1e12)


COUNTED = re.compile(r"at least ([\d.]+) GiB for (\d+) images?\b.*?at ([\d,]+) GFLOP an image")
DERIVED = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "training_cost" in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("path", DERIVED, ids=lambda path: path.stem)
def test_a_config_says_what_its_step_costs(path):
    said = re.sub(r"\n#\s*", " ", path.read_text())
    gib, batch, gflop = COUNTED.search(said).groups()
    config = read_config(path, {"model.weights": None})
    state = 2 if config.optimizer.name == "adamw" else 1
    batch = int(batch)
    assert batch == config.data.batch_size
    step = cost(config.model, *image_size(config), batch, state)
    assert f"{step['bytes'] / 2**30:.1f}" == gib
    assert f"{step['flop'] / batch / 1e9:,.0f}" == gflop
