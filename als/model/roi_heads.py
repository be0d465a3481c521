"""The layer separation part (paper, section 2.2): two conv5 branches on two features.

Matching, sampling and box coding are torchvision's `RoIHeads`; here stands what differs: which
feature each task sees, and that the localization branch runs only where it counts.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import roi_heads as torchvision_heads
from torchvision.ops import RoIAlign, RoIPool, clip_boxes_to_image

from als.config import ModelConfig
from als.model.attention import compete, part_loss, part_targets, relative_entropy
from als.model.backbone import STRIDE, Backbone
from als.model.boxes import kept_by_nms, sides
from als.model.roi_features import begins_on_channels, conv5_of_rois, outnumber_cells

SMOOTH_L1_BETA = 1 / 9  # torchvision's and Faster R-CNN's
SMALLEST_SIDE = 1e-2  # pixels; a thinner box is none, as in torchvision


class Chosen(NamedTuple):
    """Detections of one image: boxes [K, 4] in pixels of the network's image, labels [K], scores
    [K], descending, and the RoI [K] that each came from."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rois: Tensor


class Features(NamedTuple):
    """What heads train on: features [B, channels, h, w], the same tensor without attention.

    rivals: A_cls [B, 1, h, w] where its cells compete, else None. distilled: F and A_cls
    where it has a target of its own, else None.
    """

    f_cls: Tensor
    f_loc: Tensor
    rivals: Tensor | None = None
    distilled: tuple[Tensor, Tensor] | None = None


class RoIHeads(torchvision_heads.RoIHeads):
    """Classified RoIs -> detections; the heads of a family say how RoIs are classified.

    Shapes: logits [R, C + 1], deltas [R, 4 (C + 1)] with class c at columns 4c to 4c + 4;
    proposals a list of [N, 4] xyxy pixels of the network's image.
    """

    pool: nn.Module  # (feature, RoIs) -> [R, channels, k, k]

    def __init__(self, config: ModelConfig):
        super().__init__(
            box_roi_pool=None,
            box_head=None,
            box_predictor=None,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.rois_per_image,
            positive_fraction=config.roi_positive_fraction,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
        )

    def classify(
        self, f_cls: Tensor, rois: list[Tensor], rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Feature [B, channels, h, w] -> class logits [R, C + 1], and what they were made of.

        rivals: A_cls [B, 1, h, w] where its cells compete inside each RoI.
        """
        raise NotImplementedError

    def localize(self, f_loc: Tensor, rois: list[Tensor]) -> Tensor:
        """Feature [B, channels, h, w] -> box deltas [R, 4 (C + 1)]."""
        raise NotImplementedError

    def deltas_of(
        self, chosen: Tensor, f_cls: Tensor, f_loc: Tensor, rois: list[Tensor], vectors: Tensor
    ) -> Tensor:
        """Box deltas of the RoIs that `chosen` [R] (bool) names, given what `classify` gave."""
        raise NotImplementedError

    def losses(
        self, features: Features, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """loss_cls and loss_loc, unweighted, of RoIs sampled among the proposals."""
        raise NotImplementedError

    def detections(
        self,
        logits: Tensor,
        vectors: Tensor,
        f_cls: Tensor,
        f_loc: Tensor,
        proposals: list[Tensor],
        image_sizes: list[tuple[int, int]],
        threshold: float,
        labels: Sequence[int] | None = None,
    ) -> list[Chosen]:
        """What `classify` gave -> detections of each image, clipped to it.

        Args:
            image_sizes: (height, width) of each image.
            threshold: a detection's score is over it.
            labels: the classes that are asked about; None for all, 1 to C.
        """
        asked = torch.arange(1, logits.shape[1]) if labels is None else torch.tensor(labels)
        asked = asked.to(logits.device)
        scores = logits.softmax(-1)[:, asked]
        # A proposal without a class over the threshold gives no detection, wherever its box is.
        counts = scores.amax(1) > threshold
        deltas = self.deltas_of(counts, f_cls, f_loc, proposals, vectors)
        deltas = deltas.unflatten(1, (-1, 4))[:, asked]
        rows = [part.nonzero()[:, 0] for part in parts(counts, proposals)]
        found = []
        for roi, row, score, delta, size in zip(
            *(proposals, rows, parts(scores, proposals), parts(deltas, rows), image_sizes),
            strict=True,
        ):
            boxes = self.box_coder.decode_single(delta.flatten(1), roi[row])
            boxes = clip_boxes_to_image(boxes.unflatten(1, (-1, 4)), size).reshape(-1, 4)
            classes = asked.expand(row.shape[0], -1).reshape(-1)
            of_each = row[:, None].expand(-1, asked.shape[0]).reshape(-1)
            candidates = boxes, classes, score[row].reshape(-1), of_each
            found.append(self.suppress(*candidates, size, threshold))
        return found

    def suppress(
        self,
        boxes: Tensor,
        labels: Tensor,
        scores: Tensor,
        rows: Tensor,
        size: tuple[int, int],
        threshold: float,
    ) -> Chosen:
        """Boxes [K, 4], labels, scores and RoIs [K] -> what NMS keeps of those over `threshold`."""
        wide = (sides(boxes) >= SMALLEST_SIDE).all(1)
        chosen = ((scores > threshold) & wide).nonzero()[:, 0]
        boxes, labels, scores, rows = boxes[chosen], labels[chosen], scores[chosen], rows[chosen]
        # Classes are laid side by side, so that one NMS serves all and none meets another.
        apart = boxes + labels[:, None] * (max(size) + 1.0)
        keep = kept_by_nms(apart, scores, self.nms_thresh)[: self.detections_per_img]
        return Chosen(boxes[keep], labels[keep], scores[keep], rows[keep])


class SeparatedRoIHeads(RoIHeads):
    """RoIs on two features -> class logits and box deltas -> losses or detections.

    `conv5_cls` sees RoI features of F_cls, `conv5_loc` those of F_loc. Without separation
    `conv5_loc` is None and `conv5_cls` serves both tasks; without attention F_cls is F_loc.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(config)
        self.pool = roi_pool(config, config.pool_size)
        self.conv5_cls = backbone.semantic
        self.conv5_loc = deepcopy(backbone.semantic) if config.separation else None
        num_outputs = len(config.classes) + 1
        self.cls_score = nn.Linear(backbone.semantic_channels, num_outputs)
        self.bbox_pred = nn.Linear(backbone.semantic_channels, num_outputs * 4)
        self.attention_entropy = config.attention_entropy

    def classify(
        self, f_cls: Tensor, rois: list[Tensor], rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if rivals is None:
            vectors = self._vectors(self.conv5_cls, f_cls, rois)
        else:
            vectors = self.conv5_cls(compete(self.pool(f_cls, rois), self.pool(rivals, rois)))
        return self.cls_score(vectors), vectors

    def localize(self, f_loc: Tensor, rois: list[Tensor]) -> Tensor:
        conv5 = self.conv5_cls if self.conv5_loc is None else self.conv5_loc
        return self.bbox_pred(self._vectors(conv5, f_loc, rois))

    def _vectors(self, conv5: nn.Sequential, feature: Tensor, rois: list[Tensor]) -> Tensor:
        """RoIs of a feature through conv5 [R, D].

        The shorter way goes around the modules of conv5: training keeps them whole, to be
        compiled, and so does whoever asks for gradients, since explainers hook them.
        """
        if not self.training and not torch.is_grad_enabled():
            if begins_on_channels(self.pool, conv5) and outnumber_cells(self.pool, feature, rois):
                return conv5_of_rois(self.pool, conv5, feature, rois)
        return conv5(self.pool(feature, rois))

    def deltas_of(
        self, chosen: Tensor, f_cls: Tensor, f_loc: Tensor, rois: list[Tensor], vectors: Tensor
    ) -> Tensor:
        """Box deltas of the chosen RoIs alone; Faster R-CNN reuses the class branch's vectors."""
        if self.conv5_loc is None and f_cls is f_loc:
            return self.bbox_pred(vectors[chosen.nonzero()[:, 0]])
        kept = zip(rois, parts(chosen, rois), strict=True)
        return self.localize(f_loc, [roi[part.nonzero()[:, 0]] for roi, part in kept])

    def losses(
        self, features: Features, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """L_cls and L_loc of equation 1, unweighted, as loss_cls and loss_loc.

        Where cells compete, loss_focus is by how much the relative entropy of a positive RoI's
        weights is over `attention_entropy`, in the mean. Where A_cls is distilled, loss_part asks
        it for the bins of a positive RoI that tell its class (`part_targets`).

        Args:
            proposals: RoIs of each image [N, 4].
            targets: boxes [M, 4] of the network's image and labels [M].
        """
        f_cls, f_loc, rivals, distilled = features
        rois, _, labels, box_targets = self.select_training_samples(list(proposals), targets)
        labels, box_targets = torch.cat(labels), torch.cat(box_targets)
        logits, vectors = self.classify(f_cls, rois, rivals)
        # Only positive RoIs carry L_loc, so only they enter the localization branch.
        positive = labels > 0
        deltas = self.deltas_of(positive, f_cls, f_loc, rois, vectors).unflatten(1, (-1, 4))
        deltas_of_class = deltas[torch.arange(len(deltas)), labels[positive]]
        loss_loc = F.smooth_l1_loss(
            deltas_of_class, box_targets[positive], beta=SMOOTH_L1_BETA, reduction="sum"
        )
        losses = {
            "loss_cls": F.cross_entropy(logits, labels),
            "loss_loc": loss_loc / max(1, len(labels)),
        }
        if rivals is not None:
            over = relative_entropy(self.pool(rivals, rois)[positive]) - self.attention_entropy
            losses["loss_focus"] = over.relu().sum() / positive.sum().clamp(min=1)
        if distilled is not None:
            f, a_cls = distilled
            pairs = zip(rois, parts(positive, rois), strict=True)
            of_objects = [roi[part.nonzero()[:, 0]] for roi, part in pairs]
            wanted = part_targets(
                lambda pooled: self.cls_score(self.conv5_cls(pooled)),
                self.pool(f, of_objects),
                labels[positive],
            )
            losses["loss_part"] = part_loss(self.pool(a_cls, of_objects), wanted)
        return losses


def roi_pool(config: ModelConfig, bins: int, samples: int = 2) -> nn.Module:
    """RoIAlign (`samples` a bin and direction) or RoIPool, as configured, of `bins` x `bins`."""
    if config.pool == "align":
        return RoIAlign(bins, 1 / STRIDE, samples, aligned=True)
    return RoIPool(bins, 1 / STRIDE)


def parts(values: Tensor, rois: list[Tensor]) -> list[Tensor]:
    """Values [R, ...] of all RoIs -> those of each image; `rois` has as many of each."""
    if len(rois) == 1:  # an exported detector has no number of RoIs to split by
        return [values]
    return list(values.split([len(one) for one in rois]))
