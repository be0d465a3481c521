"""One photo as one model sees it: what is chosen of it, and the maps asked for so far."""

import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

from als.drawing import COLOUR_MAPS, RULES, Look, Panel, display_size, sampled, to_display
from als.errors import InputError
from als.evaluation import Detections, GroundTruth
from als.evaluation.missed import Lost, outcomes, why_lost
from als.explain import EXPLAINERS, default_explainers
from als.explain.map_measures import box_region
from als.images import reduced_size
from als.inference import Analysis, Explanation, Prediction, Predictor

MAX_EXPLANATIONS = 12
MAX_LOST = 20  # objects of a photo of which it is told why they were missed
# Pixels of the longest side of a map that is kept: twelve whole maps of a large photo would be a
# gigabyte, and they are smooth.
MAP_SIDE = 1024
SAME_BOX = 0.3  # a second model's detection counts as the same one from here
DEFAULT_THRESHOLD, DEFAULT_EXPLAINER = 0.5, "gradact"
# What the last view explains: a kind of `als.explain.Target` for each word of the page.
KIND_OF_WORDS = {
    "class score": "logit",
    "rightward shift (dx)": "dx",
    "downward shift (dy)": "dy",
    "width (dw)": "dw",
    "height (dh)": "dh",
}
WORDS = {kind: words for words, kind in KIND_OF_WORDS.items()}
WORDS |= {"softmax": "class score after the softmax", "margin": "margin of the class score"}


def offered(predictor: Predictor) -> dict[str, str]:
    """Names and titles of the explainers that the last view can show for a model."""
    config = predictor.detector.config
    return {
        name: EXPLAINERS[name].title
        for name in default_explainers()
        if name not in ("localization", "classification")  # have views of their own
        and EXPLAINERS[name].goes_with(config)
    }


def words_of(explainer: str) -> str:
    """What an explainer explains by itself: a key of KIND_OF_WORDS, the first where no scalar."""
    own = EXPLAINERS[explainer].kind
    return WORDS[own] if own in KIND_OF_WORDS.values() else next(iter(KIND_OF_WORDS))


def step_of(explainer: str) -> str:
    """What an explainer's time is told as."""
    is_default = explainer == DEFAULT_EXPLAINER
    return "gradient x activation" if is_default else EXPLAINERS[explainer].title


@dataclass(frozen=True)
class Settings:
    """Values of the page's controls, in their order; kind is a key of KIND_OF_WORDS."""

    threshold: float = DEFAULT_THRESHOLD
    kind: str = next(iter(KIND_OF_WORDS))
    opacity: float = Look.opacity
    colour_map: str = Look.colour_map
    rule: str = Look.rule
    explainer: str = DEFAULT_EXPLAINER

    @classmethod
    def from_page(cls, threshold, kind, opacity, *others) -> "Settings":
        """What the controls hold: an emptied number is its default, any other is kept in 0 to 1.

        Raises InputError for what no control of the page holds.
        """
        asked = (kind, *others)
        known = (KIND_OF_WORDS, COLOUR_MAPS, RULES, EXPLAINERS)
        if not all(
            isinstance(one, str) and one in of for one, of in zip(asked, known, strict=True)
        ):
            raise InputError("These are not values of this page's controls: load the page again.")
        threshold = _share(threshold, DEFAULT_THRESHOLD)
        return cls(threshold, kind, _share(opacity, Look.opacity), *others)

    @property
    def look(self) -> Look:
        return Look(self.opacity, self.colour_map, self.rule)

    @property
    def target(self) -> str | None:
        """The kind of target that the last view explains; None where there is no scalar.

        An explainer of another class scalar (softmax, margin) keeps it as its class score.
        """
        own, asked = EXPLAINERS[self.explainer].kind, KIND_OF_WORDS[self.kind]
        keeps = asked == "logit" and own not in KIND_OF_WORDS.values()
        return (own if keeps else asked) if own else None


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Choice:
    """What is explained: a detection (row of the prediction), or else the best RoI of a class.

    Neither: the class that comes closest to a detection. box: instead of both, x1 y1 x2 y2 in
    pixels of the photo, of the class `label` if there is one.
    """

    detection: int | None = None
    label: int | None = None
    box: Box | None = None


@dataclass
class Study:
    """One photo as one model sees it, with the explanations asked for so far.

    Maps are kept at most 1,024 pixels long, boxes are in pixels of the photo. Nothing here runs the
    network's trunk again; an explanation is a backward pass from one RoI. truth: the annotation
    of which `losses` tells; lost: what it found. example: its name, if the photo is one. above:
    of the same photo, the study whose pictures stand above those of this one. attention: the
    panels of both maps as drawn last, which another choice does not change.
    """

    predictor: Predictor
    analysis: Analysis
    name: str
    choice: Choice = Choice()
    truth: GroundTruth | None = None
    example: str | None = None
    above: "Study | None" = None
    lost: dict = field(default_factory=dict)
    explained: dict = field(default_factory=dict)
    attention: tuple[Look, list[Panel]] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def prediction(self) -> Prediction:
        return self.analysis.prediction

    @property
    def roi(self) -> torch.Tensor:
        """The chosen proposal [1, 4], xyxy in pixels of the network's image."""
        choice = self.choice
        asked = choice.detection, choice.label, choice.box
        return self.predictor.chosen(self.analysis, *asked)[0].rois

    @property
    def best(self) -> Choice:
        """The best detection, if there is one."""
        return Choice(detection=0 if len(self.prediction.boxes) else None)

    @cached_property
    def display(self) -> Image.Image:
        """The photo at the size of the page's pictures."""
        return to_display(self.analysis.image)

    def shown(self, threshold: float) -> int:
        """How many detections pass; they are the first ones."""
        return int((self.prediction.scores >= threshold).sum())

    def class_map(self, whole: bool = False) -> Explanation:
        """Grad-CAM of the chosen proposal's class score, before the softmax."""
        return self._explained("Grad-CAM", "gradcam", "logit", whole)

    def last_map(self, settings: Settings, whole: bool = False) -> Explanation | None:
        """What the last view shows of the chosen proposal; None if this model has no such map."""
        name = settings.explainer
        if name not in offered(self.predictor):
            return None
        return self._explained(step_of(name), name, settings.target, whole)

    def seconds_of(self, settings: Settings) -> dict[str, float]:
        """Duration of each step to what is shown: of the maps made, Grad-CAM and the last view."""
        shown = {"Grad-CAM", step_of(settings.explainer)}
        made = {step: told for step, told in self.seconds.items() if step in shown}
        return self.prediction.seconds | made

    def _explained(self, step: str, name: str, kind: str | None, whole: bool) -> Explanation:
        """`whole`: with a map at the photo's size, which is not kept."""
        choice, key = self.choice, (self.choice, name, kind)
        asked = choice.detection, choice.label, name, kind, choice.box
        if whole:
            return self.predictor.explain(self.analysis, *asked)
        told = self.explained.pop(key, None)
        if told is None:
            started = time.perf_counter()
            if choice.box is None:
                told = self.predictor.explain(self._light, *asked)
                told = replace(told, box=told.box / self.scale)
            else:  # a thin one would be less than a pixel of the light photo
                told = self.predictor.explain(self.analysis, *asked)
                size = reduced_size(self.prediction.size, MAP_SIDE)
                told = replace(told, map=sampled(told.map, size))
            self.seconds[step] = time.perf_counter() - started
        self.explained[key] = told  # the last used comes last
        if len(self.explained) > MAX_EXPLANATIONS:
            del self.explained[next(iter(self.explained))]
        return told

    @cached_property
    def scale(self) -> np.ndarray:
        """Pixels of a kept map for each of the photo, for x1 y1 x2 y2."""
        (height, width), size = reduced_size(self.prediction.size, MAP_SIDE), self.prediction.size
        return np.tile(np.array([width / size[1], height / size[0]], np.float32), 2)

    @cached_property
    def _light(self) -> Analysis:
        """The analysis as of a photo of the size of the kept maps."""
        found, size = self.prediction, reduced_size(self.prediction.size, MAP_SIDE)
        return replace(
            self.analysis,
            image=self.analysis.image.resize(size[::-1]),
            prediction=replace(found, boxes=found.boxes * self.scale, size=size),
            encoding=replace(self.analysis.encoding, original_sizes=[size]),
        )

    def detection_at(self, x: float, y: float, threshold: float) -> int | None:
        """Row of the smallest shown detection whose box holds a point of the photo.

        x, y: 0 to 1, from the photo's left and upper edge.
        """
        boxes = self.prediction.boxes[: self.shown(threshold)]
        point = np.array([x, y]) * self.prediction.size[::-1]
        holds = ((boxes[:, :2] <= point) & (point < boxes[:, 2:])).all(1)
        areas = np.where(holds, (boxes[:, 2:] - boxes[:, :2]).prod(1), np.inf)
        return int(areas.argmin()) if holds.any() else None

    def losses(self, threshold: float) -> tuple[list[tuple[int, Lost]], int]:
        """Of the annotated objects that no detection over the threshold counts for: the first
        `MAX_LOST`, as rows of `truth` and where each was lost; and how many there are."""
        found, shown = self.prediction, self.shown(threshold)
        given = Detections(found.boxes[:shown], found.labels[:shown], found.scores[:shown])
        rows = np.flatnonzero(outcomes(given, self.truth, len(self.predictor.classes)).missed)
        lost = {}
        for row in rows[:MAX_LOST].tolist():
            target = self.truth.boxes[row], int(self.truth.labels[row]), threshold
            kept = self.lost.get((row, threshold))
            lost[row, threshold] = kept or why_lost(self.predictor, self.analysis, *target)
        self.lost = lost
        return [(row, one) for (row, _), one in lost.items()], len(rows)

    def maps_there(self, box: np.ndarray) -> list[tuple[float, float] | None]:
        """The mean of each attention map in a box of the photo, and in the photo; None where there
        is no map, or no pixel of it in the box."""
        told = []
        for values in (self.prediction.localization_map, self.prediction.classification_map):
            told.append(None)
            if values is not None:
                inside = values[box_region(box * self.scale, values.shape)]
                told[-1] = (float(inside.mean()), float(values.mean())) if inside.size else None
        return told

    def same_choice(self, first: "Study") -> Choice:
        """What to explain here so that it stands beside the choice of `first`.

        The detection of the same class that overlaps most, if any does well enough, else the
        best-scoring proposal for that class; the best detection where this model does not know the
        class. A box is the same box.
        """
        chosen, found = first.class_map(), self.prediction
        if chosen.name not in self.predictor.classes:
            return self.best if first.choice.box is None else Choice(box=first.choice.box)
        label = self.predictor.classes.index(chosen.name) + 1
        if first.choice.box is not None:
            return Choice(label=label, box=first.choice.box)
        overlap = iou(chosen.box, found.boxes) * (found.labels == label)
        if len(overlap) and overlap.max() >= SAME_BOX:
            return Choice(detection=int(overlap.argmax()))
        return Choice(label=label)

    def bytes(self) -> int:
        """About what the photo, its maps and its features take in memory."""
        encoding, found = self.analysis.encoding, self.prediction
        arrays = [found.localization_map, found.classification_map]
        # A copy in one step: the session that is measured may be explaining at this moment.
        arrays += [told.map for told in list(self.explained.values())]
        arrays += [encoding.images.tensors, encoding.f, encoding.f_loc, encoding.f_cls]
        overrides = (encoding.override_loc, encoding.override_cls)
        # Of a map that replaces one: at most twice the network's sides, one channel for three.
        arrays += [encoding.images.tensors for given in overrides if given is not None]
        taken = sum(array.nbytes for array in arrays if array is not None)
        # The photo, that of the kept maps' size, three pictures; Pillow takes 4 bytes a pixel.
        (height, width), (small, narrow) = found.size, reduced_size(found.size, MAP_SIDE)
        wide, high = display_size(width, height)
        return taken + 4 * (height * width + small * narrow + 3 * wide * high)


def _share(value, default: float) -> float:
    """A number kept in 0 to 1; the default where there is none."""
    number = value if isinstance(value, int | float) and value == value else default
    return float(min(max(number, 0), 1))


def study_photo(
    predictor: Predictor, photo, name: str, *maps, threshold: float | None = None
) -> Study:
    """Run the network on a photo once and choose its first detection.

    Args:
        photo: whatever `Predictor.analyse` takes. maps: that replace the network's own.
        threshold: detections over it are kept too, where the model's own is higher.

    Raises:
        InputError: the photo cannot be read, or nothing is proposed in it.
    """
    own = predictor.detector.config.score_threshold
    least = own if threshold is None else min(threshold, own)
    analysis = predictor.analyse(photo, *maps, score_threshold=least, name=name, map_side=MAP_SIDE)
    if len(analysis.found.logits) == 0:
        raise InputError(f"{name}: the model proposes no region in this photo.")
    study = Study(predictor, analysis, name)
    study.choice = study.best
    return study


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box [4] with boxes [N, 4] -> [N]."""
    return box_iou(torch.from_numpy(box)[None], torch.from_numpy(boxes))[0].numpy()
