"""Insertion and deletion of the study: `als.explain.faithfulness` on the detections of a scene."""

from functools import cached_property

import numpy as np
import torch

from als.explain.blackbox import black_box
from als.explain.faithfulness import blurred, change_curves, plain
from als.explain.registry import PROPOSALS, Scene

STEPS = 20  # a twentieth of the pixels changes from one image to the next
# The first and the last image of each curve, as in `als.explain.faithfulness`.
CURVES = {"insertion": ("blurred", "whole"), "deletion": ("whole", "plain")}


class Curves:
    """The curves of a scene's detections; those of all maps begin and end with the same images."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.detections = list(zip(scene.boxes, scene.labels.tolist(), strict=True))
        self.detect = black_box(scene.detector, PROPOSALS, sorted(set(scene.labels.tolist())))

    @cached_property
    def images(self) -> dict[str, torch.Tensor]:
        """Name -> image [3, H, W] that a curve begins or ends with."""
        image = self.scene.image
        return {"blurred": blurred(image), "whole": image, "plain": plain(image)}

    @cached_property
    def found(self) -> dict[str, dict[str, torch.Tensor]]:
        """Name -> what is detected in the image."""
        return {name: self.detect(image[None])[0] for name, image in self.images.items()}

    def areas(self, maps: np.ndarray, measure: str) -> list[float]:
        """Area under the curve of each detection, for its map of [K, H, W].

        Args:
            measure: a name of `CURVES`.
        """
        groups = [(map, [one]) for map, one in zip(maps, self.detections, strict=True)]
        if all(np.array_equal(map, maps[0]) for map in maps[1:]):  # the same images for all
            groups = [(maps[0], self.detections)]
        start, end = (self.images[name] for name in CURVES[measure])
        ends = [self.found[name] for name in CURVES[measure]]
        return [
            curve.auc
            for map, some in groups
            for curve in change_curves(
                self.detect, start, end, map, some, STEPS, seed=self.scene.seed, ends=ends
            )
        ]
