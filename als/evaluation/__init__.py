"""How good detections are: the VOC devkit's measure, COCO's, and `evaluate`, which runs a detector.

The measures take one `Detections` and one `GroundTruth` per image, plain arrays, and know no model.
"""

from als.evaluation.detections import Detections, GroundTruth

__all__ = ["Detections", "GroundTruth"]
