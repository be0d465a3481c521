"""Detection: ALS beside Faster R-CNN, and beside itself with both branches on every proposal."""

import torch
from torch import Tensor

from als.model import Detector
from benchmarks.goals import name_of
from benchmarks.pairs import Measured, counted, in_turns
from benchmarks.subjects import Subject


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

    sides = {
        "als": lambda: detect(subject.als),
        "naive": naive,
        "frcnn": lambda: detect(subject.twin),
    }
    once = {side: counted(run) for side, run in sides.items()}
    turns = in_turns(sides, subject.rounds, warm=True)
    facts = {
        "images": [list(image.shape) for image in images],
        "als": _facts(subject.als, images),
        "frcnn": _facts(subject.base, images),
        "difference_to_naive": _difference(once["als"][0], once["naive"][0]),
        "gflop": {side: operations for side, (_, operations) in once.items()},
    }
    return Measured(
        {
            name_of("detection_vs_frcnn", subject.name): turns.ratio("als", "frcnn"),
            name_of("detection_vs_naive", subject.name): turns.ratio("als", "naive"),
        },
        {f"detection {subject.name} {side}": turns.seconds(side) for side in sides},
        {f"detection {subject.name}": facts},
    )


def _facts(detector: Detector, images: list[Tensor]) -> dict[str, list[float]]:
    """For each image: proposals, the share of them over the threshold, and detections."""
    facts: dict[str, list[float]] = {"proposals": [], "share_over_threshold": [], "detections": []}
    for image in images:
        encoding = detector.encode([image])
        proposals = detector.propose(encoding)
        logits, vectors = detector.roi_heads.classify(encoding.f_cls, proposals)
        passed = logits.softmax(-1)[:, 1:].amax(1) > detector.roi_heads.score_thresh
        found = detector.locate(encoding, proposals, logits, vectors)[0]
        facts["proposals"].append(len(proposals[0]))
        facts["share_over_threshold"].append(round(float(passed.float().mean()), 3))
        facts["detections"].append(len(found["scores"]))
    return facts


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
