"""Insertion and deletion of the study: `als.explain.faithfulness` on the detections of a scene."""

import numpy as np
import torch

from als.explain import faithfulness
from als.explain.blackbox import black_box
from als.study.maps import PROPOSALS, Scene

STEPS = 25  # images between the first and the last of a curve
CURVES = {"insertion": faithfulness.insertion, "deletion": faithfulness.deletion}


@torch.no_grad()
def curve_areas(scene: Scene, maps: np.ndarray, measure: str) -> list[float]:
    """Area under the insertion or deletion curve of each detection, for its map of [K, H, W]."""
    detect = black_box(scene.detector, PROPOSALS)
    return [
        CURVES[measure](detect, scene.image, map, box, int(label), STEPS, seed=scene.seed).auc
        for map, box, label in zip(maps, scene.boxes, scene.labels, strict=True)
    ]
