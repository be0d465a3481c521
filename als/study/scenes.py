"""From a photograph to the scene whose maps are compared."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from als.explain.targets import best_proposal, decode_boxes, find_proposal
from als.predictor import Analysis, Predictor
from als.study.cases import MATCH_IOU
from als.study.maps import DRISE_MASKS, Scene


def scene_of(
    predictor: Predictor,
    analysis: Analysis,
    rows: list[int],
    seed: int = 0,
    drise_masks: int = DRISE_MASKS,
) -> Scene:
    """The scene of some detections (rows of the analysis's prediction)."""
    found, detector = analysis.prediction, predictor.detector
    proposals = [
        find_proposal(
            detector,
            analysis.encoding,
            analysis.proposals,
            analysis.logits,
            found.boxes[row],
            int(found.labels[row]),
            float(found.scores[row]),
        )
        for row in rows
    ]
    given = found.boxes[rows], found.labels[rows], analysis.proposals[proposals]
    return _scene(predictor, analysis, *given, seed, drise_masks)


def scene_of_class(
    predictor: Predictor,
    analysis: Analysis,
    label: int,
    seed: int = 0,
    drise_masks: int = DRISE_MASKS,
) -> Scene:
    """The scene of a class (1 to C), detected or not: at the proposal that scores highest for it.

    Raises:
        InputError: the model proposes no region in this image.
    """
    best = best_proposal(analysis.logits, label)
    roi = analysis.proposals[best : best + 1]
    with torch.no_grad():
        boxes = decode_boxes(predictor.detector, analysis.encoding, roi, label).cpu().numpy()
    return _scene(predictor, analysis, boxes, np.array([label]), roi, seed, drise_masks)


def _scene(
    predictor: Predictor,
    analysis: Analysis,
    boxes: np.ndarray,
    labels: np.ndarray,
    rois: Tensor,
    seed: int,
    drise_masks: int,
) -> Scene:
    pixels = torch.from_numpy(np.array(analysis.image)).to(predictor.device)
    image = pixels.permute(2, 0, 1).float() / 255
    detector, encoding = predictor.detector, analysis.encoding
    return Scene(detector, encoding, image, boxes, labels, rois, seed, drise_masks)


def scene_again(
    predictor: Predictor, image: Image.Image, boxes: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[Scene, list[int]]:
    """The scene of a changed photograph, for those detections that are still made in it.

    Args:
        boxes: [K, 4] where the detections should be now. labels: [K].

    Returns:
        The scene, and which of the K each of its detections is.
    """
    analysis = predictor.analyse(image)
    found = analysis.prediction
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(found.boxes)).numpy()
    iou[labels[:, None] != found.labels[None]] = 0
    kept = [k for k in range(len(boxes)) if iou.shape[1] and iou[k].max() >= MATCH_IOU]
    rows = [int(iou[k].argmax()) for k in kept]
    return scene_of(predictor, analysis, rows, seed), kept
