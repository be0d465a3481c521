"""Every map that the study compares, by name, under one interface: a scene in, raw maps out."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from als.explain import baselines
from als.explain.blackbox import black_box
from als.explain.cam_library import library_cams
from als.explain.drise import drise
from als.explain.gradcam import grad_cams
from als.explain.targets import Target
from als.model import Detector, Encoding
from als.model.grid import map_to_image

DRISE_MASKS = 500
PROPOSALS = 100  # of the black box: a masked image needs no 300


@dataclass(frozen=True)
class Scene:
    """A photograph with the detections to explain.

    encoding: of the one image, so that all maps share one pass through the trunk.
    image: float [3, H, W] in 0..1. boxes: [K, 4] xyxy, pixels. labels: [K], 1 to C.
    rois: [K, 4] xyxy, pixels of the resized image: the proposal behind each detection.
    seed: of maps that draw at random.
    """

    detector: Detector
    encoding: Encoding
    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray
    rois: Tensor
    seed: int = 0
    drise_masks: int = DRISE_MASKS

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph."""
        return tuple(self.image.shape[-2:])

    def targets(self, kind: str) -> list[Target]:
        """One target a detection; kinds as in `als.explain.Target`."""
        pairs = zip(self.rois, self.labels, strict=True)
        return [Target(roi[None], int(label), kind) for roi, label in pairs]


Maker = Callable[[Scene], np.ndarray]


@dataclass(frozen=True)
class MapKind:
    """A map: its title, and the function from a scene to float32 maps, raw, not below 0.

    make: gives [H, W], one map for the whole image, or [K, H, W], one a detection (`per_object`).
    needs_attention: a model without attention has no such map.
    learnt: depends on the network, so that the sanity checks apply to it.
    slow: runs the detector hundreds of times for an image; only made when asked for.
    package: comes from a package that an installation for users does not hold.
    """

    title: str
    make: Maker
    per_object: bool = True
    needs_attention: bool = False
    learnt: bool = True
    slow: bool = False
    package: str | None = None


def _gradients(kind: str, layer: str | None = None, method: str = "gradcam") -> Maker:
    return lambda scene: grad_cams(
        scene.detector, scene.encoding, scene.targets(kind), layer, method
    )


def _library(method: str) -> Maker:
    return lambda scene: library_cams(
        scene.detector, scene.encoding, scene.targets("class"), method
    )


def _drise(scene: Scene) -> np.ndarray:
    pairs = list(zip(scene.boxes, scene.labels.tolist(), strict=True))
    with torch.no_grad():
        detect = black_box(scene.detector, PROPOSALS, sorted(set(scene.labels.tolist())))
        return drise(detect, scene.image, pairs, scene.drise_masks, seed=scene.seed, progress=False)


def _box_gaussians(scene: Scene) -> np.ndarray:
    return np.stack([baselines.box_gaussian(scene.size, box) for box in scene.boxes])


CAM, ODAM = "gradcam", "gradient_x_activation"
IMAGE_LEVEL = {"per_object": False}
MAPS: dict[str, MapKind] = {
    "localization": MapKind(
        "Localization attention",
        lambda s: map_to_image(s.encoding.a_loc, s.encoding),
        needs_attention=True,
        **IMAGE_LEVEL,
    ),
    "classification": MapKind(
        "Classification attention",
        lambda s: map_to_image(s.encoding.a_cls, s.encoding),
        needs_attention=True,
        **IMAGE_LEVEL,
    ),
    "gradcam": MapKind("Grad-CAM, class score", _gradients("class")),
    "gradcam_margin": MapKind("Grad-CAM, margin of class logit", _gradients("margin")),
    "gradcam_box": MapKind("Grad-CAM, box width", _gradients("dw")),
    "gradcam_F": MapKind("Grad-CAM, class score, layer F", _gradients("class", "F")),
    "gradcam_conv5": MapKind("Grad-CAM, class score, conv5", _gradients("class", "conv5")),
    "gradact": MapKind("Gradient x activation, class score", _gradients("class", None, ODAM)),
    "gradact_box": MapKind("Gradient x activation, box width", _gradients("dw", None, ODAM)),
    "gradcam++": MapKind(
        "Grad-CAM++, class score", _library("gradcam++"), package="pytorch_grad_cam"
    ),
    "eigencam": MapKind("EigenCAM", _library("eigencam"), package="pytorch_grad_cam"),
    "drise": MapKind("D-RISE", _drise, slow=True),
    "objectness": MapKind(
        "RPN objectness", lambda s: baselines.objectness(s.detector, s.encoding), **IMAGE_LEVEL
    ),
    "box_gaussian": MapKind("Gaussian in the box", _box_gaussians, learnt=False),
    "image_gaussian": MapKind(
        "Gaussian in the image",
        lambda s: baselines.image_gaussian(s.size),
        learnt=False,
        **IMAGE_LEVEL,
    ),
    "uniform": MapKind("Uniform", lambda s: baselines.uniform(s.size), learnt=False, **IMAGE_LEVEL),
    "random": MapKind(
        "Random", lambda s: baselines.random(s.size, s.seed), learnt=False, **IMAGE_LEVEL
    ),
}


def default_maps() -> list[str]:
    """Names of the maps that need no hundreds of passes and no package that is not installed."""
    missing = {kind.package for kind in MAPS.values() if kind.package and not _has(kind.package)}
    return [m for m, kind in MAPS.items() if not kind.slow and kind.package not in missing]


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def make_maps(name: str, scene: Scene) -> np.ndarray:
    """The named map for each detection of a scene: float32 [K, H, W]."""
    kind = MAPS[name]
    made = kind.make(scene)
    if kind.per_object:
        return made
    return np.broadcast_to(made, (len(scene.boxes), *made.shape))
