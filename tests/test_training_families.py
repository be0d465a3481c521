"""Every row that runs: it trains on toy data, comes back from its file, detects and is judged."""

import math
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from tiny import random_images, thin_vgg16, write_lively_weights
from torchvision import models
from training_toys import QUIET, break_image

from als.checkpoint import build_detector, load_checkpoint
from als.config import ONE_STAGE, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from als.evaluation.evaluate import evaluate
from als.inference import Predictor
from als.training.module import DetectorModule
from als.training.train import DetectionData, compile_convolutions, train

TWO_STAGE = {"min_size": 64, "max_size": 96, "anchor_sizes": (16, 32), "rois_per_image": 16}
TWO_STAGE |= {"rpn_pre_nms_train": 60, "rpn_post_nms_train": 20, "rpn_post_nms_test": 20}
RFCN = TWO_STAGE | {"family": "rfcn", "pool_size": 3, "hard_rois_per_image": 8}
MRCNN = TWO_STAGE | {"family": "mrcnn", "nms_threshold": 0.3}
SSD = {"family": "ssd", "frozen_blocks": 0}
SQUARE, SQUARE_300 = ({"min_size": side, "max_size": side} for side in (96, 300))
ROWS = {
    "Faster R-CNN, VGG16": TWO_STAGE | {"backbone": "vgg16", "pool_size": 7},
    "Faster R-CNN, ResNet": TWO_STAGE | {"backbone": "resnet18", "pool_size": 3},
    "R-FCN, ResNet": RFCN | {"backbone": "resnet18"},
    "MR-CNN, VGG16": MRCNN | {"backbone": "vgg16", "pool_size": 7},
    "MR-CNN, compact": MRCNN | {"backbone": "mobilenet_v2", "pool_size": 3},
    "SSD300": SSD | {"backbone": "vgg16"} | SQUARE_300,
    "SSD512": SSD | {"backbone": "vgg16", "min_size": 512, "max_size": 512, "frozen_blocks": 4},
    "Faster R-CNN, compact": TWO_STAGE | {"backbone": "mobilenet_v2", "pool_size": 3},
    "R-FCN, compact": RFCN | {"backbone": "mobilenet_v2"},
    "SSDLite": SSD | {"backbone": "mobilenet_v2"} | SQUARE,
    "after LED": SSD | {"family": "led", "backbone": "mobilenet_v2"} | SQUARE,
    "after LED, 300": SSD | {"family": "led", "backbone": "vgg16"} | SQUARE_300,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy"
    write_toy(root, images=8, seed=3, size=(64, 80))
    return root


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(autouse=True)
def _small_vgg(monkeypatch):
    monkeypatch.setattr(models, "vgg16", thin_vgg16)  # 138 million parameters are not for a test


def config_of(toy, out, row: str, **optimizer) -> TrainConfig:
    """4 training images in batches of 2: 2 steps an epoch."""
    network = {"classes": TOY_CLASSES, "weights": None, "attention": False, "separation": False}
    model = ModelConfig(**(network | ROWS[row]))
    data = DataConfig(
        root=str(toy), train="VOC2012:train", batch_size=2, min_sizes=(64,), workers=0
    )
    data = replace(data, max_size=model.max_size)
    if model.family in ONE_STAGE:
        data = replace(data, augmentation="ssd")
    options = {"lr": 1e-3, "warmup_steps": 1, "schedule": "cosine"} | optimizer
    return TrainConfig(str(out), model=model, data=data, optimizer=OptimizerConfig(**options))


def watch_losses(monkeypatch) -> list[float | None]:
    """The loss of every step that runs from now on; None where it was skipped."""
    losses, whole_step = [], DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        loss = whole_step(self, batch, batch_idx)
        losses.append(None if loss is None else loss.item())
        return loss

    monkeypatch.setattr(DetectorModule, "training_step", training_step)
    return losses


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_and_comes_back(toy, tmp_path, monkeypatch, row):
    losses = watch_losses(monkeypatch)
    config = config_of(toy, tmp_path / "run", row)
    path = train(config, **QUIET)
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)

    detector, info = load_checkpoint(path)
    assert detector.config == config.model and info["epochs"] == 1
    again, _ = load_checkpoint(path)
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        found, found_again = (d.detect(d.encode(images), 0.0) for d in (detector, again))
        for one, two in zip(found, found_again, strict=True):
            one, two = one.as_dict(), two.as_dict()
            assert len(one["scores"]) and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("row", "lr"), [("R-FCN, ResNet", 0.01), ("SSDLite", 0.01), ("Faster R-CNN, VGG16", 0.03)]
)
def test_the_loss_falls(toy, tmp_path, monkeypatch, row, lr):
    losses = watch_losses(monkeypatch)
    config = config_of(toy, tmp_path / "run", row, lr=lr)
    data = replace(config.data, augmentation="flip")
    model = config.model
    if model.backbone == "mobilenet_v2":  # random and without its statistics it gives zeros
        model = replace(model, weights=write_lively_weights(tmp_path / "mobilenet.pth"))
    train(replace(config, data=data, model=model, epochs=10), **QUIET)
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


@pytest.mark.parametrize("row", ["R-FCN, compact", "MR-CNN, compact", "SSDLite"])
def test_predictor_and_evaluation_take_every_family(toy, tmp_path, row):
    config = config_of(toy, tmp_path / "run", row)
    detector, _ = load_checkpoint(train(config, **QUIET))
    records = load_records("VOC2012:val", toy, TOY_CLASSES)
    record = evaluate(detector, records, workers=0, progress=False)
    assert record["maps"] is None and 0 <= record["metrics"]["AP50_area"] <= 1

    predictor = Predictor(detector, {})
    analysis = predictor.analyse(records[0].path, score_threshold=0.0)
    prediction = analysis.prediction
    assert len(prediction.boxes) == len(prediction.names) > 0
    assert prediction.localization_map is None and prediction.classification_map is None
    height, width = prediction.size
    assert (prediction.boxes <= [width, height, width, height]).all()
    usual = predictor.predict(records[0].path)  # the threshold was for one call
    assert (usual.scores > config.model.score_threshold).all()
    with pytest.raises(InputError, match=f"of family {config.model.family}"):
        predictor.explain(analysis)
    with pytest.raises(InputError, match="no attention maps"):
        predictor.predict(records[0].path, localization_map=1.0)


def test_training_on_images_with_masks_alone(toy, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(toy, root)
    config = config_of(root, tmp_path / "run", "R-FCN, compact")
    config = replace(config, data=replace(config.data, only_with_masks=True))
    everything = DetectionData(config).train_records
    assert len(everything) >= 2
    for record in everything[1:]:
        for mask in (root / "VOC2012").glob(f"Segmentation*/{record.image_id}.png"):
            mask.unlink()
    assert [r.image_id for r in DetectionData(config).train_records] == [everything[0].image_id]
    for mask in (root / "VOC2012").glob("Segmentation*/*.png"):
        mask.unlink()
    with pytest.raises(InputError, match="only_with_masks: no image"):
        DetectionData(config)


def test_ssdlite_needs_two_images_a_step(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", "SSDLite")
    with pytest.raises(InputError, match="needs 2 images"):
        replace(config, data=replace(config.data, batch_size=1))


def test_ssdlite_leaves_out_a_batch_of_which_one_image_remains(tmp_path, monkeypatch, capsys):
    root = tmp_path / "data"
    write_toy(root, images=8, seed=3, size=(64, 80))
    config = config_of(root, tmp_path / "run", "SSDLite")
    config = replace(config, data=replace(config.data, skip_broken=True))
    break_image(root, 0)
    losses = watch_losses(monkeypatch)
    train(config, **QUIET)
    assert len(losses) == 2 and losses.count(None) == 1
    assert "1 samples could not be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("Faster R-CNN, ResNet", {"trunk", "roi_heads.conv5_cls"}),
        ("R-FCN, ResNet", {"trunk", "roi_heads.conv5"}),
        ("MR-CNN, compact", {"trunk", "roi_heads.conv5_cls", "roi_heads.conv5_loc"}),
        ("SSD300", {"ssd.backbone"}),
    ],
)
def test_compiling_reaches_the_large_layers_of_every_family(toy, tmp_path, row, parts):
    detector = build_detector(config_of(toy, tmp_path / "run", row).model)
    compile_convolutions(detector)
    compiled = {n for n, m in detector.named_modules() if m._compiled_call_impl is not None}
    assert compiled == parts
