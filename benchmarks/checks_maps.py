"""The part of `checks` that is about maps: D-RISE, curves, where a map lies."""

import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from als.data.record import Record
from als.explain.blackbox import (
    PROPOSALS,
    BlackBox,
    black_box,
    detection_score,
    drise,
    random_masks,
)
from als.explain.faithfulness import CURVES, blurred, change_curves, pixel_ranks, plain
from als.explain.map_measures import box_region, energy, pointing_game
from als.images import as_rgb
from als.inference import load
from als.study.sanity import similarity

SIDE, STEPS = 224, 16  # RISE's code takes images of this side; the steps divide its pixels


class SceneOfOne(NamedTuple):
    """A detection: image [3, H, W], box [4], a map [H, W], and the detector as a black box."""

    detect: BlackBox
    image: Tensor
    box: np.ndarray
    label: int
    heat: np.ndarray


def scenes_of(records: Sequence[Record], count: int) -> list[SceneOfOne]:
    """Photographs drawn by chance, each with its best detection, if that is over 0.5, and A_loc."""
    predictor, scenes = load("animals"), []
    for index in np.random.default_rng(0).permutation(len(records)):
        if len(scenes) == count:
            break
        photo = as_rgb(records[index].path)
        seen = predictor.predict(photo, score_threshold=0.5)
        if len(seen.boxes):
            image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
            label = int(seen.labels[0])
            detect = black_box(predictor.detector, PROPOSALS, [label])
            scenes.append(SceneOfOne(detect, image, seen.boxes[0], label, seen.localization_map))
    return scenes


def quantus(scene: SceneOfOne) -> dict[str, list[float]]:
    """[ours, theirs] of the map on the detection's box."""
    import quantus

    region = box_region(scene.box, scene.heat.shape)
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    given = {"model": None, "x_batch": scene.image[None].numpy(), "y_batch": np.array([0])}
    given |= {"a_batch": scene.heat[None, None], "s_batch": region[None, None]}
    mass, point = (
        float(measure(**options)(**given)[0])
        for measure in (quantus.RelevanceMassAccuracy, quantus.PointingGame)
    )
    pointed = pointing_game(scene.heat, region, margin=0)
    return {"energy": [energy(scene.heat, region), mass], "pointing_game": [pointed, point]}


class Scored(nn.Module):
    """What is left of a detection as the score of a classifier's first class, of two."""

    def __init__(self, scene: SceneOfOne):
        super().__init__()
        self.scene = scene

    def forward(self, images: Tensor) -> Tensor:
        found = self.scene.detect(images)
        left = [detection_score(one, self.scene.box, self.scene.label) for one in found]
        return torch.tensor([[score, -1.0] for score in left])


class GivenMap:
    """What torchcam's metric asks of its own extractors, for a map that is there."""

    def __init__(self, scene: SceneOfOne):
        self.model, self.heat = Scored(scene), torch.from_numpy(scene.heat)[None]

    def __call__(self, class_idx, scores) -> list[Tensor]:
        return [self.heat]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def torchcam(scene: SceneOfOne) -> dict[str, list[float]]:
    """[ours, theirs]: area under the insertion and the deletion curve."""
    from torchcam.metrics import DeletionInsertionMetric

    scene = without_ties(scene)
    told = {}
    for name, change in (("insertion", blurred), ("deletion", plain)):
        base = change(scene.image)
        metric = DeletionInsertionMetric(GivenMap(scene), steps=STEPS, baseline=base)
        metric.update(scene.image[None], class_idx=0)
        told[name] = [curve(scene, name).auc, metric.summary()[f"{name}_auc"]]
    return told


def rise(scene: SceneOfOne, folder: Path) -> dict[str, list[float]]:
    """The same of RISE's own code, which wants a GPU: `cuda` is made to do nothing."""
    scene = without_ties(scene)
    with patch.object(sys, "path", [str(folder), *sys.path]):
        code = importlib.import_module("evaluation")
    told = {}
    for name, change in (("insertion", blurred), ("deletion", plain)):
        base = change(scene.image)[None].contiguous()
        metric = code.CausalMetric(Scored(scene), name[:3], SIDE**2 // STEPS, lambda _, b=base: b)
        with patch.object(Tensor, "cuda", lambda self: self):
            scores = metric.single_run(scene.image[None], scene.heat)
        told[name] = [curve(scene, name).auc, float(code.auc(scores))]
    return told


def curve(scene: SceneOfOne, name: str):
    """Ours, in the same steps."""
    images = {"blurred": blurred(scene.image), "whole": scene.image, "plain": plain(scene.image)}
    start, end = (images[one] for one in CURVES[name])
    (made,) = change_curves(
        scene.detect, start, end, scene.heat, [(scene.box, scene.label)], steps=STEPS
    )
    return made


def without_ties(scene: SceneOfOne) -> SceneOfOne:
    """At 224 x 224, and the map's values by rank: each package orders equal values its own way."""
    height, width = scene.image.shape[1:]
    image, heat = (
        nn.functional.interpolate(one[None], (SIDE, SIDE), mode="bilinear")[0]
        for one in (scene.image, torch.tensor(scene.heat)[None])
    )
    box = scene.box * np.array([SIDE / width, SIDE / height] * 2)
    ranks = -pixel_ranks(heat[0].numpy(), seed=0).astype(np.float32)
    return scene._replace(image=image, box=box, heat=ranks)


def microsoft(scene: SceneOfOne, masks: int) -> dict[str, float]:
    """Rank correlations of D-RISE maps, ours and theirs, with other masks and with the same."""
    from vision_explanation_methods.explanations import common
    from vision_explanation_methods.explanations import drise as theirs

    def record(found: dict[str, Tensor]) -> common.DetectionRecord:
        one_hot = nn.functional.one_hot(found["labels"], scene.label + 1).float()
        return common.DetectionRecord(found["boxes"], found["scores"], one_hot)

    class Wrapped(common.GeneralObjectDetectionModelWrapper):
        def predict(self, x: Tensor) -> list[common.DetectionRecord]:
            return [record(found) for found in scene.detect(x)]

    box, label = torch.tensor(scene.box)[None].float(), torch.tensor([scene.label])
    target = record({"boxes": box, "scores": torch.ones(1), "labels": label})
    kept: list[dict[str, Tensor]] = []

    def keeping(images: Tensor) -> list[dict[str, Tensor]]:
        kept.extend(found := scene.detect(images))
        return found

    def our_map(seed: int) -> np.ndarray:
        pairs = [(scene.box, scene.label)]
        return drise(keeping, scene.image, pairs, masks, seed=seed)[0]

    def their_map(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        made = theirs.DRISE_saliency(Wrapped(), scene.image[None], [target], masks)
        return made[0][0]["detection"][0].numpy()

    def their_fusion(seed: int) -> np.ndarray:
        weighed = [
            theirs.MaskAffinityRecord(mask[None], [theirs.compute_affinity_scores(target, one)])
            for mask, one in zip(drawn[seed], map(record, kept[seed * masks :]), strict=False)
        ]
        return theirs.saliency_fusion(weighed, "cpu")[0][0]["detection"][0].numpy()

    ours, their = [our_map(0), our_map(1)], [their_map(0), their_map(1)]
    drawn = [next(random_masks(scene.image.shape[1:], masks, masks, seed)) for seed in (0, 1)]
    fused = [their_fusion(0), their_fusion(1)]
    # Theirs is sum (w - mean w) M, scaled to 0 to 1; ours is sum w M: what no mix of ours, sum M
    # and a constant explains is a difference.
    parts = np.stack([ours[0], drawn[0].sum(0).numpy(), np.ones_like(ours[0])], axis=-1)
    parts, whole = parts.reshape(-1, 3), fused[0].ravel()
    rest = whole - parts @ np.linalg.lstsq(parts, whole, rcond=None)[0]
    return {
        "ours with theirs": float(np.mean([similarity(a, b) for a in ours for b in their])),
        "ours, two seeds": similarity(*ours),
        "theirs, two seeds": similarity(*their),
        "our masks, their fusion, two seeds": similarity(*fused),
        "our masks, both fusions": similarity(ours[0], fused[0]),
        "our masks, unexplained": float(np.abs(rest).max()),
    }
