"""What a training config costs on a GPU, derived without one.

Counted on shapes alone (torch's meta device): the floating point operations of a step's forward
and backward pass, and the memory of parameters, their gradients and momenta, and of what the
forward pass keeps for the backward pass. Images have an aspect of 4:3 and the mean of the config's
sizes.

Hours come from one published training: detectron2's Faster R-CNN R101-C4 ('3x' in its model zoo),
2 images a V100 in 0.619 s a step. Its operations, counted the same way, give a rate; every config
is held against it. Both are lower bounds. Memory counts no workspace and no fragmentation; a step
of one small image leaves a GPU waiting (R-FCN's README says 19 h of a Titan X where this says 2 h
of a V100).
"""

from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.image_list import ImageList

from als.checkpoint import build_detector
from als.config import ONE_STAGE, ModelConfig, TrainConfig
from als.errors import InputError
from als.model import AnyDetector, Encoding
from als.tables.stage_config import read_config

IMAGES = {"VOC2007:trainval": 5011, "VOC2012:trainval": 11540, "coco2017:train2017": 117266}
REFERENCE = ModelConfig(classes="coco", attention=False, separation=False, rois_per_image=512)
REFERENCE_SIDE, REFERENCE_IMAGES, REFERENCE_SECONDS = 720, 2, 0.619


def outputs_of_a_step(detector: AnyDetector, height: int, width: int, batch: int) -> list[Tensor]:
    """What the loss of a step depends on, RoIs filled in: run on the meta device."""
    config = detector.config
    images = torch.empty(batch, 3, height, width)
    if config.family in ONE_STAGE:
        outputs = detector.ssd.head(list(detector.ssd.backbone(images).values()))
        return list(outputs.values())
    f = detector.trunk(images)
    outputs = [f.sum()]  # RoI pooling hands its gradient on to all of F
    sizes = [(height, width)] * batch
    encoding = detector.attend(Encoding(ImageList(images, sizes), [], f, f, f))
    if config.attention:
        outputs += [encoding.loc_logits, encoding.f_cls]
    objectness, deltas = detector.rpn.head([encoding.f_loc])
    heads, count = detector.roi_heads, batch * config.rois_per_image
    if config.family == "rfcn":
        feature = heads.conv5(f)
        return [*outputs, *objectness, *deltas, heads.score_maps(feature), heads.box_maps(feature)]
    if config.family == "mrcnn":
        rois = [torch.empty(config.rois_per_image, 4)] * batch
        positive = [one[: int(len(one) * config.roi_positive_fraction)] for one in rois]
        outputs += [detector.segmentation.class_maps(encoding.f_cls.chunk(2, dim=1)[1])]
        outputs += [*objectness, *deltas, heads.classify(encoding.f_cls, rois)[0]]
        return [*outputs, heads.localize(encoding.f_loc, positive)]
    shape = (f.shape[1], config.pool_size, config.pool_size)
    vectors = heads.conv5_cls(torch.empty(count, *shape, requires_grad=True))
    outputs += [*objectness, *deltas, heads.cls_score(vectors)]
    if heads.conv5_loc is not None or config.attention:
        positive = int(count * config.roi_positive_fraction)
        conv5 = heads.conv5_cls if heads.conv5_loc is None else heads.conv5_loc
        vectors = conv5(torch.empty(positive, *shape, requires_grad=True))
    return [*outputs, heads.bbox_pred(vectors)]


def cost(config: ModelConfig, height: int, width: int, batch: int, state: int = 1) -> dict:
    """Of one step: flop (operations, forward and backward), flop_forward, bytes.

    Args:
        height, width: of an image in pixels. batch: images a GPU.
        state: numbers that the optimiser keeps for each parameter (SGD 1, AdamW 2).
    """
    with torch.device("meta"):
        detector = build_detector(config, pretrained=False).train()
        own = {p.untyped_storage()._cdata for p in detector.parameters()}
        kept: dict[int, Tensor] = {}  # the tensors stay referenced, so that no id is used twice

        def keep(tensor: Tensor) -> Tensor:
            key = tensor.untyped_storage()._cdata
            if key not in own:
                kept[key] = tensor
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        counter = FlopCounterMode(display=False)
        with hooks, counter:
            outputs = outputs_of_a_step(detector, height, width, batch)
            forward = counter.get_total_flops()
            sum(output.sum() for output in outputs).backward()
    sizes = [(p.numel(), p.requires_grad) for p in detector.parameters()]
    numbers = sum(n * (2 + state if trains else 1) for n, trains in sizes)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return {
        "parameters": sum(n for n, _ in sizes),
        "flop_forward": forward,
        "flop": counter.get_total_flops(),
        "bytes": 4 * numbers + activations,
    }


def image_size(config: TrainConfig) -> tuple[int, int]:
    """(height, width) of a training image: a square for SSD, else 4:3 within max_size."""
    data = config.data
    if config.model.family in ONE_STAGE:
        return config.model.max_size, config.model.max_size
    side = sum(data.min_sizes) // len(data.min_sizes)
    width = min(side * 4 // 3, data.max_size)
    return width * 3 // 4, width


def describe(config: TrainConfig, rate: float) -> str:
    """One line for a config, on a GPU that makes `rate` operations a second."""
    batch, state = config.data.batch_size, 2 if config.optimizer.name == "adamw" else 1
    step = cost(config.model, *image_size(config), batch, state)
    parts = [part.strip() for part in config.data.train.split("+")]
    if unknown := [part for part in parts if part not in IMAGES]:
        raise InputError(f"data.train {unknown[0]}: not counted; known are {', '.join(IMAGES)}.")
    count = sum(IMAGES[part] for part in parts)
    images = config.epochs * count
    hours = images / batch * step["flop"] / rate / 3600
    return (
        f"{step['parameters'] / 1e6:6.1f} M parameters, {step['flop'] / batch / 1e9:6.0f} GFLOP an "
        f"image, {step['bytes'] / 2**30:5.1f} GiB for {batch} images, {config.epochs} epochs of "
        f"{count} images, {images // batch} steps, {hours:6.1f} h of a V100"
    )


def training_cost(arguments: list[str]) -> None:
    """What training configs cost on a GPU: parameters, operations, memory, hours of a V100."""
    parser = ArgumentParser("python -m benchmarks training_cost", description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    side = REFERENCE_SIDE
    reference = cost(REFERENCE, side, side * 4 // 3, REFERENCE_IMAGES)
    rate = reference["flop"] / REFERENCE_SECONDS
    print(f"a V100 at {rate / 1e12:.1f} TFLOP/s")
    for name in parser.parse_args(arguments).configs:
        print(f"{name}: {describe(read_config(name), rate)}", flush=True)
