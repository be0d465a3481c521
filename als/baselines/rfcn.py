"""R-FCN (Dai et al. 2016): no layers behind the RoIs, but position-sensitive maps before them.

F -> RPN -> proposals; F -> dilated conv5 -> 1x1 -> score maps and box maps -> position-sensitive
pooling of each proposal -> votes, averaged -> class logits and one box for all classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import PSRoIAlign, PSRoIPool

from als.config import ModelConfig
from als.model.backbone import STRIDE, Backbone
from als.model.detector import Detector
from als.model.roi_heads import SMOOTH_L1_BETA, Features, RoIHeads


class PositionSensitiveRoIHeads(RoIHeads):
    """RoIs on position-sensitive maps -> class logits and box deltas -> losses or detections.

    Cell (i, j) of a RoI's k x k cells (`pool_size`) reads its own channel of every class. Both
    features are F here, since R-FCN has no attention.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone):
        super().__init__(config)
        k = config.pool_size
        self.score_outputs = len(config.classes) + 1
        if config.pool == "align":
            self.pool = PSRoIAlign(k, 1 / STRIDE, sampling_ratio=2)
        else:
            self.pool = PSRoIPool(k, 1 / STRIDE)
        width = backbone.semantic_channels // 2  # 1,024 of ResNet-101's 2,048, as in R-FCN
        self.conv5 = nn.Sequential(
            at_full_stride(backbone.semantic[0]),
            nn.Conv2d(backbone.semantic_channels, width, 1),
            nn.ReLU(inplace=True),
        )
        self.score_maps = nn.Conv2d(width, self.score_outputs * k * k, 1)
        self.box_maps = nn.Conv2d(width, 4 * k * k, 1)
        # R-FCN draws all three with 0.01, which suits ResNet-101. MobileNetV2's features are fewer
        # and smaller: from there the votes hardly left the classes' frequencies in eight passes.
        nn.init.kaiming_normal_(self.conv5[1].weight, nonlinearity="relu")
        self.hard_rois_per_image = config.hard_rois_per_image

    def classify(
        self, f: Tensor, rois: list[Tensor], rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """F [B, channels, h, w] -> class logits [R, C + 1] and box deltas [R, 4] of the RoIs."""
        feature = self.conv5(f)
        logits = self.pool(self.score_maps(feature), rois).mean((2, 3))
        return logits, self.pool(self.box_maps(feature), rois).mean((2, 3))

    def losses(
        self, features: Features, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """loss_cls and loss_loc, unweighted, over the hardest RoIs; see `SeparatedRoIHeads`."""
        rois, _, labels, box_targets = self.select_training_samples(list(proposals), targets)
        labels, box_targets = torch.cat(labels), torch.cat(box_targets)
        logits, deltas = self.classify(features.f_cls, rois)
        loss_cls = F.cross_entropy(logits, labels, reduction="none")
        positive = labels > 0
        loss_loc = torch.zeros_like(loss_cls)
        loss_loc[positive] = F.smooth_l1_loss(
            deltas[positive], box_targets[positive], beta=SMOOTH_L1_BETA, reduction="none"
        ).sum(1)
        chosen = self.hardest((loss_cls + loss_loc).detach(), [len(r) for r in rois])
        terms = {"loss_cls": loss_cls, "loss_loc": loss_loc}
        return {name: loss[chosen].sum() / max(1, len(chosen)) for name, loss in terms.items()}

    def hardest(self, losses: Tensor, counts: list[int]) -> Tensor:
        """Indices of the RoIs [R] that carry the loss, of each image's `counts` the hardest."""
        indices = torch.arange(len(losses), device=losses.device).split(counts)
        if not self.hard_rois_per_image:
            return torch.cat(indices)
        return torch.cat(
            [
                own[part.topk(min(self.hard_rois_per_image, len(part))).indices]
                for own, part in zip(indices, losses.split(counts), strict=True)
            ]
        )

    def deltas_of(
        self, chosen: Tensor, f_cls: Tensor, f_loc: Tensor, rois: list[Tensor], vectors: Tensor
    ) -> Tensor:
        """One box for all classes: the deltas that `classify` gave, repeated."""
        return vectors[chosen.nonzero()[:, 0]].repeat(1, self.score_outputs)


class RFCNDetector(Detector):
    """`Detector` with position-sensitive heads: trunk, RPN and losses' weights are the same."""

    heads = PositionSensitiveRoIHeads


def at_full_stride(conv5: nn.Module) -> nn.Module:
    """Take the stride of 2 out of conv5 and dilate what follows, in place ('a trous').

    The result is the same function, computed at every cell of conv4 in place of every second.
    """
    dilation = 1
    for layer in conv5.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if layer.kernel_size != (1, 1):
            layer.dilation = (dilation, dilation)
            layer.padding = tuple(dilation * padding for padding in layer.padding)
        if layer.stride != (1, 1):
            layer.stride = (1, 1)
            if layer.kernel_size != (1, 1):  # a shortcut beside the block has its stride too
                dilation = 2
    return conv5
