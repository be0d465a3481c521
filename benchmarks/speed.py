"""What gpu_check and training_options share: detectors to time, steps to time, the timing."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.model import Detector
from als.training.train import give_float32

OBJECTS = 40  # boxes an image: they fill the positive quarter of 128 RoIs, as late in a training
SHARE_OVER_THRESHOLD = 0.2  # of the proposals, in inference; only these see the box branch

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def random_batch(images: int, short_side: int, classes: int, device, seed: int = 0) -> Batch:
    """Images of noise [3, s, 4/3 s] in 0..1 with random boxes; half of each is object."""
    generator = torch.Generator().manual_seed(seed)
    height, width = short_side, short_side * 4 // 3
    batch: Batch = ([], [])
    for _ in range(images):
        batch[0].append(torch.rand(3, height, width, generator=generator).to(device))
        corners = torch.rand(OBJECTS, 2, 2, generator=generator).sort(1).values
        boxes = corners.flatten(1) * torch.tensor([width, height] * 2)
        boxes[:, 2:] += 8  # pixels; no box without area
        object_map = torch.zeros(height, width, dtype=torch.uint8)
        object_map[:, : width // 2] = 1
        labels = torch.randint(1, classes + 1, (OBJECTS,), generator=generator)
        target = {"boxes": boxes, "labels": labels, "object_map": object_map}
        batch[1].append({name: value.to(device) for name, value in target.items()})
    return batch


@torch.no_grad()
def settled_detector(config: ModelConfig, images: list[Tensor]) -> Detector:
    """A random detector on the images' device whose frozen BN have these images' statistics.

    Without them the activations of a deep random network grow beyond all bounds.
    """

    def measure(layer, inputs):  # what a convolution gave, its BN not having statistics yet
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)))
        return (FrozenBatchNorm2d.forward(layer, inputs[0]),)

    detector = build_detector(config).to(images[0]).eval()
    give_float32(detector)
    layers = [layer for layer in detector.modules() if isinstance(layer, FrozenBatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    threshold, detector.score_threshold = detector.score_threshold, -1.0  # both branches run
    detector(images)
    detector.score_threshold = threshold
    for hook in hooks:
        hook.remove()
    return detector


@torch.no_grad()
def let_through(detector: Detector, images: list[Tensor], share: float) -> None:
    """Set the threshold so that `share` of the proposals have a class over it."""
    encoding = detector.eval().encode(images)
    logits, _ = detector.roi_heads.classify(encoding.f_cls, detector.propose(encoding))
    best = logits.float().softmax(-1)[:, 1:].amax(1)
    detector.score_threshold = best.quantile(1 - share).item()


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """ "fp32", or "bf16" autocast."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def training_step(detector: Detector, batch: Batch, precision: str, optimizer) -> Callable:
    """A function that makes one step and returns its loss."""
    device = batch[0][0].device

    def step() -> Tensor:
        with autocast(device, precision):
            total = detector.total_loss(detector.losses(detector.encode(batch[0]), batch[1]))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.detach()

    detector.train()
    return step


def detection(detector: Detector, batch: Batch, precision: str) -> Callable:
    """A function that detects on the batch."""
    device = batch[0][0].device

    def detect() -> list[dict[str, Tensor]]:
        with torch.no_grad(), autocast(device, precision):
            return detector(batch[0])

    detector.eval()
    return detect


def seconds(function: Callable, device: torch.device, repeats: int, warm_up: int = 3) -> float:
    """Median seconds of a call, the device's queue included."""
    for _ in range(warm_up):
        function()
    return statistics.median(timed(function, device) for _ in range(repeats))


def timed(function: Callable, device: torch.device) -> float:
    """Seconds of one call, the device's queue included."""
    wait(device)
    started = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(function: Callable, device: torch.device) -> float | None:
    """Largest memory that tensors took on the device during a call; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    function()
    wait(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def count_flops(function: Callable) -> int:
    """Floating point operations of a call in convolutions and matrix products (2 a MAC)."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
