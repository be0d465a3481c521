"""EigenCAM and Grad-CAM++ through jacobgil's pytorch-grad-cam, on the same targets and layers."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from als.errors import InputError
from als.explain.gradcam import TARGETS_AT_ONCE, RoIScore
from als.explain.targets import Target
from als.model import Detector, Encoding

LIBRARY_METHODS = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "eigencam": "EigenCAM"}


def library_cams(
    detector: Detector,
    encoding: Encoding,
    targets: list[Target],
    method: str,
    layer: str | None = None,
) -> np.ndarray:
    """Maps of the library's methods: raw, not below 0, at the original image's size.

    "gradcam" (Selvaraju et al. 2017; here to compare with `grad_cams`), "gradcam++" (Chattopadhay
    et al. 2018) and "eigencam" (Muhammad and Yeasin 2020). EigenCAM is the first principal
    component of the feature and takes no gradient: on F, F_loc and F_cls it knows neither box nor
    class. The sign of a component is arbitrary; here its larger extreme is positive (Chung and
    Ying 2025, eq. 13). The library's own output is scaled to 0..1; these are the values before.

    Args:
        encoding, targets, layer: as in `als.explain.grad_cams`; all targets of one branch.

    Returns:
        float32 [K, H, W].

    Raises:
        InputError: the library is not installed, unknown method, targets of both branches, or a
            layer that the branch does not read.
    """
    if method not in LIBRARY_METHODS:
        raise InputError(
            f"method '{method}' is unknown; choose one of {', '.join(LIBRARY_METHODS)}."
        )
    if len({target.of_box for target in targets}) > 1:
        raise InputError("targets of the class and of the box branch; explain them in two calls.")
    maps = [np.zeros((0, *encoding.original_sizes[0]), dtype=np.float32)]
    for start in range(0, len(targets), TARGETS_AT_ONCE):
        some = targets[start : start + TARGETS_AT_ONCE]
        maps.append(_explain(detector, encoding, some, method, layer))
    return np.concatenate(maps)


@torch.inference_mode(False)
@torch.enable_grad()
def _explain(detector, encoding, targets: list[Target], method: str, layer) -> np.ndarray:
    library = _import_library()
    score = RoIScore(detector, encoding, targets, layer)
    # The library switches modes, clears gradients and, where parameters ask, accumulates them.
    with frozen(detector):
        cam = getattr(library, LIBRARY_METHODS[method])(score, [score.hooked()])
        try:
            start = score.start().requires_grad_()
            scalars = [lambda value: value] * len(targets)
            cam(start, scalars)
            seen = cam.activations_and_grads
            activations = seen.activations[0].numpy()
            gradients = seen.gradients[0].numpy() if seen.gradients else None
            grids = cam.get_cam_image(
                start, score.hooked(), scalars, activations, gradients, eigen_smooth=False
            )
        finally:
            cam.activations_and_grads.release()
    if method == "eigencam":
        grids = np.stack([-g if -g.min() > g.max() else g for g in grids])
    grids = torch.from_numpy(np.maximum(grids, 0, dtype=np.float32))
    return score.to_image(grids[:, None])


def _import_library():
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise InputError(
            "EigenCAM and Grad-CAM++ need the package grad-cam; run `pip install grad-cam`."
        ) from error
    return pytorch_grad_cam


@contextmanager
def frozen(module: nn.Module):
    """Parameters take no gradient inside; modes, flags and gradients come back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    try:
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, wanted, gradient in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
