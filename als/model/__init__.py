"""The detector: image -> losses, or detections and the two attention maps."""

from als.model.checkpoint import build_detector, load_checkpoint, load_weights, save_checkpoint
from als.model.detector import Detector, Encoding

__all__ = [
    "Detector",
    "Encoding",
    "build_detector",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
