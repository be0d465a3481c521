"""Maps alone, and Grad-CAM of detections, beside a detection and beside pytorch-grad-cam."""

from collections.abc import Callable

import numpy as np
import torch

from als.explain import Target, grad_cams
from als.inference import Analysis, Predictor
from als.model.grid import map_to_image
from benchmarks.goals import name_of
from benchmarks.pairs import Measured, in_turns
from benchmarks.subjects import Subject, as_tensor

MANY = 10  # detections explained together


def measure(subject: Subject) -> Measured:
    """All on one photograph, from uint8 pixels to maps of its size.

    Grad-CAM explains class scores on F_cls, of the proposals that score highest; the detection
    that it follows is done before. The peer explains the score of its first detection on F.
    """
    photo = subject.photos[0]
    predictor = Predictor(subject.als, {}, subject.device)
    analysis = predictor.analyse(photo)
    targets = best_targets(analysis, MANY)

    def explain(count: int) -> Callable[[], np.ndarray]:
        return lambda: grad_cams(subject.als, analysis.encoding, targets[:count])

    sides = {
        "detection": lambda: predictor.analyse(photo),
        "maps": lambda: maps_alone(subject),
        "gradcam after detection": lambda: predictor.explain(analysis),
        "gradcam 1": explain(1),
        f"gradcam {MANY}": explain(MANY),
    }
    if subject.slow:  # the detection has run above; what is short has not
        for side in sides.keys() - {"detection"}:
            sides[side]()
    turns = in_turns(sides, subject.rounds, warm=subject.slow)
    after = "gradcam after detection"
    ratios = {
        "maps_vs_detection": turns.ratio("maps", "detection"),
        "gradcam1_vs_detection": turns.ratio(after, "detection"),
        "gradcam10_vs_gradcam1": turns.ratio(f"gradcam {MANY}", "gradcam 1"),
    }
    seconds = {side: turns.seconds(side) for side in sides}
    peer = peer_gradcam(subject)
    if peer is not None:
        # Turns of their own. A slow peer takes three times as long as all the rest: once is enough
        # where tens of times are to be told from the goal's five.
        rounds = 1 if subject.slow else subject.rounds
        both = in_turns({"peer": peer, after: sides[after]}, rounds, warm=subject.slow)
        ratios["gradcam_speedup_vs_peer"] = both.ratio("peer", after)
        seconds["peer"] = both.seconds("peer")
    facts = {
        "photo": list(photo.shape),
        "detections": len(analysis.prediction.scores),
        "seconds_of_a_detections_steps": analysis.prediction.seconds,
        "peer": "pytorch-grad-cam" if peer else "grad-cam is not installed, or nothing was found",
    }
    return Measured(
        {name_of(ratio, subject.name): spread for ratio, spread in ratios.items()},
        {f"explaining {subject.name} {side}": spread for side, spread in seconds.items()},
        {f"explaining {subject.name}": facts},
    )


@torch.no_grad()
def maps_alone(subject: Subject) -> list[np.ndarray]:
    """Both maps of the first photograph, without proposals and conv5."""
    encoding = subject.als.encode([as_tensor(subject.photos[0]).to(subject.device)])
    return [map_to_image(grid, encoding) for grid in (encoding.a_loc, encoding.a_cls)]


def best_targets(analysis: Analysis, count: int) -> list[Target]:
    """The class scores of the proposals that score highest, at most `count`."""
    scores, labels = analysis.logits.softmax(-1)[:, 1:].max(1)
    rows = scores.topk(min(count, len(scores))).indices.tolist()
    return [Target(analysis.proposals[r : r + 1], int(labels[r]) + 1) for r in rows]


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
        found = subject.twin([image])[0]
    if len(found["scores"]) == 0:
        return None
    target = FasterRCNNBoxScoreTarget(found["labels"][:1], found["boxes"][:1])

    def explain() -> np.ndarray:
        with GradCAM(subject.twin, [subject.twin.backbone]) as cam:
            return cam(image[None], [target])

    return explain
