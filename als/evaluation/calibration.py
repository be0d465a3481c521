"""Calibration of a detector: fitted on data that it did not train on, kept in its weights.

softmax(logits / T), with a shift of the background, is the softmax of a class layer whose weight
and bias are divided by T and whose first bias is shifted. So a calibrated checkpoint needs nothing
more of whoever loads it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from als.data.record import Record
from als.errors import InputError
from als.evaluation.average_precision import match
from als.evaluation.confidence import counted, fit_calibration, reliability
from als.evaluation.detections import Detections
from als.evaluation.evaluate import each_found, truths_of
from als.model import Detector


@torch.no_grad()
def calibrate(
    detector: Detector, records: Sequence[Record], workers: int = 1, progress: bool = True
) -> dict:
    """Fit temperature and shift (`fit_calibration`) on detections, and change the class layer.

    The score threshold moves along, so that about as much is detected as before.

    Returns:
        temperature, shift; before, after: `reliability` (als.evaluation.confidence) of these
        detections.

    Raises:
        InputError: a detector of another family, or no detection is right, or all are.
    """
    if not isinstance(detector, Detector) or detector.config.family != "als":
        raise InputError("calibration: only detectors of family als; leave it out for others.")
    by_id: dict[str, tuple[Detections, np.ndarray]] = {}
    for record, _, _, found in each_found(detector, records, workers, progress):
        some = Detections(**{k: v.cpu() for k, v in found.as_dict().items()})
        by_id[record.image_id] = some, found.logits[found.rois].cpu().numpy()
    detections = [by_id[record.image_id][0] for record in records]
    counts = counted(match(detections, truths_of(records), detector.config.classes, (0.5,)))
    logits = np.concatenate([by_id[record.image_id][1] for record in records])[counts.given]
    labels = np.concatenate([some.labels for some in detections])[counts.given]
    fitted = fit_calibration(logits, labels, counts.right)
    layer = detector.roi_heads.cls_score
    layer.weight.div_(fitted.temperature)
    layer.bias.div_(fitted.temperature)
    layer.bias[0] += fitted.shift
    threshold = detector.config.score_threshold
    with np.errstate(divide="ignore"):  # of a threshold of 0, which stays 0
        moved = float(fitted(np.log([[1 - threshold, threshold]]))[0, 1])
    detector.config = replace(detector.config, score_threshold=moved)
    scores = fitted(logits)[np.arange(len(labels)), labels]
    return {
        **fitted._asdict(),
        "before": reliability(counts.scores, counts.right),
        "after": reliability(scores, counts.right),
    }
