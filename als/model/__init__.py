"""The detector of the paper: photos -> losses, or detections and the two attention maps."""

from als.model.detector import Detector, Encoding
from als.model.interface import AnyDetector, Found

__all__ = ["AnyDetector", "Detector", "Encoding", "Found"]
