"""What became of each detection and object of one photo, and at which step an object was lost."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

from als.evaluation.average_precision import best_overlaps, match
from als.evaluation.detections import Detections, GroundTruth
from als.explain import boxes_of_class
from als.inference import Analysis, Predictor
from als.model.boxes import rescaled

IOU = 0.5
STEPS = ("RPN", "class", "box", "NMS", "limit", "match")
SAYS = {
    "RPN": "no proposal covers it by IoU 0.5",
    "class": "proposed, but its class scores under the threshold there",
    "box": "proposed and scored, but the regressed box is off, under IoU 0.5",
    "NMS": "found, but a surer box of its class beside it suppressed it",
    "limit": "found, but the photo has as many surer detections as the model gives",
    "match": "found, but the detection counts for another object that it covers more",
}


class Outcomes(NamedTuple):
    """Of one photo: true and false detections [K] and missed objects [M], bool.

    A detection that is neither lies on a difficult object. Difficult objects are never missed.
    """

    true: np.ndarray
    false: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True)
class Lost:
    """Where one object was lost.

    step: one of `STEPS`, the first that no proposal passed. proposal: the row of the one that came
    furthest or, of several, overlaps most; None where nothing is proposed. roi: [4], xyxy, that
    proposal in pixels of the photo. iou: of it with the object. scores: [C + 1], background first.
    box: [4], what regression makes of it for the object's class. box_iou: of that with the object.
    """

    step: str
    proposal: int | None
    roi: np.ndarray
    iou: float
    scores: np.ndarray
    box: np.ndarray
    box_iou: float


def outcomes(found: Detections, truth: GroundTruth, n_classes: int) -> Outcomes:
    """True, false and missed by VOC's rules (`match`) at IoU 0.5.

    Detections that are under a threshold are to be left out before. Raises InputError as `match`.
    """
    true, false = np.zeros((2, len(found.boxes)), bool)
    matches = match([found], [truth], [str(n) for n in range(n_classes)], (IOU,))
    true[matches.given], false[matches.given] = matches.true_positive[0], matches.false_positive[0]
    group, gt_group = found.labels - 1, truth.labels - 1
    _, objects = best_overlaps(found.boxes, truth.boxes, group, gt_group, n_classes)
    missed = ~truth.difficult
    missed[objects[true]] = False
    return Outcomes(true, false, missed)


def lost_at(
    target: np.ndarray,
    label: int,
    rois: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    free: np.ndarray,
    kept: np.ndarray,
    threshold: float,
) -> Lost:
    """At which step an object was lost that no detection counts for.

    Args:
        target: [4] xyxy, as all boxes here in pixels of the photo. label: its class, 1 to C.
        rois: [N, 4] proposals. scores: [N, C + 1] of them. boxes: [N, 4] regressed for the class.
        free: bool [N], whether NMS left the proposal's box of the class. kept: bool [N], whether it
            is a detection.
        threshold: from which a score counts.
    """
    if not len(rois):
        nothing = np.zeros(4, np.float32)
        return Lost("RPN", None, nothing, 0.0, np.zeros(scores.shape[1]), nothing, 0.0)
    given = torch.from_numpy(np.asarray(target, np.float32)[None])
    covers, fits = (
        box_iou(given, torch.from_numpy(np.asarray(some, np.float32)))[0].numpy()
        for some in (rois, boxes)
    )
    left = np.ones(len(rois), bool)
    passes = (covers >= IOU, scores[:, label] >= threshold, fits >= IOU, free, kept)
    passed = 0
    while passed < len(passes) and (left & passes[passed]).any():
        left &= passes[passed]
        passed += 1
    row = int(np.where(left, covers, -1).argmax())
    of_row = float(covers[row]), scores[row], boxes[row], float(fits[row])
    return Lost(STEPS[passed], row, rois[row], *of_row)


@torch.inference_mode(False)
@torch.no_grad()
def why_lost(
    predictor: Predictor, analysis: Analysis, target: np.ndarray, label: int, threshold: float
) -> Lost:
    """`lost_at` for what a predictor's network made of a photo; the trunk does not run again.

    Raises InputError if the model is of a family without the branches that are explained.
    """
    detector, found = predictor.require_branches().detector, analysis.found
    network, photo = analysis.encoding.images.image_sizes[0], analysis.prediction.size
    rois, scores = rescaled(found.proposals, network, photo), found.logits.softmax(-1)
    of_class = found.labels == label
    kept = torch.isin(torch.arange(len(rois), device=rois.device), found.rois[of_class])
    boxes, free = torch.zeros_like(rois), kept
    if len(rois):
        covers = box_iou(rois.new_tensor(np.asarray(target)[None]), rois)[0]
        near = covers >= min(IOU, float(covers.max()))  # the box branch takes long
        with predictor.lock:
            own = boxes_of_class(detector, analysis.encoding, found.proposals[near], label)
        boxes[near] = own.to(boxes)
        over = box_iou(boxes, found.boxes[of_class].to(boxes)) > detector.config.nms_threshold
        surer = found.scores[of_class] > scores[:, label, None]
        free = kept | ~(over & surer).any(1)
    arrays = (one.float().cpu().numpy() for one in (rois, scores, boxes))
    return lost_at(target, label, *arrays, free.cpu().numpy(), kept.cpu().numpy(), threshold)
