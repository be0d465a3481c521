"""A training step: ALS with both parts beside Faster R-CNN of the same trunk and head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.goals import name_of
from benchmarks.pairs import Measured, in_turns
from benchmarks.subjects import Setting, Subject, as_tensor, photographs

# (batch, height, width) as the configs train: the compact model at a middle size
SHAPES = {"compact": (8, 320, 416), "resnet50": (1, 600, 800)}
QUICK_SHAPE = (2, 64, 96)
# Objects as shares of width and height, the same on every image.
OBJECTS = (
    *((0.10, 0.10, 0.50, 0.60), (0.40, 0.30, 0.90, 0.95), (0.05, 0.50, 0.40, 0.95)),
    *((0.55, 0.05, 0.95, 0.45), (0.20, 0.20, 0.80, 0.80), (0.30, 0.05, 0.60, 0.40)),
)


def measure(subject: Subject, setting: Setting) -> Measured:
    """Forward, backward and SGD with the same images, objects and draws on both sides."""
    images, targets = batch(subject, setting)
    plain = [{key: target[key] for key in ("boxes", "labels")} for target in targets]
    als, twin = subject.als.train(), subject.twin.train()
    try:
        sides = {
            "als": step(als, lambda: als.total_loss(als(images, targets))),
            "frcnn": step(twin, lambda: sum(twin(images, plain).values())),
        }
        turns = in_turns(sides, subject.rounds, warm=subject.slow)
        positives = _positives(als, images, targets)
    finally:
        for model in (als, twin):
            model.eval().zero_grad()
    facts = {
        "images": [len(images), *images[0].shape],
        "rois_per_image": als.config.rois_per_image,
        "share_of_positive_rois": positives,
    }
    return Measured(
        {name_of("training_vs_frcnn", subject.name): turns.ratio("als", "frcnn")},
        {f"training step {subject.name} {side}": turns.seconds(side) for side in sides},
        {f"training {subject.name}": facts},
    )


def batch(subject: Subject, setting: Setting) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images [3, H, W] of the size that training resizes to, and their targets."""
    count, height, width = QUICK_SHAPE if setting.quick else SHAPES[subject.name]
    photos = photographs((height, width), 4)
    images = [as_tensor(photos[i % 4]).to(setting.device) for i in range(count)]
    sides = torch.tensor([width, height, width, height])
    boxes = (torch.tensor(OBJECTS) * sides).to(setting.device)
    labels = torch.arange(len(OBJECTS), device=setting.device) % len(subject.als.config.classes)
    object_map = torch.zeros(height, width, dtype=torch.uint8, device=setting.device)
    for x1, y1, x2, y2 in boxes.int().tolist():
        object_map[y1:y2, x1:x2] = 1
    target = {"boxes": boxes, "labels": labels + 1, "object_map": object_map}
    return images, [target] * count


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One optimiser step. The learning rate is 0: it costs the same and changes nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)

    def run() -> None:
        torch.manual_seed(0)  # which anchors and RoIs are drawn
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


@torch.no_grad()
def _positives(als, images, targets) -> float:
    """Share of the sampled RoIs that are objects: only these enter the localization branch."""
    torch.manual_seed(0)
    encoding = als.encode(images)
    proposals, _ = als.rpn(encoding.images, {"0": encoding.f_loc}, targets)
    labels = torch.cat(als.roi_heads.select_training_samples(list(proposals), targets)[2])
    return round(float((labels > 0).float().mean()), 3)
