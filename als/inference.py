"""Photos in, everything about them out: serves the app, the command line and the notebooks.

photo -> `photo_of` -> `Detector.encode` -> `Detector.detect` -> `Prediction`; and `Explanation`, a
map of one detection, from features that are kept.
"""

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from als.checkpoint import BY_NAME, load_checkpoint
from als.errors import InputError
from als.explain import DRISE_MASKS, Scene, best_proposal, boxes_of_class, is_empty, make_maps
from als.images import (
    IMAGE_SUFFIXES,
    Photo,
    as_rgb,
    image_size,
    photo_of,
    reduced,
    reduced_size,
    stretched_size,
)
from als.machine import device_named
from als.model import AnyDetector, Detector, Encoding, Found
from als.model.boxes import rescaled
from als.model.grid import image_to_map, map_to_image, shrunk

if TYPE_CHECKING:
    import pandas
    import supervision

MAP_NAMES = ("localization", "classification", "neutral")
MapInput = str | float | np.ndarray
ROUNDING = 1e-3  # by which a map that was resized may be over 1

BATCH_SIZE_CPU = 2  # more gain nothing there, and would all wait for the last one
BATCH_SIZE_GPU = 8
NETWORKS = 4  # batches at once on a CPU, at most
DECODERS = 2  # threads beside a GPU
PADDING = 32  # torchvision pads the sides of a batch to a multiple of this
OnError = Callable[[Path, InputError], None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Detections and maps of one photo, as numpy arrays in the photo's own pixels.

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

    def to_pandas(self) -> "pandas.DataFrame":
        """A row a detection: name, label, score, x1, y1, x2, y2."""
        import pandas

        corners = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        columns = {"name": self.names, "label": self.labels, "score": self.scores} | corners
        return pandas.DataFrame(columns)

    def to_supervision(self) -> "supervision.Detections":
        """The detections for Roboflow's supervision, whose classes count from 0.

        Raises InputError where the package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise InputError("supervision is not installed; `pip install supervision`.") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )


@dataclass(frozen=True, eq=False)
class Analysis:
    """A prediction with what it was computed from, so that explaining it needs no second trunk.

    image: upright RGB. encoding: features and maps of this one photo (batch of 1).
    found: the same detections as tensors, with the RoI of each and all proposals.
    """

    image: Image.Image
    prediction: Prediction
    encoding: Encoding
    found: Found


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of one proposal: what raised its class score, or one delta of its box.

    map: float32 [H, W] at the photo's size, raw, not below 0. box: float32 [4], xyxy, pixels.
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


class Predicted(NamedTuple):
    """One of many. photo: upright and RGB, perhaps smaller than the file's."""

    path: Path
    photo: Image.Image
    prediction: Prediction


class Predictor:
    """A detector ready for use: `als.load()` gives one.

    Attributes: detector (the network, in evaluation mode), classes, info (what the checkpoint
    says of its data and figures), source (the checkpoint's file name, with its folder's before
    the names of `als train`). Safe to call from several threads: one photo at a time runs. Can be
    copied, with weights of its own, and pickled.
    """

    @torch.inference_mode(False)  # else the moved weights could never take a gradient
    def __init__(
        self, detector: AnyDetector, info: dict, device: str = "cpu", source: str = "in memory"
    ):
        self.device = device_named(device)
        detector = detector.eval().to(self.device)
        self.detector = detector.to(memory_format=torch.channels_last)
        self.info = info
        self.source = source
        self.classes = detector.config.classes
        self.lock = threading.RLock()

    @classmethod
    def from_pretrained(cls, place: str | Path, device: str = "cpu") -> "Predictor":
        """Of a folder that `save_pretrained` wrote, or of a repository of Hugging Face's hub.

        Raises InputError where there is none.
        """
        from als.hub import checkpoint_in

        return load(checkpoint_in(place), device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors and a model card into a folder, and give it."""
        from als.hub import save_pretrained

        return save_pretrained(self.detector, self.info, folder)

    def push_to_hub(self, repository: str, private: bool = False) -> str:
        """Upload the same to Hugging Face's hub, as whom `hf auth login` says; its address."""
        from als.hub import push_to_hub

        return push_to_hub(self.detector, self.info, repository, private)

    def __getstate__(self) -> dict:
        with self.lock:  # else a copy would keep an explainer's hooks and frozen parameters
            state = {name: value for name, value in vars(self).items() if name != "lock"}
            return state | {"detector": deepcopy(self.detector)}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, lock=threading.RLock())

    def predict(
        self,
        image,
        localization_map: MapInput | None = None,
        classification_map: MapInput | None = None,
        score_threshold: float | None = None,
    ) -> Prediction:
        """Detect objects and give both attention maps at the photo's size.

        Args:
            image: path, PIL image, or uint8 array [H, W], [H, W, 3] or [H, W, 4].
            localization_map, classification_map: what to attend by instead of A_loc or A_cls:
                "neutral" for no attention (the map under which the feature stays as it is: 1
                where the model multiplies by A, 0 where it multiplies by 1 + A), a number in 0..1
                for another constant map, "localization" or "classification" for the map that the
                network made for that task, or an array [H, W] in 0..1 at the photo's size. A_cls
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
        name: str | None = None,
        map_side: float = math.inf,
    ) -> Analysis:
        """`predict`, and keep features, proposals and class logits for explaining.

        name: what a refusal calls the image, see `als.images.as_rgb`. map_side: longest side of
        the prediction's maps in pixels; by default they are as large as the photo.
        """
        threshold = _checked_threshold(score_threshold)
        seconds: dict[str, float] = {}
        with _timed(seconds, "decode"):
            image = as_rgb(image, name=name)
            photo = self._photo(image)
        overrides = [
            self._override("localization_map", localization_map, image.size),
            self._override("classification_map", classification_map, image.size),
        ]
        with self.lock:
            with _timed(seconds, "trunk and maps"):
                given = overrides if self.detector.config.attention else ()
                encoding = self.detector.encode([photo], *given)
            with _timed(seconds, "detection"):
                found = self.detector.detect(encoding, threshold)[0]
        told = self._prediction(found, encoding, 0, seconds, map_side)
        return Analysis(image, told, encoding, found)

    @torch.inference_mode(False)
    @torch.no_grad()
    def encode(self, image) -> Encoding:
        """Features and maps of one photo, as `predict` takes it; nothing is detected."""
        with self.lock:
            return self.detector.encode([self._photo(as_rgb(image))])

    def _photo(self, image: Image.Image) -> Photo:
        photo = photo_of(image, self.detector.config.max_size)
        return photo._replace(pixels=photo.pixels.to(self.device))

    def _prediction(
        self, found: Found, encoding, index: int, seconds: dict, map_side: float = math.inf
    ) -> Prediction:
        """What was found in photo `index` of an encoding, as arrays."""
        labels = found.labels.cpu().numpy()
        return Prediction(
            boxes=found.boxes.cpu().numpy(),
            labels=labels,
            names=[self.classes[label - 1] for label in labels],
            scores=found.scores.cpu().numpy(),
            localization_map=map_to_image(encoding.a_loc, encoding, index, map_side),
            classification_map=map_to_image(encoding.a_cls, encoding, index, map_side),
            size=encoding.original_sizes[index],
            seconds=seconds,
        )

    def require_branches(self) -> "Predictor":
        """Itself; raises InputError if the model is of a family that cannot be explained."""
        if self.detector.config.family != "als":
            raise InputError(
                f"{self.source}: this model is of family {self.detector.config.family}, without "
                "the two branches that are explained; load one of family als."
            )
        return self

    def explain(
        self,
        analysis: Analysis,
        detection: int | None = None,
        label: int | None = None,
        explainer: str = "gradcam",
        kind: str | None = None,
        box: Sequence[float] | None = None,
    ) -> Explanation:
        """Why a proposal got its score, or its box; the trunk does not run again.

        Args:
            analysis: what `analyse` gave for the photo.
            detection: row of `analysis.prediction` to explain.
            label: instead of a detection, explain this class (1 to C) at the proposal that scores
                highest for it, even if nothing passed the threshold. Without `detection` and
                `label` the first detection is explained or, where there is none, the class that
                comes closest to one.
            box: instead of a detection, x1 y1 x2 y2 in pixels of the photo, clipped to it and read
                as if it had been proposed: of the class `label` or, without it, of the one that
                scores highest there.
            explainer: a name of `als.explain.EXPLAINERS`.
            kind: the scalar that is explained (`als.explain.Target`) in place of the explainer's.

        Raises:
            InputError: no such detection, class, box or explainer, a detection beside a class or
                box, nothing was proposed, or the model is of a family without the branches that
                are explained.
        """
        with self.lock:
            scene, score = self.chosen(analysis, detection, label, box)
            (explained,) = make_maps(explainer, scene, kind)
        label, explained = int(scene.labels[0]), explained.copy()  # else some are read-only views
        passed = score > self.detector.config.score_threshold
        return Explanation(
            *(explained, scene.boxes[0], label, self.classes[label - 1], score, passed),
            is_empty(explained),
        )

    def chosen(
        self,
        analysis: Analysis,
        detection: int | None = None,
        label: int | None = None,
        box: Sequence[float] | None = None,
    ) -> tuple[Scene, float]:
        """The scene of the one proposal that `explain` explains, and the score of its class."""
        if detection is not None and not (label is None and box is None):
            raise InputError(f"detection {detection}: give it alone; label and box replace it.")
        if box is not None:
            return self._scene_of_box(analysis, box, label)
        if detection is None and label is None and len(analysis.prediction.boxes):
            detection = 0
        if detection is not None:
            scene = self.scene(analysis, [detection])
            return scene, float(analysis.prediction.scores[int(detection)])
        label = _closest_class(analysis.found.logits) if label is None else label
        scene = self.scene_of_class(analysis, label)
        return scene, float(analysis.found.logits.softmax(-1)[:, int(label)].max())

    def scene(
        self,
        analysis: Analysis,
        detections: Sequence[int],
        seed: int = 0,
        drise_masks: int = DRISE_MASKS,
    ) -> Scene:
        """What the explainers need to explain some detections, rows of the prediction.

        Of a family without branches, only explainers that see a black box take it.
        Raises InputError for a row that is not there.
        """
        found, detections = analysis.prediction, list(detections)
        for row in detections:
            if row not in range(len(found.boxes)):
                count = len(found.boxes)
                raise InputError(f"detection {row}: this image has {count}, counted from 0.")
        rows = [int(row) for row in detections]
        rois = analysis.found.proposals  # none of SSD
        if len(rois):
            rois = rois[analysis.found.rois[rows]]
        return self._scene(analysis, found.boxes[rows], found.labels[rows], rois, seed, drise_masks)

    @torch.inference_mode(False)
    @torch.no_grad()
    def scene_of_class(self, analysis: Analysis, label: int) -> Scene:
        """The same of a class (1 to C), detected or not: at the proposal that scores highest."""
        detector = cast(Detector, self.require_branches().detector)
        label = self._checked_label(label)
        best = best_proposal(analysis.found.logits, label)
        roi = analysis.found.proposals[best : best + 1]
        boxes = boxes_of_class(detector, analysis.encoding, roi, label).cpu().numpy()
        return self._scene(analysis, boxes, np.array([label]), roi)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _scene_of_box(
        self, analysis: Analysis, box: Sequence[float], label: int | None
    ) -> tuple[Scene, float]:
        """The scene of a box that is taken for a proposal, and the score of the class there."""
        detector = cast(Detector, self.require_branches().detector)
        encoding, size = analysis.encoding, analysis.prediction.size
        try:
            values = [float(value) for value in box]
        except (TypeError, ValueError, OverflowError):
            values = []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            raise InputError("box: give four numbers, x1 y1 x2 y2 in pixels of the photo.")
        clipped = clip_boxes_to_image(torch.tensor([values]), size)
        if not (clipped[:, 2:] - clipped[:, :2] >= 1).all():
            raise InputError(
                f"box {', '.join(f'{value:g}' for value in values)}: less than a pixel of it lies "
                f"in this photo of {size[1]} x {size[0]} pixels; give x1 y1 x2 y2."
            )
        roi = rescaled(clipped.to(encoding.f), size, encoding.images.image_sizes[0])
        logits, _ = detector.roi_heads.classify(encoding.f_cls, [roi], encoding.rivals)
        label = self._checked_label(_closest_class(logits) if label is None else label)
        scene = self._scene(analysis, clipped.numpy(), np.array([label]), roi)
        return scene, float(logits.softmax(-1)[0, label])

    def _checked_label(self, label: int) -> int:
        if label not in range(1, len(self.classes) + 1):  # so that a class's name is refused too
            raise InputError(f"label {label}: choose 1 to {len(self.classes)}.")
        return int(label)

    def _scene(self, analysis: Analysis, *of_detections) -> Scene:
        detector = cast(Detector, self.detector)  # what sees a black box needs no more of it
        return Scene(detector, analysis.encoding, analysis.image, *of_detections)

    def _override(self, name: str, value: MapInput | None, size: tuple[int, int]):
        """The override as `Detector.encode` takes it; `size` is PIL's (width, height)."""
        if value is None:
            return None
        detector = self.detector
        if not (isinstance(detector, Detector) and detector.config.attention):
            raise InputError(f"{name}: this model has no attention maps to replace.")
        if isinstance(value, str) and value in MAP_NAMES:
            if value == "neutral":
                return lambda loc, cls: torch.full_like(loc, detector.form.neutral)
            return lambda loc, cls: loc if value == "localization" else cls
        try:
            array = np.array(value, dtype=np.float32, order="C")  # also of a view, turned or not
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name}: '{value}' is unknown; give a number, an array, or one of "
                f"{', '.join(MAP_NAMES)}."
            ) from error
        if array.ndim > 0 and array.shape != (size[1], size[0]):
            raise InputError(
                f"{name}: shape {array.shape} does not fit the image, (height, width) is "
                f"{(size[1], size[0])}."
            )
        if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):  # NaN is refused too
            raise InputError(
                f"{name}: values from {array.min():g} to {array.max():g}; give values from 0 to 1."
            )
        if array.ndim == 0:
            return lambda loc, cls: torch.full_like(loc, float(array))
        # The encoding keeps this: a map of the photo's size would be larger than the photo.
        pixels = shrunk(torch.from_numpy(array)[None].to(self.device), detector)
        return lambda loc, cls: image_to_map(pixels, detector, loc, beyond="edge")


def load(path: str | Path = "shipped", device: str = "cpu") -> Predictor:
    """A predictor from a checkpoint: a file, or one of the package by its name.

    "shipped" is the one that the app takes: "animals-parts", of six classes, whose classification
    map has a target. "animals" has the paper's form, "twenty" VOC's twenty classes
    (als/weights/README.md).

    Raises:
        InputError: there is no such file, it is not a checkpoint of this project, or there is no
            such device.
    """
    detector, info = load_checkpoint(path)
    file = Path(BY_NAME.get(str(path), path)).absolute()
    # `als train` calls every checkpoint model.safetensors; its folder then tells which.
    name = f"{file.parent.name}/{file.name}" if file.stem in ("model", "best") else file.name
    return Predictor(detector, info, device, source=name)


def _closest_class(logits: Tensor) -> int:
    """Of logits [N, C + 1], the class (1 to C) with the highest softmax score anywhere."""
    if len(logits) == 0:
        return 1
    return int(logits.softmax(-1)[:, 1:].amax(0).argmax()) + 1


def _checked_threshold(value: float | None) -> float | None:
    if value is not None and not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
        raise InputError(f"score threshold {value}: give a number from 0 to 1.")
    return value


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Generator[None]:
    """Write the block's duration to `seconds[name]`."""
    started = time.perf_counter()
    yield
    if torch.cuda.is_initialized():  # a GPU's work is queued, and done later
        torch.cuda.synchronize()
    seconds[name] = time.perf_counter() - started


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files as given, and for a folder every image file right in it, by name.

    Hidden files are left out. Raises InputError for a folder without an image file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        inside = [f for f in inside if f.is_file() and not f.name.startswith(".")]
        if not inside:
            raise InputError(f"{path}: there is no image file in this folder.")
        files += inside
    return files


def predict_many(
    predictor: Predictor,
    paths: Sequence[Path],
    batch_size: int | None = None,
    score_threshold: float | None = None,
    on_error: OnError | None = None,
) -> Iterator[Predicted]:
    """`Predictor.predict` of many files, faster; yields them as they are done.

    A batch holds only photos that the network would pad to one same canvas, so that each gets the
    result that it gets alone, up to rounding. The order is that of the batches. On a CPU several
    batches run at once, each on one core: the layers are too small to be divided among cores.

    Args:
        batch_size: photos that go through the network together, at most; by default 2 on a CPU
            and 8 on a GPU.
        score_threshold: instead of the model's own.
        on_error: is told of each file that cannot be read, which is then left out.

    Raises:
        InputError: without `on_error`, for the first file that cannot be read; a batch size
            below 1, or a threshold outside 0 to 1.
    """
    on_cpu = predictor.device.type == "cpu"
    if batch_size is None:
        batch_size = BATCH_SIZE_CPU if on_cpu else BATCH_SIZE_GPU
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: give at least 1.")
    threshold = _checked_threshold(score_threshold)
    cores = torch.get_num_threads()
    networks = min(cores, NETWORKS) if on_cpu else 1
    idle: SimpleQueue[AnyDetector] = SimpleQueue()
    with predictor.lock:  # else a twin would keep an explainer's hooks
        for _ in range(networks):
            idle.put(_twin(predictor.detector))
    # A GPU works on one batch while others are decoded.
    workers = networks if on_cpu else 1 + DECODERS
    threads = torch.set_num_threads, (max(1, cores // workers),)
    running: deque[Future] = deque()
    try:
        with ThreadPoolExecutor(workers, "network", *threads) as pool:
            for batch in _alike(predictor, paths, batch_size):
                running.append(pool.submit(_predict, predictor, idle, batch, threshold, on_error))
                if len(running) > workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
    finally:
        torch.set_num_threads(cores)  # threads that start later would have the networks' number


def _twin(detector: AnyDetector) -> AnyDetector:
    """The same weights in modules of their own, so that two threads do not meet in a hook."""
    shared = {id(tensor): tensor for tensor in (*detector.parameters(), *detector.buffers())}
    return deepcopy(detector, shared)


def _alike(predictor: Predictor, paths: Sequence[Path], most: int) -> Iterator[list[Path]]:
    """Files in batches of one canvas, as their heads tell it; a broken one is for the decoder."""
    config = predictor.detector.config
    waiting: dict[tuple[int, ...], list[Path]] = defaultdict(list)
    for path in map(Path, paths):
        try:
            size = reduced_size(image_size(path), 2 * config.max_size)
        except InputError:
            size = (1, 1)
        size = stretched_size(size, config.max_size)
        scale = min(config.min_size / min(size), config.max_size / max(size))
        group = waiting[tuple(math.ceil(int(side * scale) / PADDING) for side in size)]
        group.append(path)
        if len(group) == most or sum(map(len, waiting.values())) == 4 * most:
            largest = max(waiting, key=lambda alike: len(waiting[alike]))
            yield waiting.pop(largest)
    yield from waiting.values()


@torch.inference_mode(False)
@torch.no_grad()
def _predict(
    predictor: Predictor,
    idle: SimpleQueue,
    paths: list[Path],
    threshold: float | None,
    on_error: OnError | None,
) -> list[Predicted]:
    """Some files through one of the idle networks together."""
    read, photos, seconds = [], [], {}
    with _timed(seconds, "decode"):
        for path in paths:
            try:
                image = as_rgb(path)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(path, error)
            else:
                photos.append(predictor._photo(image))
                read.append((path, reduced(image, 2 * predictor.detector.config.max_size)))
    if not photos:
        return []
    detector = idle.get()
    try:
        with _timed(seconds, "network"):
            encoding = detector.encode(photos)
            found = detector.detect(encoding, threshold)
    finally:
        idle.put(detector)
    shares = {name: value / len(photos) for name, value in seconds.items()}
    return [
        Predicted(path, image, predictor._prediction(one, encoding, i, shares))
        for i, ((path, image), one) in enumerate(zip(read, found, strict=True))
    ]
