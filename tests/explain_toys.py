"""A tiny detector with random weights whose maps and gradients are not all near zero."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tiny import tiny_config
from torch import nn

from als.checkpoint import build_detector
from als.explain import Target
from als.model import Detector, Encoding

LARGER = dict(
    classes=("cat", "dog"),
    frozen_blocks=0,
    pool_size=7,
    min_size=96,
    max_size=160,
    anchor_sizes=(32, 64),
    rpn_pre_nms_test=6000,
    score_threshold=0.0,
)


def tiny_detector(**options) -> Detector:
    torch.manual_seed(0)
    detector = build_detector(tiny_config(**(LARGER | options))).eval()
    for module in detector.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return detector


def hooks(detector: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in detector.modules() for kind in kinds)


@contextmanager
def left_as_it_was() -> Iterator[Detector]:
    """A detector of which no hook, mode, flag or gradient may be another afterwards."""
    detector = tiny_detector().train()
    parameters = list(detector.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    flags, before = [p.requires_grad for p in parameters], hooks(detector)
    yield detector
    assert hooks(detector) == before and all(m.training for m in detector.modules())
    assert [p.requires_grad for p in parameters] == flags
    assert all(p.grad is None for p in parameters[:-1]) and parameters[-1].grad.sum() > 0


@torch.no_grad()
def encoded(detector: Detector, **overrides) -> tuple[Encoding, torch.Tensor, torch.Tensor]:
    """(encoding, proposals, logits) of an image of 70 x 90 pixels that is resized and padded."""
    image = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(1))
    encoding = detector.encode([image], **overrides)
    proposals = detector.propose(encoding)
    logits, _ = detector.roi_heads.classify(encoding.f_cls, proposals)
    return encoding, proposals[0], logits


def some_targets(kind: str, proposals: torch.Tensor | None = None) -> list[Target]:
    """Three different RoIs, or the first three proposals."""
    if proposals is None:
        proposals = torch.tensor([[5.0, 5, 60, 70], [40, 20, 110, 90], [10, 30, 120, 60]])
    return [Target(proposals[i : i + 1], label=1 + i % 2, kind=kind) for i in range(3)]
