"""The detectors: image -> losses, or detections and, of ALS, the two attention maps."""

from als.model.checkpoint import build_detector, load_checkpoint, load_weights, save_checkpoint
from als.model.detector import Detector, Encoding
from als.model.interface import AnyDetector

__all__ = [
    "AnyDetector",
    "Detector",
    "Encoding",
    "build_detector",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
