"""ALS beside torchvision's Faster R-CNN: a detection, a training step, maps and Grad-CAM."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch

from als.explain import Target, grad_cams
from als.inference import Analysis, Predictor
from als.model import Detector, Found
from als.model.frozen_norm import apply_in_convolutions
from als.model.grid import map_to_image
from als.model.roi_heads import SeparatedRoIHeads
from benchmarks.goals import name_of
from benchmarks.networks import Batch, Subject, as_tensor, batch_of, loss_of, photographs, step
from benchmarks.recording import Setting
from benchmarks.timing import Measured, counted, in_turns
from benchmarks.torchvision_baseline import norm_as_layers

# (batch, height, width) as the configs train: the compact model at a middle size
SHAPES = {"compact": (8, 320, 416), "resnet50": (1, 600, 800)}
QUICK_SHAPE = (2, 64, 96)
# Objects to train on as shares of width and height, the same on every image.
OBJECTS = (
    *((0.10, 0.10, 0.50, 0.60), (0.40, 0.30, 0.90, 0.95), (0.05, 0.50, 0.40, 0.95)),
    *((0.55, 0.05, 0.95, 0.45), (0.20, 0.20, 0.80, 0.80), (0.30, 0.05, 0.60, 0.40)),
)
MANY = 10  # detections explained together


@torch.no_grad()
def detection(subject: Subject) -> Measured:
    """Image tensors to boxes, one image at a time; seconds are of all photographs together."""
    images, als, baseline = subject.tensors, subject.als, subject.baseline

    def naive() -> list[Found]:
        with both_branches_on_all(als.roi_heads):
            return found_in(als)

    def found_in(detector: Detector) -> list[Found]:
        return [detector.detect(detector.encode([image]))[0] for image in images]

    def frcnn() -> None:
        for image in images:
            baseline([image])

    def joined() -> None:
        apply_in_convolutions(baseline)
        try:
            frcnn()
        finally:
            norm_as_layers(baseline)

    sides = {"als": lambda: found_in(als), "naive": naive, "frcnn": frcnn}
    if not als.config.fold_batch_norm:  # otherwise all sides have BN in convolutions
        sides["joined frcnn"] = joined
    once = {side: counted(run) for side, run in sides.items()}
    turns = in_turns(sides, subject.rounds, warm=True)
    facts = {
        "images": [list(image.shape) for image in images],
        "als": _facts(once["als"][0], als.config.score_threshold),
        "frcnn": _facts(found_in(subject.base), subject.base.config.score_threshold),
        "difference_to_naive": _difference(once["als"][0], once["naive"][0]),
        "gflop": {side: operations / 1e9 for side, (_, operations) in once.items()},
    }
    ratios = {
        name_of(f"detection_vs_{side.replace(' ', '_')}", subject.name): turns.ratio("als", side)
        for side in sides
        if side != "als"
    }
    topic = f"detection {subject.name}"
    return Measured(ratios, turns.named(topic), {topic: facts})


def both_branches_on_all(heads: SeparatedRoIHeads):
    """While the context lasts, every RoI is localized, and those that count are chosen after."""

    def deltas_of(chosen, f_cls, f_loc, rois, vectors) -> torch.Tensor:
        return heads.localize(f_loc, rois)[chosen]

    return patch.object(heads, "deltas_of", deltas_of)


def _facts(found: list[Found], threshold: float) -> dict[str, list[float]]:
    """For each image: proposals, the share of them over the threshold, and detections."""
    best = [one.logits.softmax(-1)[:, 1:].amax(1) for one in found]
    return {
        "proposals": [len(scores) for scores in best],
        "share_over_threshold": [round(float((s > threshold).float().mean()), 3) for s in best],
        "detections": [len(one.scores) for one in found],
    }


def _difference(some: list[Found], others: list[Found]) -> float | None:
    """Largest difference of boxes (pixels) and scores; None where other objects were found."""
    largest = 0.0
    for one, other in zip(some, others, strict=True):
        if one.labels.tolist() != other.labels.tolist():
            return None
        for ours, theirs in ((one.boxes, other.boxes), (one.scores, other.scores)):
            if ours.numel():
                largest = max(largest, float((ours - theirs).abs().max()))
    return largest


def training(subject: Subject, setting: Setting) -> Measured:
    """Forward, backward and SGD with the same images, objects and draws on both sides."""
    als, baseline = subject.als, subject.baseline
    batch = images, targets = training_batch(subject, setting)
    plain = [{key: target[key] for key in ("boxes", "labels")} for target in targets]
    try:
        sides = {
            "als": step(als, [lambda: loss_of(als, batch)]),
            "frcnn": step(baseline, [lambda: sum(baseline(images, plain).values())]),
        }
        turns = in_turns(sides, subject.rounds)
        positives = _positives(als, batch)
    finally:
        for model in (als, baseline):
            model.eval().zero_grad()
    facts = {
        "images": [len(images), *images[0].shape],
        "rois_per_image": als.config.rois_per_image,
        "share_of_positive_rois": positives,
    }
    return Measured(
        {name_of("training_vs_frcnn", subject.name): turns.ratio("als", "frcnn")},
        turns.named(f"training step {subject.name}"),
        {f"training {subject.name}": facts},
    )


def training_batch(subject: Subject, setting: Setting) -> Batch:
    """Images [3, H, W] of the size that training resizes to, and their targets."""
    count, height, width = QUICK_SHAPE if setting.quick else SHAPES[subject.name]
    photos = photographs((height, width), 4)
    images = [as_tensor(photos[i % 4]).to(setting.device) for i in range(count)]
    return batch_of(images, torch.tensor(OBJECTS), len(subject.als.config.classes))


@torch.no_grad()
def _positives(als: Detector, batch: Batch) -> float:
    """Share of the sampled RoIs that are objects: only these enter the localization branch."""
    torch.manual_seed(0)
    images, targets = batch
    encoding = als.encode(images)
    proposals, _ = als.rpn(encoding.images, {"0": encoding.f_loc}, targets)
    labels = torch.cat(als.roi_heads.select_training_samples(list(proposals), targets)[2])
    return round(float((labels > 0).float().mean()), 3)


def explaining(subject: Subject) -> Measured:
    """All on one photograph, from uint8 pixels to maps of its size.

    Grad-CAM explains class logits on F_cls, of the proposals that score highest; the detection
    that it follows is done before. The peer explains the score of its first detection on F.
    """
    photo = subject.photos[0]
    predictor = Predictor(subject.als, {}, subject.device)
    analysis = predictor.analyse(photo)
    targets = best_targets(analysis, MANY)

    def explain(count: int) -> Callable[[], np.ndarray]:
        return lambda: grad_cams(subject.als, analysis.encoding, targets[:count])

    after, many = "gradcam after detection", f"gradcam {MANY}"
    sides = {
        "detection": lambda: predictor.analyse(photo),
        "maps": lambda: maps_alone(subject),
        after: lambda: predictor.explain(analysis),
        "gradcam 1": explain(1),
        many: explain(MANY),
    }
    topic = f"explaining {subject.name}"
    turns = in_turns(sides, subject.rounds)
    seconds = turns.named(topic)
    ratios = {
        "maps_vs_detection": turns.ratio("maps", "detection"),
        "gradcam1_vs_detection": turns.ratio(after, "detection"),
        "gradcam10_vs_gradcam1": turns.ratio(many, "gradcam 1"),
    }
    peer = peer_gradcam(subject)
    if peer is not None:  # tens of times are to be told from the goal's five: once is enough
        both = in_turns({"peer": peer, after: sides[after]}, rounds=1)
        ratios["gradcam_speedup_vs_peer"] = both.ratio("peer", after)
        seconds[f"{topic} peer"] = both.seconds("peer")
    facts = {
        "photo": list(photo.shape),
        "detections": len(analysis.prediction.scores),
        "seconds_of_a_detections_steps": analysis.prediction.seconds,
        "peer": "pytorch-grad-cam" if peer else "grad-cam is not installed, or nothing was found",
    }
    named = {name_of(ratio, subject.name): spread for ratio, spread in ratios.items()}
    return Measured(named, seconds, {topic: facts})


@torch.no_grad()
def maps_alone(subject: Subject) -> list[np.ndarray]:
    """Both maps of the first photograph, without proposals and conv5."""
    encoding = subject.als.encode([as_tensor(subject.photos[0]).to(subject.device)])
    return [map_to_image(grid, encoding) for grid in (encoding.a_loc, encoding.a_cls)]


def best_targets(analysis: Analysis, count: int) -> list[Target]:
    """The classes of the proposals that score highest, at most `count`."""
    scores, labels = analysis.found.logits.softmax(-1)[:, 1:].max(1)
    rows = scores.topk(min(count, len(scores))).indices.tolist()
    return [Target(analysis.found.proposals[r : r + 1], int(labels[r]) + 1) for r in rows]


def peer_gradcam(subject: Subject) -> Callable[[], np.ndarray] | None:
    """Grad-CAM of the first detection of torchvision's Faster R-CNN, as the library shows it.

    None if the library is not installed or the detector finds nothing.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
    except ImportError:
        return None
    image = subject.tensors[0]
    with torch.no_grad():
        found = subject.baseline([image])[0]
    if len(found["scores"]) == 0:
        return None
    target = FasterRCNNBoxScoreTarget(found["labels"][:1], found["boxes"][:1])

    def explain() -> np.ndarray:
        with GradCAM(subject.baseline, [subject.baseline.backbone]) as cam:
            return cam(image[None], [target])

    return explain
