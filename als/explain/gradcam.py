"""Grad-CAM and its relatives of one proposal's scalar, on features that are already there.

The trunk does not run again: its feature F, kept in the encoding, enters a small module that holds
the rest of the way, F -> attention -> RoIAlign -> branch -> scalar. Captum, or jacobgil's
pytorch-grad-cam, hooks its layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from als.errors import InputError
from als.explain.targets import Target
from als.model import Detector, Encoding
from als.model.boxes import rescaled
from als.model.grid import grids_to_image

LAYERS = ("F", "F_loc", "F_cls", "conv5")
TARGETS_AT_ONCE = 16  # each has a copy of the feature's size, of its gradient


def grad_cam(
    detector: Detector,
    encoding: Encoding,
    target: Target,
    layer: str | None = None,
    method: str = "gradcam",
) -> np.ndarray:
    """The map of one target, float32 [H, W]: see `grad_cams`."""
    return grad_cams(detector, encoding, [target], layer, method)[0]


def grad_cams(
    detector: Detector,
    encoding: Encoding,
    targets: list[Target],
    layer: str | None = None,
    method: str = "gradcam",
) -> np.ndarray:
    """What raises each target's scalar: raw maps, not below 0, at the original image's size.

    Args:
        encoding: of one image, also with replaced maps, which then stay as they were replaced.
        targets: scalars to explain; each one's map is independent of the others.
        layer: "F" (gradients also flow through both attention networks), "F_loc" or "F_cls" (the
            multiplied feature that the target's own branch reads), or "conv5" (the branch's last
            feature, pasted back into the RoI). None is F_cls for class targets, F_loc for boxes.
        method: a name of `METHODS`.

    Returns:
        float32 [K, H, W]; a map is all zeros where nothing is positive (`is_empty`).

    Raises:
        InputError: unknown layer or method, a layer that the target's branch does not read, or
            a method of a library that is not installed.
    """
    if method not in METHODS:
        raise InputError(f"method '{method}' is unknown; choose one of {', '.join(METHODS)}.")
    maps = np.zeros((len(targets), *encoding.original_sizes[0]), dtype=np.float32)
    for of_box in (False, True):
        chosen = [i for i, target in enumerate(targets) if target.of_box == of_box]
        for start in range(0, len(chosen), TARGETS_AT_ONCE):
            some = chosen[start : start + TARGETS_AT_ONCE]
            score = RoIScore(detector, encoding, [targets[i] for i in some], layer)
            with torch.inference_mode(False), torch.enable_grad():
                grids = METHODS[method](score)
            maps[some] = score.to_image(grids.detach())
    return maps


def is_empty(heat: np.ndarray) -> bool:
    """Whether a map says nothing: not a value over 0, or one that is not finite.

    Such a map is to be shown as empty, never scaled up.
    """
    return not (np.isfinite(heat).all() and (heat > 0).any())


class RoIScore(nn.Module):
    """The way from a feature to the scalar of each of K targets, one batch entry a target.

    `start` is the feature that the way starts from: F with the attention networks behind it for
    layer "F", else the multiplied feature of the targets' branch. The targets are all of the class
    branch, or all of the box branch.
    """

    def __init__(
        self, detector: Detector, encoding: Encoding, targets: list[Target], layer: str | None
    ):
        super().__init__()
        self.F, self.F_loc, self.F_cls = nn.Identity(), nn.Identity(), nn.Identity()
        self.detector, self.encoding, self.targets = detector, encoding, targets
        self.of_box = targets[0].of_box
        own = "F_loc" if self.of_box else "F_cls"
        self.layer = own if layer is None else layer
        readable = (*LAYERS[:1], own, "conv5") if detector.config.attention else LAYERS
        if self.layer not in LAYERS:
            raise InputError(f"layer '{layer}' is unknown; choose one of {', '.join(LAYERS)}.")
        if self.layer not in readable:
            raise InputError(
                f"layer {layer} does not feed the {'box' if self.of_box else 'class'} branch of "
                f"this model; choose one of {', '.join(readable)}."
            )

    def start(self) -> Tensor:
        """The detached feature [K, C, h, w] to call this module with: K views of one."""
        encoding = self.encoding
        own = encoding.f_loc if self.of_box else encoding.f_cls
        feature = encoding.f if self.layer == "F" else own
        # Contiguous, as RoIAlign reads it; cloned, since inference mode's tensors take no gradient.
        feature = feature.detach().clone(memory_format=torch.contiguous_format)
        return feature.expand(len(self.targets), -1, -1, -1)

    def hooked(self) -> nn.Module:
        """The module whose output is explained."""
        if self.layer == "conv5":
            heads = self.detector.roi_heads
            separate = self.of_box and heads.conv5_loc is not None
            conv5 = heads.conv5_loc if separate else heads.conv5_cls
            return conv5[0]  # then come only pooling and flattening
        return getattr(self, self.layer)

    def forward(self, feature: Tensor) -> Tensor:
        """Feature [K, C, h, w] -> scalar of each target [K]."""
        rivals = self.encoding.rivals
        if self.layer == "F":
            f = self.F(feature)
            encoding = self.detector.attend(replace(self.encoding, f=f, f_loc=f, f_cls=f))
            feature = encoding.f_loc if self.of_box else encoding.f_cls
            rivals = encoding.rivals
        elif self.layer != "conv5":
            feature = getattr(self, self.layer)(feature)
        rois = [target.roi.to(feature) for target in self.targets]
        heads = self.detector.roi_heads
        if self.of_box:
            outputs = heads.localize(feature, rois)
        else:
            if rivals is not None:
                rivals = rivals.expand(len(rois), -1, -1, -1)
            outputs, _ = heads.classify(feature, rois, rivals)
        values = [target.value(row) for target, row in zip(self.targets, outputs, strict=True)]
        return torch.stack(values)

    def to_image(self, grids: Tensor) -> np.ndarray:
        """Maps [K, 1, h, w] at the size of the hooked layer -> float32 [K, H, W] at image size."""
        if self.layer != "conv5":
            return grids_to_image(grids, self.encoding)
        rois = torch.cat([target.roi for target in self.targets]).to(grids)
        size = self.encoding.original_sizes[0]
        boxes = rescaled(rois, self.encoding.images.image_sizes[0], size)
        return np.stack([paste(g, b, size) for g, b in zip(grids, boxes, strict=True)])


def paste(grid: Tensor, box: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A map [1, p, p] in a box [4] (xyxy, pixels) -> float32 of `size` (H, W), bilinear, else 0."""
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    # Pixel centres in units of the box, -1 at its left or upper edge and 1 at the other one.
    x = (torch.arange(width, device=grid.device) + 0.5 - x1) / max(x2 - x1, 1e-6) * 2 - 1
    y = (torch.arange(height, device=grid.device) + 0.5 - y1) / max(y2 - y1, 1e-6) * 2 - 1
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    values = F.grid_sample(
        grid[None].float(), places[None], padding_mode="border", align_corners=False
    )
    inside = (places.abs() <= 1).all(-1)
    return (values[0, 0] * inside).cpu().numpy()


def _captum_gradcam(score: RoIScore) -> Tensor:
    """Selvaraju et al. 2017, eq. 1 and 2: each channel weighs by its gradient's mean.

    The mean is over the whole grid, which also lights up other instances.
    """
    return LayerGradCam(score, score.hooked()).attribute(score.start(), relu_attributions=True)


def _gradient_x_activation(score: RoIScore) -> Tensor:
    """ODAM (Zhao and Chan 2023) as its authors' code has it, cell by cell and without smoothing.

    Only cells that the RoI reads can light up.
    """
    attribution = LayerGradientXActivation(score, score.hooked())
    return attribution.attribute(score.start()).sum(1, keepdim=True).relu()


def library_grids(score: RoIScore, name: str) -> Tensor:
    """A class of pytorch-grad-cam by its name; the values before it scales them to 0..1.

    EigenCAM's component has an arbitrary sign: here its larger extreme is positive (Chung and
    Ying 2025, eq. 13).
    """
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise InputError(
            f"{name} needs the package grad-cam; run `pip install grad-cam`."
        ) from error
    # The library switches modes, clears gradients and, where parameters ask, accumulates them.
    with _frozen(score.detector):
        cam = getattr(pytorch_grad_cam, name)(score, [score.hooked()])
        try:
            start = score.start().requires_grad_()
            scalars = [lambda value: value] * len(score.targets)
            cam(start, scalars)
            seen = cam.activations_and_grads
            activations = seen.activations[0].numpy()
            gradients = seen.gradients[0].numpy() if seen.gradients else None
            given = start, score.hooked(), scalars, activations, gradients
            grids = cam.get_cam_image(*given, eigen_smooth=False)
        finally:
            cam.activations_and_grads.release()
    if name == "EigenCAM":
        grids = np.stack([-g if -g.min() > g.max() else g for g in grids])
    return torch.from_numpy(np.maximum(grids, 0, dtype=np.float32))[:, None]


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradient inside; modes, flags and gradients come back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    try:
        module.requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, wanted, gradient in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


# (RoIScore) -> maps [K, 1, h, w] of the hooked layer, not below 0. Whatever is hooked is let go,
# also after an error.
METHODS: dict[str, Callable[[RoIScore], Tensor]] = {
    "gradcam": _captum_gradcam,
    "gradient_x_activation": _gradient_x_activation,
    # Chattopadhay et al. 2018.
    "gradcam++": partial(library_grids, name="GradCAMPlusPlus"),
    # Jiang et al. 2021: cell by cell as well, of gradients over 0 alone.
    "layercam": partial(library_grids, name="LayerCAM"),
    # Muhammad and Yeasin 2020: the feature's first principal component; it takes no gradient, so
    # on F, F_loc and F_cls it knows neither box nor class.
    "eigencam": partial(library_grids, name="EigenCAM"),
}
