"""Frozen batch normalisation as part of the convolution before it.

A frozen BN multiplies each channel by a constant and adds another. torchvision's layer does so in
two passes over the convolution's output, which it also turns into float32 under autocast. Scaled
weights give the same for a pass over the weights, which are far fewer.
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


class NormedConv2d(nn.Conv2d):
    """A convolution that applies the frozen BN after it, with the parameters of the pair.

    The BN keeps its place and its buffers, so that names and values of the state dict are those of
    torchvision's network; it is an `AppliedNorm`, which passes its input on.
    """

    norm: tuple[FrozenBatchNorm2d]  # in a tuple, since it is another module's child

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, h, w] -> [B, out_channels, h', w'], normalised."""
        return self._conv_forward(x, *scaled(self))


class AppliedNorm(FrozenBatchNorm2d):
    """A frozen BN whose convolution has applied it already."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def scaled(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Weight [O, I / groups, k, k] and bias [O] that give the convolution with its BN, if any."""
    if not isinstance(conv, NormedConv2d):
        return conv.weight, conv.bias
    (norm,) = conv.norm
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def apply_in_convolutions(module: nn.Module) -> None:
    """Let every convolution below `module` apply the frozen BN right after it, in place.

    Output, parameters, their gradients (all up to rounding) and the state dict stay as they are.
    """
    for parent, conv, norm in list(_pairs(module)):
        normed, applied = getattr(parent, conv), getattr(parent, norm)
        normed.__class__, applied.__class__ = NormedConv2d, AppliedNorm
        normed.norm = (applied,)


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every frozen BN below `module` into the convolution right before it, in place.

    The same function of the input (up to rounding) with other parameters: the scaled weights are
    what is trained and saved.
    """
    for parent, conv, norm in list(_pairs(module)):
        folded, bn = getattr(parent, conv), getattr(parent, norm)
        if folded.weight.is_meta:  # a network of shapes alone
            weight, bias = folded.weight, bn.bias
        else:
            weight, bias = fuse_conv_bn_weights(
                *(folded.weight, folded.bias, bn.running_mean, bn.running_var, bn.eps),
                *(bn.weight, bn.bias),
            )
        folded.__class__ = nn.Conv2d  # also where it applied its BN until now
        folded.weight, folded.bias = nn.Parameter(weight), nn.Parameter(bias)
        setattr(parent, norm, nn.Identity())


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parents and the names of a convolution and its BN: torchvision defines them as neighbours."""
    previous_name, previous = "", None
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d) and isinstance(previous, nn.Conv2d):
            yield module, previous_name, name
        else:
            yield from _pairs(child)
        previous_name, previous = name, child
