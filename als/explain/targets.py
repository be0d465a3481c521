"""What is explained: one fixed proposal and one scalar of it.

Finished detections went through NMS, which has no gradient. So one raw output of the proposal that
a detection came from is explained (the way that the users of pytorch-grad-cam settled on for
two-stage detectors, its issues 30 and 81).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from als.errors import InputError
from als.model import Detector, Encoding
from als.model.boxes import rescaled

CLASS_KINDS = ("logit", "softmax", "margin")
BOX_KINDS = ("dx", "dy", "dw", "dh")
KINDS = CLASS_KINDS + BOX_KINDS


@dataclass(frozen=True, eq=False)
class Target:
    """One scalar of one RoI.

    roi: [1, 4] xyxy, pixels of the resized image. label: 1 to C.
    kind: of the class branch "logit" (the score before the softmax, as Selvaraju et al. 2017 take
        it: a sure detection's softmax is flat), "softmax" or "margin" (class logit minus the
        largest other logit, background included); of the box branch "dx", "dy", "dw", "dh", the
        deltas of that class (Faster R-CNN's t_x, t_y, t_w, t_h).

    Raises:
        InputError: unknown kind, or a RoI of another shape.
    """

    roi: Tensor
    label: int
    kind: str = "logit"

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
        if self.kind == "softmax":
            return outputs.softmax(-1)[self.label]
        if self.kind == "logit":
            return outputs[self.label]
        others = torch.cat((outputs[: self.label], outputs[self.label + 1 :]))
        return outputs[self.label] - others.max()


def best_proposal(logits: Tensor, label: int) -> int:
    """Index in logits [N, C + 1] of the highest softmax score for a class, however low it is.

    Raises InputError where there is no proposal.
    """
    if len(logits) == 0:
        raise InputError("the model proposes no region in this image; nothing can be explained.")
    return int(logits.softmax(-1)[:, label].argmax())


def boxes_of_class(detector: Detector, encoding: Encoding, rois: Tensor, label: int) -> Tensor:
    """Boxes [N, 4] of a class (1 to C) for RoIs [N, 4] of one image, in pixels of the photo."""
    size = encoding.images.image_sizes[0]
    deltas = detector.roi_heads.localize(encoding.f_loc, [rois])
    own = deltas[:, 4 * label : 4 * label + 4]
    boxes = detector.roi_heads.box_coder.decode_single(own, rois)
    return rescaled(clip_boxes_to_image(boxes, size), size, encoding.original_sizes[0])
