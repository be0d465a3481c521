"""Detection: ALS beside Faster R-CNN, and beside itself with both branches on every proposal."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from als.model import Detector
from als.model.frozen_norm import apply_in_convolutions
from benchmarks.goals import name_of
from benchmarks.pairs import Measured, counted, in_turns
from benchmarks.subjects import Subject
from benchmarks.twin import norm_as_layers


@torch.no_grad()
def measure(subject: Subject) -> Measured:
    """Image tensors to boxes, one image at a time; seconds are of all photographs together."""
    images, heads = subject.tensors, subject.als.roi_heads

    def detect(model) -> list[dict[str, Tensor]]:
        return [model([image])[0] for image in images]

    def naive() -> list[dict[str, Tensor]]:
        heads.run_both_on_all = True
        try:
            return detect(subject.als)
        finally:
            heads.run_both_on_all = False

    def joined() -> list[dict[str, Tensor]]:
        apply_in_convolutions(subject.twin)
        try:
            return detect(subject.twin)
        finally:
            norm_as_layers(subject.twin)

    sides = {
        "als": lambda: detect(subject.als),
        "naive": naive,
        "frcnn": lambda: detect(subject.twin),
    }
    if not subject.als.config.fold_batch_norm:  # otherwise all sides have BN in convolutions
        sides["joined frcnn"] = joined
    once, logits = {}, {}

    def count(side: str) -> None:
        with class_logits(subject.base if "frcnn" in side else subject.als) as logits[side]:
            once[side] = counted(sides[side])

    counting = {side: partial(count, side) for side in sides}
    if subject.slow:  # what counting costs does not show in a run of seconds
        turns = in_turns(counting, subject.rounds, warm=True)
    else:
        for run in counting.values():
            run()
        turns = in_turns(sides, subject.rounds, warm=True)
    facts = {
        "images": [list(image.shape) for image in images],
        **{
            side: _facts(logits[side], once[side][0], heads.score_thresh)
            for side in ("als", "frcnn")
        },
        "difference_to_naive": _difference(once["als"][0], once["naive"][0]),
        "gflop": {side: operations for side, (_, operations) in once.items()},
    }
    ratios = {
        name_of(f"detection_vs_{side.replace(' ', '_')}", subject.name): turns.ratio("als", side)
        for side in sides
        if side != "als"
    }
    return Measured(
        ratios,
        {f"detection {subject.name} {side}": turns.seconds(side) for side in sides},
        {f"detection {subject.name}": facts},
    )


@contextmanager
def class_logits(detector: Detector) -> Iterator[list[Tensor]]:
    """A list that gets the class logits [R, C + 1] of every image detected meanwhile."""
    kept: list[Tensor] = []
    layer = detector.roi_heads.cls_score  # the twin's too, if this is its detector
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()


def _facts(
    logits: list[Tensor], found: list[dict[str, Tensor]], threshold: float
) -> dict[str, list[float]]:
    """For each image: proposals, the share of them over the threshold, and detections."""
    best = [rows.softmax(-1)[:, 1:].amax(1) for rows in logits]
    return {
        "proposals": [len(scores) for scores in best],
        "share_over_threshold": [round(float((s > threshold).float().mean()), 3) for s in best],
        "detections": [len(one["scores"]) for one in found],
    }


def _difference(some: list[dict[str, Tensor]], others: list[dict[str, Tensor]]) -> float | None:
    """Largest difference of boxes (pixels) and scores; None where other objects were found."""
    largest = 0.0
    for one, other in zip(some, others, strict=True):
        if one["labels"].tolist() != other["labels"].tolist():
            return None
        for key in ("boxes", "scores"):
            if one[key].numel():
                largest = max(largest, float((one[key] - other[key]).abs().max()))
    return largest
