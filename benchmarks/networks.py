"""What is measured: ALS and the Faster R-CNN of the same trunk and head, photographs, steps.

"compact" is the checkpoint `animals`; its Faster R-CNN takes over every weight that it has a
place for. "resnet50" is the paper's kind of network with random weights, which `random_detector`
makes alive, at a threshold that a stated share of the proposals passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import FrozenBatchNorm2d

from als.checkpoint import build_detector, read_checkpoint
from als.config import ONE_STAGE, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.data.toy import TOY_CLASSES
from als.images import as_rgb
from als.model import AnyDetector, Detector
from als.photographs import package_photographs
from benchmarks.recording import Setting
from benchmarks.torchvision_baseline import faster_rcnn_of

CLASSES = tuple(f"class {number}" for number in range(1, 21))
PLAIN = {"attention": False, "separation": False}  # Faster R-CNN
SHARE = 0.35  # of the proposals of a random network that pass the score threshold
# A photograph is as large as the network's own size: 384 x 512 pixels.
COMPACT = {"rpn_pre_nms_test": 6000}  # so that 300 proposals are left after NMS
RESNET50 = {"classes": CLASSES, "backbone": "resnet50", "weights": None}
RESNET50 |= {"min_size": 600, "max_size": 800, "rois_per_image": 64}  # a step takes long enough
QUICK = {"min_size": 64, "max_size": 96, "rpn_post_nms_test": 20, "rpn_post_nms_train": 40}
QUICK_RESNET = QUICK | {"backbone": "resnet18", "attention_width": 16, "pool_size": 4}
SMALL = {"backbone": "mobilenet_v2", "weights": None, "attention_width": 16}
SMALL |= {"anchor_sizes": (16, 32, 64), "rpn_post_nms_train": 50, "rpn_post_nms_test": 50}
# Of lightning's Trainer, where a training is only a part of a check.
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
SETTLED = 50  # RoIs an image that give a random network its statistics
OBJECTS = 40  # boxes an image: they fill the positive quarter of 128 RoIs, as late in a training

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


@dataclass
class Subject:
    """als, and base, the same with both parts off: Faster R-CNN; baseline is torchvision's of base.

    photos: uint8 [H, W, 3], of the size at which the network works. rounds: of its measurements.
    """

    name: str
    als: Detector
    base: Detector
    baseline: FasterRCNN
    photos: list[np.ndarray]
    rounds: int
    device: str

    @property
    def tensors(self) -> list[Tensor]:
        """float32 [3, H, W] in 0..1."""
        return [as_tensor(photo).to(self.device) for photo in self.photos]


def build(name: str, setting: Setting) -> Subject:
    """The subject "compact" or "resnet50", in evaluation mode on the setting's device."""
    als, base = (build_side(name, side, setting) for side in ("als", "frcnn"))
    count, rounds = (4, 5) if name == "compact" else (1, 3)  # detections of ResNet-50 take seconds
    photos = photographs((als.config.min_size, als.config.max_size), setting.few(count))
    baseline = faster_rcnn_of(base).eval()
    return Subject(name, als, base, baseline, photos, setting.few(rounds), setting.device)


def build_side(name: str, side: str, setting: Setting) -> Detector:
    """One detector alone: side "als", or "frcnn" for the same without both parts."""
    off = {} if side == "als" else PLAIN
    if name == "compact":
        start, _, weights = read_checkpoint("animals")
        config = replace(start.config, **COMPACT, **off, **(QUICK if setting.quick else {}))
        detector = build_detector(config, pretrained=False)
        detector.load_state_dict({key: weights[key] for key in detector.state_dict()})
        detector = detector.eval().to(setting.device)
    else:
        torch.manual_seed(0)
        config = ModelConfig(**RESNET50 | off | (QUICK_RESNET if setting.quick else {}))
        photo = photographs((config.min_size, config.max_size), 1)[0]
        images = [as_tensor(photo).to(setting.device)]
        detector = random_detector(config, images)
        let_through(detector, images, SHARE)
    return detector.to(memory_format=torch.channels_last)


def photographs(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """The first `count` photographs, uint8 [H, W, 3], resized to (height, width)."""
    chosen = package_photographs()[:count]
    return [np.array(as_rgb(path).resize((size[1], size[0]))) for path in chosen]


def as_tensor(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1).float() / 255


def batch_of(images: list[Tensor], shares: Tensor, classes: int) -> Batch:
    """Images [3, H, W] with targets on their device; the left half of each image is object.

    shares: the same boxes [M, 4] xyxy on every image, as shares of its width and height.
    """
    targets = []
    for image in images:
        height, width = image.shape[-2:]
        boxes = shares.to(image) * image.new_tensor([width, height, width, height])
        labels = torch.arange(len(boxes), device=image.device) % classes + 1
        object_map = torch.zeros(height, width, dtype=torch.uint8, device=image.device)
        object_map[:, : width // 2] = 1
        targets.append({"boxes": boxes, "labels": labels, "object_map": object_map})
    return images, targets


def random_batch(images: int, short_side: int, classes: int, device) -> Batch:
    """Images of noise [3, s, 4/3 s] in 0..1 with random boxes."""
    generator = torch.Generator().manual_seed(0)
    size = (3, short_side, short_side * 4 // 3)
    noise = [torch.rand(size, generator=generator).to(device) for _ in range(images)]
    corners = torch.rand(OBJECTS, 2, 2, generator=generator).sort(1).values.flatten(1)
    return batch_of(noise, corners + torch.tensor([0, 0, 0.05, 0.05]), classes)  # none is thin


@torch.no_grad()
def random_detector(config: ModelConfig, images: list[Tensor]) -> AnyDetector:
    """A random detector on the images' device whose frozen BN have these images' statistics.

    Without them the activations of a deep random network grow beyond all bounds.
    """
    detector = build_detector(config).to(images[0]).eval()
    # Both branches run, on few RoIs: this is not to be the peak where memory is measured.
    few = {} if config.family in ONE_STAGE else {"proposals": SETTLED}
    run = partial(detector.detect, threshold=-1.0, **few)
    give_statistics(detector, lambda: run(detector.encode(images)))
    return detector


def give_statistics(module: nn.Module, forward: Callable[[], Any]) -> None:
    """Give every frozen BN of `module` the statistics of its input, as training would have."""

    def measure(layer, inputs):  # what a convolution gave, its BN not having statistics yet
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)))
        return (FrozenBatchNorm2d.forward(layer, inputs[0]),)

    layers = [layer for layer in module.modules() if isinstance(layer, FrozenBatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    forward()
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def let_through(detector: Detector, images: list[Tensor], share: float) -> None:
    """Set the config's threshold so that `share` of the proposals have a class over it."""
    found = detector.detect(detector.encode(images), threshold=1.0)
    best = torch.cat([one.logits for one in found]).float().softmax(-1)[:, 1:].amax(1)
    threshold = best.quantile(1 - share).item()
    detector.config = replace(detector.config, score_threshold=threshold)


def small_training(root: Path, out: Path, epochs: int, network: dict, data: dict) -> TrainConfig:
    """A training in seconds on the drawn images of `root`, two a step."""
    toy = {"root": str(root), "train": "VOC2012:train", "batch_size": 2, "workers": 1}
    return TrainConfig(
        out=str(out),
        epochs=epochs,
        model=ModelConfig(classes=TOY_CLASSES, **network),
        data=DataConfig(**toy | data),
        optimizer=OptimizerConfig(lr=0.005, warmup_steps=10, schedule="cosine"),
    )


def loss_of(detector: AnyDetector, batch: Batch, precision: str = "fp32") -> Tensor:
    """The whole loss of a batch; precision "fp32", or "bf16" for autocast."""
    bf16 = torch.autocast(batch[0][0].device.type, torch.bfloat16, enabled=precision == "bf16")
    with bf16:
        return detector.total_loss(detector(*batch))


def step(model: nn.Module, losses: Sequence[Callable[[], Tensor]]) -> Callable[[], None]:
    """One optimiser step with the gradients of all the losses.

    The learning rate is 0: it costs the same and changes nothing.
    """
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def run() -> None:
        torch.manual_seed(0)  # which anchors and RoIs are drawn
        optimizer.zero_grad()
        for loss in losses:
            loss().backward()
        optimizer.step()

    return run
