"""What is taken for what: each object and the detection that speaks for it. Plain arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import box_iou

from als.evaluation.confidence import SCORE
from als.evaluation.detections import Detections, GroundTruth

IOU = 0.5
CROWDS = ((1, "1 object"), (3, "2 or 3 objects"), (np.inf, "4 objects or more"))


def confusion(
    detections: Sequence[Detections], ground_truths: Sequence[GroundTruth], classes: Sequence[str]
) -> dict[str, dict]:
    """Counts over all images, of detections that score 0.5 or more.

    An object is taken for the class of the highest-scoring detection that overlaps it by IoU 0.5,
    whatever the class; "missed" if there is none. A detection that no object, difficult ones too,
    overlaps so is a false alarm.

    Args:
        detections[i], ground_truths[i]: of image i; label k is classes[k - 1].

    Returns:
        taken_for: class -> {class or "missed": objects}, difficult ones left out;
        false_alarms: class -> detections;
        found: {"1 object", "2 or 3 objects", "4 objects or more" in the image -> {"objects",
        "found"}}, found being taken for its own class.
    """
    names = [*classes, "missed"]
    taken = np.zeros((len(classes), len(names)), int)
    alarms = np.zeros(len(classes), int)
    found = {name: {"objects": 0, "found": 0} for _, name in CROWDS}
    for some, truth in zip(detections, ground_truths, strict=True):
        sure = some.scores >= SCORE
        labels, scores = some.labels[sure], some.scores[sure]
        boxes = torch.from_numpy(truth.boxes), torch.from_numpy(some.boxes[sure])
        touches = box_iou(*boxes).numpy() >= IOU  # [objects, detections]
        np.add.at(alarms, labels[~touches.any(0)] - 1, 1)
        easy = ~truth.difficult
        crowd = found[next(name for limit, name in CROWDS if easy.sum() <= limit)]
        for label, near in zip(truth.labels[easy], touches[easy], strict=True):
            guess = len(classes)
            if near.any():
                guess = labels[near][scores[near].argmax()] - 1
            taken[label - 1, guess] += 1
            crowd["objects"] += 1
            crowd["found"] += int(guess == label - 1)
    return {
        "taken_for": {
            name: {other: int(n) for other, n in zip(names, row, strict=True) if n}
            for name, row in zip(classes, taken, strict=True)
        },
        "false_alarms": dict(zip(classes, alarms.tolist(), strict=True)),
        "found": found,
    }
