"""The attention network part (paper, section 2.1), and the forms that it can take."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

VOID = 255


@dataclass(frozen=True)
class AttentionForm:
    """How a map A [B, 1, h, w] acts on a feature F [B, C, h, w]; one entry of `FORMS` a form.

    apply: (F, A) -> the attended feature, of F's shape. equation: the same for people.
    neutral: the value of a constant map under which the feature stays as it is.
    start: `ModelConfig.attention_bias` times this is the logit that a map starts from; all forms
        start near their neutral map.
    competes: whether the cells of A_cls compete inside each RoI (`compete`). Then any constant
        A_cls is neutral, and it starts from 1/2, where a sigmoid learns fastest.
    """

    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    equation: str
    neutral: float
    start: float
    competes: bool = False


# By the name that `ModelConfig.attention_form` takes.
FORMS = {
    # F A: 'multiplied channel by channel' (paper, section 2.1).
    "product": AttentionForm(lambda feature, a: feature * a, "F A", neutral=1.0, start=1.0),
    # F (1 + A): residual attention (Wang et al. 2017, equation 3).
    "residual": AttentionForm(
        lambda feature, a: feature * (1 + a), "F (1 + A)", neutral=0.0, start=-1.0
    ),
    # F A, and inside each RoI over the mean of A there: weights of mean one, as soft attention
    # gives them (Bahdanau et al. 2015, equation 6, with the sigmoid in place of exp).
    "competition": AttentionForm(
        lambda feature, a: feature * a,
        "F A / mean of A in the box",
        neutral=1.0,
        start=1.0,
        competes=True,
    ),
}
SMALLEST_MEAN = 1e-4  # of A in a RoI that is divided by: a map of zeros leaves nothing


def compete(pooled: torch.Tensor, rivals: torch.Tensor) -> torch.Tensor:
    """RoI features [R, C, k, k] of F A, over the mean of A [R, 1, k, k] in each RoI."""
    return pooled / rivals.mean((2, 3), keepdim=True).clamp(min=SMALLEST_MEAN)


def relative_entropy(rivals: torch.Tensor) -> torch.Tensor:
    """H / log N of the shares of N bins [R, 1, k, k] in their RoI: [R], 1 where all are equal."""
    shares = rivals.flatten(1)
    shares = shares / shares.sum(1, keepdim=True).clamp(min=SMALLEST_MEAN)
    return torch.special.entr(shares).sum(1) / math.log(shares.shape[1])


def part_targets(
    logits_of: Callable[[torch.Tensor], torch.Tensor], pooled: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Which bins of a RoI tell its class from the other classes: the target of A_cls.

    ReLU of sum_k F_k d(y_c - mean of the other classes' y)/dF_k: gradient x activation (Zhao and
    Chan 2023, ODAM) of what tells a class from its rivals (Zhang et al. 2025, Finer-CAM).

    Args:
        logits_of: RoI features [R, C, k, k] -> class logits [R, classes + 1], background first.
        pooled: RoI features of F. labels: int64 [R], the RoIs' classes, 1 to `classes`.

    Returns:
        [R, k, k], shares that sum to 1 in a RoI, without a gradient; zeros where no bin speaks for
        the class.
    """
    with torch.inference_mode(False), torch.enable_grad():
        feature = pooled.detach().clone().requires_grad_()
        logits = logits_of(feature)[:, 1:].float()
        own = logits.gather(1, labels[:, None] - 1).sum()
        rivals = (logits.sum() - own) / max(1, logits.shape[1] - 1)
        (gradient,) = torch.autograd.grad(own - rivals, feature)
    evidence = (gradient * feature.detach()).sum(1).relu().float()
    return evidence / evidence.sum((1, 2), keepdim=True).clamp(min=SMALLEST_MEAN)


def part_loss(pooled: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of A_cls's shares in each RoI [R, 1, k, k] with `part_targets`, mean over R.

    Shares alone count: how strong A_cls is in the whole is left to L_cls. 0 without a RoI.
    """
    shares = pooled.flatten(1).float().clamp(min=SMALLEST_MEAN)
    logs = (shares / shares.sum(1, keepdim=True)).log()
    return -(targets.flatten(1) * logs).sum() / max(1, len(targets))


class AttentionNetwork(nn.Sequential):
    """Feature [B, C, h, w] -> logits [B, 1, h, w] of an attention map; sigmoid is applied outside.

    Three 1x1 convolutions, ReLU between: 'two are 2,048 channel layers and the last one is 1
    channel layer'. The map starts near one (logit about `start`), so that a detector that gains
    attention starts where it was.

    Args:
        in_channels, width: channels of the feature and of the two hidden layers.
        start: logit that the map starts from.
        biased: whether the convolutions have biases. With them the map starts as the constant
            sigmoid(start). Without them the logit is proportional to the feature, `start` for one
            of unit scale, and the map is 1/2 wherever the feature is 0, whatever is learnt: fed
            the object area-aware feature, it must tell objects from suppressed background.
    """

    def __init__(self, in_channels: int, width: int, start: float, biased: bool = True):
        super().__init__(
            nn.Conv2d(in_channels, width, 1, bias=biased),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=biased),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 1, bias=biased),
        )
        for layer in (self[0], self[2]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if biased:
            nn.init.zeros_(self[0].bias)
            nn.init.zeros_(self[2].bias)
            nn.init.normal_(self[4].weight, std=1e-3)
            nn.init.constant_(self[4].bias, start)
        else:
            # The mean of a hidden unit, half of a normal of variance 2 behind Kaiming's weights.
            nn.init.constant_(self[4].weight, start * math.sqrt(math.pi) / width)


def object_map_targets(
    object_maps: list[torch.Tensor | None],
    image_sizes: list[tuple[int, int]],
    padded_size: tuple[int, int],
    grid_size: tuple[int, int],
) -> torch.Tensor:
    """Binary object maps at feature resolution: the target of A_loc.

    Args:
        object_maps: for each image uint8 [H, W] (1 object, 0 background, 255 void), or None.
        image_sizes, padded_size, grid_size: (height, width) of each image inside the padded batch,
            of the batch and of the feature.

    Returns:
        float [B, 1, h, w] on the maps' device (CPU if there is none): 1 where at least half of
        the cell's known pixels are object, 0 where less, NaN where more than half of the cell is
        void or padding, and everywhere in an image without a mask.
    """
    device = next((m.device for m in object_maps if m is not None), None)
    targets = torch.full((len(object_maps), 1, *grid_size), float("nan"), device=device)
    for target, object_map, (height, width) in zip(targets, object_maps, image_sizes, strict=True):
        if object_map is None:
            continue
        resized = F.interpolate(object_map[None, None].float(), (height, width))
        padding = (0, padded_size[1] - width, 0, padded_size[0] - height)
        padded = F.pad(resized, padding, value=VOID)
        known = (padded != VOID).float()
        share_known = F.adaptive_avg_pool2d(known, grid_size)
        share_object = F.adaptive_avg_pool2d(padded * known, grid_size)
        target.copy_((share_object >= 0.5 * share_known).float()[0])
        target[share_known[0] < 0.5] = float("nan")
    return targets


def attention_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """L_att-loc of equation 1: sigmoid cross-entropy of A_loc, mean over the known cells.

    Logits and targets [B, 1, h, w]; a cell whose target is NaN is not known. 0, with a zero
    gradient, where none is.
    """
    known = ~targets.isnan()
    if not known.any():
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(logits[known], targets[known])
