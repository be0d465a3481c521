"""Why a detection came out: maps of a photo (explainers) and numbers about maps (measures)."""

from als.explain.gradcam import LAYERS, METHODS, grad_cam, grad_cams, is_empty
from als.explain.registry import (
    DRISE_MASKS,
    EXPLAINERS,
    Explainer,
    Scene,
    default_explainers,
    make_maps,
)
from als.explain.targets import KINDS, Target, best_proposal, boxes_of_class

__all__ = [
    "DRISE_MASKS",
    "EXPLAINERS",
    "Explainer",
    "KINDS",
    "LAYERS",
    "METHODS",
    "Scene",
    "Target",
    "best_proposal",
    "boxes_of_class",
    "default_explainers",
    "grad_cam",
    "grad_cams",
    "is_empty",
    "make_maps",
]
