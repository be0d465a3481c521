"""Every explainer by name, under one interface: a scene in, raw maps out.

An explainer more is one function and one line of `EXPLAINERS`: the predictor, the app, the study
and the notebooks take it from there.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from als.config import ModelConfig
from als.errors import InputError
from als.explain import trivial
from als.explain.blackbox import PROPOSALS, BlackBox, black_box, drise, greedy_patches
from als.explain.gradcam import grad_cams, paste
from als.explain.targets import BOX_KINDS, Target
from als.model import Detector, Encoding
from als.model.attention import compete
from als.model.boxes import rescaled
from als.model.grid import grids_to_image

DRISE_MASKS = 500


@dataclass(frozen=True, eq=False)
class Scene:
    """A photo with the detections to explain.

    encoding: of the one photo, so that all maps share one pass through the trunk.
    photo: upright RGB. boxes: [K, 4] xyxy, pixels. labels: [K], 1 to C.
    rois: [K, 4] xyxy, pixels of the network's image: the proposal behind each detection; [0, 4]
        of a detector without proposals.
    seed: of maps that draw at random.
    """

    detector: Detector
    encoding: Encoding
    photo: Image.Image
    boxes: np.ndarray
    labels: np.ndarray
    rois: Tensor
    seed: int = 0
    drise_masks: int = DRISE_MASKS

    @cached_property
    def image(self) -> Tensor:
        """The photo as float [3, H, W] in 0..1, on the detector's device."""
        return pil_to_tensor(self.photo).to(self.rois.device).float() / 255

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        return self.encoding.original_sizes[0]

    def targets(self, kind: str) -> list[Target]:
        """One target a detection; kinds as in `als.explain.Target`."""
        pairs = zip(self.rois, self.labels, strict=True)
        return [Target(roi[None], int(label), kind) for roi, label in pairs]


Maker = Callable[[Scene, str], np.ndarray]


@dataclass(frozen=True)
class Explainer:
    """One way to a map.

    title: for people.
    make: (scene, kind of target) -> float32 maps, raw, not below 0: [H, W], one for the whole
        photo, or [K, H, W], one a detection (`per_object`).
    kind: the target's kind where none is asked for; "" where no scalar is explained.
    needs_attention: a model without attention has no such map.
    learnt: depends on the network, so that the sanity checks apply to it.
    slow: runs the detector hundreds of times for a photo; only made when asked for.
    black_box: asks the detector for detections and no more, or for nothing: it goes with every
        family, others with family als alone.
    package: comes from a package that an installation for users does not hold.
    """

    title: str
    make: Maker
    kind: str = ""
    per_object: bool = True
    needs_attention: bool = False
    learnt: bool = True
    slow: bool = False
    black_box: bool = False
    package: str | None = None

    def goes_with(self, config: ModelConfig) -> bool:
        """Whether a detector of this config has what the map is made of."""
        if self.needs_attention and not config.attention:
            return False
        return self.black_box or config.family == "als"


def _gradients(scene: Scene, kind: str, layer: str | None = None, method: str = "gradcam"):
    targets = scene.targets(kind or "logit")  # EigenCAM reads the feature of some target
    return grad_cams(scene.detector, scene.encoding, targets, layer, method)


_grad_act = partial(_gradients, method="gradient_x_activation")


def _odam(scene: Scene, kind: str) -> np.ndarray:
    """The class score's map and those of all four box deltas, each over its maximum: the largest.

    Comb = max(H_class, H_x1, ..., H_y2) of Zhao and Chan 2023; this detector's outputs are deltas.
    """
    found = np.zeros((len(scene.boxes), *scene.size), np.float32)
    for one in ("softmax", *BOX_KINDS):
        maps = _grad_act(scene, one)
        largest = maps.max((1, 2), keepdims=True)
        np.maximum(found, maps / np.where(largest > 0, largest, 1), out=found)
    return found


def black_box_of(scene: Scene) -> tuple[BlackBox, list[tuple[np.ndarray, int]]]:
    """The scene's detector, its maps replaced where the scene's are, asked for the scene's classes
    alone; and box [4] xyxy pixels and label of each detection."""
    pairs = list(zip(scene.boxes, scene.labels.tolist(), strict=True))
    encoding, labels = scene.encoding, sorted(set(scene.labels.tolist()))
    has_maps = isinstance(scene.detector, Detector)  # other families have none to replace
    overrides = (encoding.override_loc, encoding.override_cls) if has_maps else ()
    return black_box(scene.detector, PROPOSALS, labels, overrides), pairs


def _drise(scene: Scene, kind: str) -> np.ndarray:
    detect, pairs = black_box_of(scene)
    return drise(detect, scene.image, pairs, scene.drise_masks, seed=scene.seed)


def _greedy(scene: Scene, kind: str) -> np.ndarray:
    detect, pairs = black_box_of(scene)
    return np.stack([greedy_patches(detect, scene.image, *pair) for pair in pairs])


def _class_weights(scene: Scene, kind: str) -> np.ndarray:
    """What each bin's class feature is multiplied by, pasted into its RoI."""
    encoding, detector = scene.encoding, scene.detector
    assert encoding.a_cls is not None  # `make_maps` asks for attention first
    heads = detector.roi_heads
    with torch.no_grad():
        factor = detector.form.apply(torch.ones_like(encoding.a_cls), encoding.a_cls)
        grids = heads.pool(factor, [scene.rois])
        if encoding.rivals is not None:
            grids = compete(grids, grids)
        rois = rescaled(scene.rois, encoding.images.image_sizes[0], scene.size)
        return np.stack([paste(g, roi, scene.size) for g, roi in zip(grids, rois, strict=True)])


def _attention(title: str, name: str) -> Explainer:
    """A map that the network multiplies by."""

    def make(scene: Scene, kind: str) -> np.ndarray:
        return grids_to_image(getattr(scene.encoding, name), scene.encoding)[0]

    return Explainer(title, make, per_object=False, needs_attention=True)


def _of_library(title: str, method: str) -> Explainer:
    """Of the class logit, by pytorch-grad-cam."""
    make = partial(_gradients, method=method)
    return Explainer(title, make, "logit", package="pytorch_grad_cam")


def _knows_nothing(title: str, make: Maker, per_object: bool = True) -> Explainer:
    """An explainer that is not learnt: the same map for any network."""
    return Explainer(title, make, per_object=per_object, learnt=False, black_box=True)


EXPLAINERS: dict[str, Explainer] = {
    "localization": _attention("Localization attention", "a_loc"),
    "classification": _attention("Classification attention", "a_cls"),
    "class_weights": Explainer("Class weights in the box", _class_weights, needs_attention=True),
    "gradcam": Explainer("Grad-CAM, class logit", _gradients, "logit"),
    "gradcam_softmax": Explainer("Grad-CAM, softmax score", _gradients, "softmax"),
    "gradcam_margin": Explainer("Grad-CAM, margin of class logit", _gradients, "margin"),
    "gradcam_box": Explainer("Grad-CAM, box width", _gradients, "dw"),
    "gradcam_F": Explainer(
        "Grad-CAM, class logit, layer F", partial(_gradients, layer="F"), "logit"
    ),
    "gradcam_conv5": Explainer(
        "Grad-CAM, class logit, conv5", partial(_gradients, layer="conv5"), "logit"
    ),
    "gradact": Explainer("Gradient x activation, class logit", _grad_act, "logit"),
    "gradact_softmax": Explainer("Gradient x activation, softmax score", _grad_act, "softmax"),
    "gradact_box": Explainer("Gradient x activation, box width", _grad_act, "dw"),
    "odam": Explainer("ODAM, class score and box", _odam),
    "layercam": _of_library("LayerCAM, class logit", "layercam"),
    "gradcam++": _of_library("Grad-CAM++, class logit", "gradcam++"),
    "eigencam": Explainer(
        "EigenCAM",
        lambda scene, kind: _gradients(scene, kind, method="eigencam")[0],  # of any target the same
        per_object=False,
        package="pytorch_grad_cam",
    ),
    "drise": Explainer("D-RISE", _drise, slow=True, black_box=True),
    "greedy": Explainer("Greedy patches, VX-CODE with r = 1", _greedy, slow=True, black_box=True),
    "objectness": Explainer(
        "RPN objectness", lambda s, _: trivial.objectness(s.detector, s.encoding), per_object=False
    ),
    "box_gaussian": _knows_nothing(
        "Gaussian in the box",
        lambda s, _: np.stack([trivial.box_gaussian(s.size, box) for box in s.boxes]),
    ),
    "image_gaussian": _knows_nothing(
        "Gaussian in the image",
        lambda s, _: trivial.box_gaussian(s.size, (0, 0, *s.size[::-1])),
        per_object=False,
    ),
    "uniform": _knows_nothing(
        "Uniform", lambda s, _: np.ones(s.size, np.float32), per_object=False
    ),
    "random": _knows_nothing(
        "Random", lambda s, _: trivial.random(s.size, s.seed), per_object=False
    ),
}


def default_explainers() -> list[str]:
    """Names of those that need no hundreds of passes and no package that is not installed."""
    return [
        name
        for name, one in EXPLAINERS.items()
        if not one.slow and (one.package is None or importlib.util.find_spec(one.package))
    ]


def make_maps(name: str, scene: Scene, kind: str | None = None) -> np.ndarray:
    """The named map for each detection of a scene: float32 [K, H, W].

    Args:
        kind: explain this scalar (`als.explain.Target`) in place of the explainer's own.

    Raises:
        InputError: no such explainer, a model without what it needs, or it explains no scalar.
    """
    if name not in EXPLAINERS:
        raise InputError(f"explainer '{name}' is unknown; choose of {', '.join(EXPLAINERS)}.")
    explainer = EXPLAINERS[name]
    config = scene.detector.config
    if not explainer.goes_with(config):
        lacks = "has no attention"
        if config.family != "als":
            lacks = f"is of family {config.family}, without the two branches that are explained"
        raise InputError(f"explainer '{name}': this model {lacks}; choose another.")
    if kind is not None and not explainer.kind:
        raise InputError(f"explainer '{name}' explains no {kind}; leave the kind out.")
    if not len(scene.boxes):
        return np.zeros((0, *scene.size), np.float32)
    made = explainer.make(scene, kind or explainer.kind)
    if explainer.per_object:
        return made
    return np.broadcast_to(made, (len(scene.boxes), *made.shape))
