"""What is explained: one fixed proposal and one scalar of it.

Finished detections went through NMS, which has no gradient. So the proposal that a detection came
from is found again and one raw output of its branch is explained (the way that the users of
pytorch-grad-cam settled on for two-stage detectors, its issues 30 and 81).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image

from als.errors import InputError
from als.model import Detector, Encoding

CLASS_KINDS = ("class", "logit", "margin")
BOX_KINDS = ("dx", "dy", "dw", "dh")
KINDS = CLASS_KINDS + BOX_KINDS
SCORE_TOLERANCE = 1e-4  # scores this close may be the same detection


@dataclass(frozen=True)
class Target:
    """One scalar of one RoI.

    roi: [1, 4] xyxy, pixels of the resized image. label: 1 to C.
    kind: of the class branch "class" (softmax score), "logit" (class logit) or "margin" (class
        logit minus the largest other logit, background included); of the box branch "dx", "dy",
        "dw", "dh", the deltas of that class (Faster R-CNN's t_x, t_y, t_w, t_h).

    Raises:
        InputError: unknown kind, or a RoI of another shape.
    """

    roi: Tensor
    label: int
    kind: str = "class"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"target '{self.kind}' is unknown; choose one of {', '.join(KINDS)}.")
        if tuple(self.roi.shape) != (1, 4):
            raise InputError(f"target: RoI has shape {tuple(self.roi.shape)}, it must be (1, 4).")

    @property
    def of_box(self) -> bool:
        """Whether the box branch gives the scalar, and not the class branch."""
        return self.kind in BOX_KINDS

    def value(self, outputs: Tensor) -> Tensor:
        """The scalar in one row of its branch: logits [C + 1], or box deltas [4 (C + 1)]."""
        if self.of_box:
            return outputs[4 * self.label + BOX_KINDS.index(self.kind)]
        if self.kind == "class":
            return outputs.softmax(-1)[self.label]
        if self.kind == "logit":
            return outputs[self.label]
        others = torch.cat((outputs[: self.label], outputs[self.label + 1 :]))
        return outputs[self.label] - others.max()


@torch.inference_mode(False)
@torch.no_grad()
def find_proposal(
    detector: Detector,
    encoding: Encoding,
    proposals: Tensor,
    logits: Tensor,
    box,
    label: int,
    score: float,
) -> int:
    """Index of the RoI behind a finished detection: the closest score, then the closest box.

    Args:
        encoding: of the one image. proposals: [N, 4] pixels of the resized image. logits:
            [N, C + 1] of them.
        box: [4] xyxy of the detection in pixels of the original image. label: 1 to C.
        score: its softmax score.

    Raises:
        InputError: no proposal has this score for this class: it is not a detection of this image.
    """
    gaps = (logits.softmax(-1)[:, label] - float(score)).abs()
    if len(gaps) == 0 or gaps.min() > SCORE_TOLERANCE:
        raise InputError(
            f"no proposal scores {float(score):.4f} for class {label}; give a detection of this "
            "very analysis."
        )
    candidates = (gaps <= SCORE_TOLERANCE).nonzero().flatten()
    if len(candidates) == 1:
        return int(candidates[0])
    boxes = decode_boxes(detector, encoding, proposals[candidates], label)
    wanted = torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)
    return int(candidates[(boxes - wanted).abs().sum(1).argmin()])


def best_proposal(logits: Tensor, label: int) -> int:
    """Index of the RoI with the highest softmax score for a class, however low it is.

    Args:
        logits: [N, C + 1]. label: 1 to C.

    Raises:
        InputError: there is no proposal.
    """
    if len(logits) == 0:
        raise InputError("the model proposes no region in this image; nothing can be explained.")
    return int(logits.softmax(-1)[:, label].argmax())


def decode_boxes(detector: Detector, encoding: Encoding, rois: Tensor, label: int) -> Tensor:
    """Boxes [N, 4] of one class for RoIs [N, 4], clipped, in pixels of the original image."""
    deltas = detector.roi_heads.localize(encoding.f_loc, [rois])
    coder: BoxCoder = detector.roi_heads.box_coder
    boxes = coder.decode_single(deltas[:, 4 * label : 4 * label + 4], rois)
    size = encoding.images.image_sizes[0]
    return boxes_to_original(clip_boxes_to_image(boxes, size), encoding)


def boxes_to_original(boxes: Tensor, encoding: Encoding) -> Tensor:
    """Boxes [N, 4] in pixels of the resized image -> pixels of the original image."""
    (height, width), (new_height, new_width) = (
        encoding.images.image_sizes[0],
        (encoding.original_sizes[0]),
    )
    scale = boxes.new_tensor([new_width / width, new_height / height] * 2)
    return boxes * scale
