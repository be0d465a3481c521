"""One image in, everything about it out: serves the app, the command line and the notebooks."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from als.devices import device_named
from als.errors import InputError
from als.explain.gradcam import grad_cam, is_empty
from als.explain.targets import Target, best_proposal, decode_boxes, find_proposal
from als.images import as_rgb, reduced
from als.model import AnyDetector, Encoding, load_checkpoint
from als.model.grid import image_to_map, map_to_image, stretch_thin
from als.model.steps import at_threshold, detect_in_steps, timed

SHIPPED = Path(__file__).parent / "weights" / "compact.safetensors"
MapInput = str | float | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """Detections and maps of one image, as numpy arrays in the image's own pixels.

    boxes: float32 [K, 4], xyxy, 0-based half-open pixels. labels: int64 [K], 1 to C.
    names: class name of each detection. scores: float32 [K], descending.
    localization_map, classification_map: float32 [H, W], raw (0 to 1), as the network made them
        or as they were overridden; None for a model without attention.
    size: (height, width). seconds: duration of each step by name.
    """

    boxes: np.ndarray
    labels: np.ndarray
    names: list[str]
    scores: np.ndarray
    localization_map: np.ndarray | None
    classification_map: np.ndarray | None
    size: tuple[int, int]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Analysis:
    """A prediction with what it was computed from, so that explaining it needs no second trunk.

    encoding: features and maps of this one image (batch of 1).
    proposals: RoIs [N, 4] in pixels of the resized image. logits: [N, C + 1] of each RoI.
    """

    image: Image.Image
    prediction: Prediction
    encoding: Encoding
    proposals: Tensor
    logits: Tensor


ROUNDING = 1e-3  # by which a map that was resized may be over 1


@dataclass(frozen=True)
class Explanation:
    """A map of one proposal: what raised its class score, or one delta of its box.

    map: float32 [H, W] at image size, raw, not below 0. box: float32 [4], xyxy, pixels.
    label, name, score: of the class that is explained. passed: whether the score is over the
    model's threshold. empty: whether the map says nothing (`als.explain.is_empty`).
    """

    map: np.ndarray
    box: np.ndarray
    label: int
    name: str
    score: float
    passed: bool
    empty: bool


class Predictor:
    """A detector ready for use: `als.load()` gives one.

    Attributes: detector (the network, in evaluation mode), classes, info (what the checkpoint
    says of its data and figures), source (the checkpoint's file name). Safe to call from several
    threads: one image at a time runs.
    """

    def __init__(
        self, detector: AnyDetector, info: dict, device: str = "cpu", source: str = "in memory"
    ):
        self.device = device_named(device)
        self.detector = detector.eval().to(self.device, memory_format=torch.channels_last)
        self.info = info
        self.source = source
        self.classes = detector.config.classes
        self.lock = threading.RLock()

    def predict(
        self,
        image,
        localization_map: MapInput | None = None,
        classification_map: MapInput | None = None,
        score_threshold: float | None = None,
    ) -> Prediction:
        """Detect objects and give both attention maps at image size.

        Args:
            image: path, PIL image, or uint8 array [H, W], [H, W, 3] or [H, W, 4].
            localization_map, classification_map: what to multiply by instead of A_loc or A_cls:
                a number for a constant map, "localization" or "classification" for the map that
                the network made for that task, or an array [H, W] in 0..1 at image size. A_cls
                follows a replaced A_loc unless it is replaced too.
            score_threshold: instead of the model's own.

        Raises:
            InputError: the image cannot be read, a map does not fit it or the model, or the
                threshold is outside 0 to 1.
        """
        return self.analyse(image, localization_map, classification_map, score_threshold).prediction

    @torch.inference_mode(False)
    @torch.no_grad()
    def analyse(
        self,
        image,
        localization_map: MapInput | None = None,
        classification_map: MapInput | None = None,
        score_threshold: float | None = None,
    ) -> Analysis:
        """`predict`, and keep features, proposals and class logits for explaining."""
        started = time.perf_counter()
        image = as_rgb(image)
        detector, size = self.detector, (image.height, image.width)
        small = np.array(reduced(image, 2 * detector.config.max_size))
        tensor = torch.from_numpy(small).permute(2, 0, 1).to(self.device).float() / 255
        seconds: dict[str, float] = {"decode": time.perf_counter() - started}
        override_loc = self._override("localization_map", localization_map, image.size)
        override_cls = self._override("classification_map", classification_map, image.size)
        with self.lock, at_threshold(detector, score_threshold):
            with timed(seconds, "trunk and maps"):
                thick = stretch_thin(tensor, detector.config.max_size)
                overrides = (override_loc, override_cls) if detector.config.attention else ()
                encoding = detector.encode([thick], *overrides)
                encoding.original_sizes = [size]
            found, proposals, logits = detect_in_steps(detector, encoding, seconds)
        labels = found["labels"].cpu().numpy()
        prediction = Prediction(
            boxes=found["boxes"].cpu().numpy(),
            labels=labels,
            names=[self.classes[label - 1] for label in labels],
            scores=found["scores"].cpu().numpy(),
            localization_map=map_to_image(encoding.a_loc, encoding),
            classification_map=map_to_image(encoding.a_cls, encoding),
            size=size,
            seconds=seconds,
        )
        return Analysis(image, prediction, encoding, proposals, logits)

    def require_branches(self) -> "Predictor":
        """Itself; raises InputError if the model is of a family that cannot be explained."""
        if self.detector.config.family != "als":
            raise InputError(
                f"{self.source}: this model is of family {self.detector.config.family}, without "
                "the two branches that are explained; load one of family als."
            )
        return self

    @torch.inference_mode(False)
    @torch.no_grad()
    def explain(
        self,
        analysis: Analysis,
        detection: int | None = None,
        label: int | None = None,
        kind: str = "class",
        layer: str | None = None,
        method: str = "gradcam",
    ) -> Explanation:
        """Why a proposal got its score, or its box; the trunk does not run again.

        Args:
            analysis: what `analyse` gave for the image.
            detection: row of `analysis.prediction` to explain.
            label: instead of a detection, explain this class (1 to C) at the proposal that scores
                highest for it, even if nothing passed the threshold. Without `detection` and
                `label` the first detection is explained or, where there is none, the class that
                comes closest to one.
            kind, layer, method: see `als.explain.Target` and `als.explain.grad_cams`.

        Raises:
            InputError: no such detection or class, nothing was proposed, or the model is of a
                family without the branches that are explained.
        """
        self.require_branches()
        with self.lock:
            row, label, box, score = self._chosen(analysis, detection, label)
            target = Target(analysis.proposals[row : row + 1], label, kind)
            map = grad_cam(self.detector, analysis.encoding, target, layer, method)
            passed = score > self.detector.score_threshold
        name = self.classes[label - 1]
        return Explanation(map, box, label, name, score, passed, is_empty(map))

    def _chosen(
        self, analysis: Analysis, detection: int | None, label: int | None
    ) -> tuple[int, int, np.ndarray, float]:
        """(row of the proposals, label, box [4], score) of what `explain` is asked for."""
        found, encoding, logits = analysis.prediction, analysis.encoding, analysis.logits
        proposals, count = analysis.proposals, len(analysis.prediction.boxes)
        if detection is None and label is None and count:
            detection = 0
        if detection is None:
            label = _closest_class(logits) if label is None else label
            if not 1 <= label <= len(self.classes):
                raise InputError(f"label {label}: choose 1 to {len(self.classes)}.")
            row = best_proposal(logits, label)
            box = decode_boxes(self.detector, encoding, proposals[row : row + 1], label)[0]
            return row, label, box.cpu().numpy(), float(logits[row].softmax(-1)[label])
        if not 0 <= detection < count:
            raise InputError(f"detection {detection}: this image has {count}, counted from 0.")
        box, score = found.boxes[detection], float(found.scores[detection])
        label = int(found.labels[detection])
        row = find_proposal(self.detector, encoding, proposals, logits, box, label, score)
        return row, label, box, score

    def _override(self, name: str, value: MapInput | None, size: tuple[int, int]):
        """The override as `Detector.encode` takes it; `size` is PIL's (width, height)."""
        if value is None:
            return None
        if not self.detector.config.attention:
            raise InputError(f"{name}: this model has no attention maps to replace.")
        if isinstance(value, str):
            if value not in ("localization", "classification"):
                raise InputError(
                    f"{name}: '{value}' is unknown; give a number, an array, 'localization' or "
                    "'classification'."
                )
            return (lambda loc, cls: loc) if value == "localization" else (lambda loc, cls: cls)
        if np.ndim(value) == 0:
            return lambda loc, cls: torch.full_like(loc, float(value))
        array = np.asarray(value, dtype=np.float32)
        if array.shape != (size[1], size[0]):
            raise InputError(
                f"{name}: shape {array.shape} does not fit the image, (height, width) is "
                f"{(size[1], size[0])}."
            )
        if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):  # NaN is refused too
            raise InputError(
                f"{name}: values from {array.min():g} to {array.max():g}; give values from 0 to 1."
            )
        pixels = torch.from_numpy(array)[None].to(self.device)
        thick = stretch_thin(pixels, self.detector.config.max_size)[None]
        return lambda loc, cls: image_to_map(thick, self.detector, loc, beyond="edge")


def load(path: str | Path | None = None, device: str = "cpu") -> Predictor:
    """A predictor from a checkpoint; without a path from the one that ships.

    Raises:
        InputError: there is no such file, it is not a checkpoint of this project, or there is no
            such device.
    """
    path = SHIPPED if path is None else Path(path)
    detector, info = load_checkpoint(path)
    return Predictor(detector, info, device, source=path.name)


def _closest_class(logits: Tensor) -> int:
    """Of logits [N, C + 1], the class (1 to C) with the highest softmax score anywhere."""
    if len(logits) == 0:
        return 1
    return int(logits.softmax(-1)[:, 1:].amax(0).argmax()) + 1
