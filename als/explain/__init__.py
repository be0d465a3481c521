"""Why a detection came out: maps of an image (explainers) and numbers about maps (measures)."""

from als.explain.gradcam import LAYERS, METHODS, grad_cam, grad_cams, is_empty
from als.explain.targets import KINDS, Target, best_proposal, find_proposal

__all__ = [
    "KINDS",
    "LAYERS",
    "METHODS",
    "Target",
    "best_proposal",
    "find_proposal",
    "grad_cam",
    "grad_cams",
    "is_empty",
]
