"""The detector as a black box: images in, detections out. D-RISE and faithfulness need no more."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from als.images import photo_of
from als.model import Detector

BlackBox = Callable[[Tensor], list[dict[str, Tensor]]]
"""Images [B, 3, H, W] in 0..1 -> for each boxes [K, 4] xyxy pixels, labels [K], scores [K]."""

# Images in one pass. On a CPU 8 take 1.4 times as long for each image: their activations are so
# large that the C library takes and clears fresh memory for every layer.
BATCH_SIZE = 4


def black_box(
    detector: Detector, proposals: int | None = None, labels: Sequence[int] | None = None
) -> BlackBox:
    """The detector, in evaluation mode and without gradients, with its own score threshold.

    Args:
        proposals, labels: limits as of `Detector.detect`: most of the time of hundreds of passes
            goes into RoIs that score nothing.
    """
    device = next(detector.parameters()).device

    @torch.inference_mode(False)
    @torch.no_grad()
    def detect(images: Tensor) -> list[dict[str, Tensor]]:
        photos = [photo_of(image, detector.config.max_size) for image in images.to(device)]
        found = detector.detect(detector.encode(photos), proposals=proposals, labels=labels)
        return [one.as_dict() for one in found]

    return detect


def detection_score(found: dict[str, Tensor], box, label: int) -> float:
    """How much of a detection is left: max over detections of its class of IoU x class score.

    Args:
        found: boxes [K, 4] xyxy, labels [K], scores [K] of one image.
        box: [4] xyxy of the detection that is looked for. label: its class.

    Returns:
        0 to 1; 0 where no detection of the class touches the box.
    """
    same = found["labels"] == label
    if not same.any():
        return 0.0
    boxes = found["boxes"][same].float()
    wanted = torch.as_tensor(np.asarray(box, dtype=np.float32), device=boxes.device)[None]
    return float((box_iou(boxes, wanted)[:, 0] * found["scores"][same]).max())
