"""What the page remembers between two clicks: analysed photos, one set for each browser tab.

Gradio's own state copies its value on every event; here the values stay where they are, in a store
of bounded size that forgets the session that was used longest ago.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock

import numpy as np
from PIL import Image

from als.drawing import sampled, to_display
from als.errors import InputError
from als.inference import Analysis, Explanation, Prediction, Predictor

MAX_BYTES = 1_000_000_000
MAX_EXPLANATIONS = 12
MAP_SIDE = 1024  # pixels of the longest side of a map that is kept
# The class score is taken before the softmax, as Grad-CAM is defined: a sure detection's softmax is
# flat, and its gradient says little.
BOX_KINDS = {
    "class score": "logit",
    "rightward shift (dx)": "dx",
    "downward shift (dy)": "dy",
    "width (dw)": "dw",
    "height (dh)": "dh",
}


@dataclass(frozen=True)
class Choice:
    """What is explained: a detection (row of the prediction), or else the best RoI of a class."""

    detection: int | None = None
    label: int | None = None


@dataclass
class Study:
    """One photo as one model sees it, with the explanations asked for so far.

    Maps are kept at most 1,024 pixels long, boxes are in pixels of the photo. Nothing here runs the
    network's trunk again; an explanation is a backward pass from one RoI.
    """

    predictor: Predictor
    analysis: Analysis
    name: str
    choice: Choice = Choice()
    explained: OrderedDict = field(default_factory=OrderedDict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def prediction(self) -> Prediction:
        return self.analysis.prediction

    @cached_property
    def display(self) -> Image.Image:
        """The photo at the size of the page's pictures."""
        return to_display(self.analysis.image)

    def class_map(self) -> Explanation:
        """Grad-CAM of the chosen proposal's class score."""
        return self._explained("Grad-CAM", BOX_KINDS["class score"], "gradcam")

    def proposal_map(self, kind: str) -> Explanation:
        """Gradient x activation of the chosen proposal's class score or box (see BOX_KINDS)."""
        return self._explained("gradient x activation", kind, "gradact")

    def _explained(self, step: str, kind: str, method: str) -> Explanation:
        key = (self.choice, kind, method)
        if key not in self.explained:
            started = time.perf_counter()
            told = self._explain(kind, method, self._light)
            self.explained[key] = replace(told, box=told.box / self._scale)
            self.seconds[step] = time.perf_counter() - started
            if len(self.explained) > MAX_EXPLANATIONS:
                self.explained.popitem(last=False)
        self.explained.move_to_end(key)
        return self.explained[key]

    def explain_whole(self, kind: str, method: str) -> Explanation:
        """An explanation with its map at the photo's size, which is not kept."""
        return self._explain(kind, method, self.analysis)

    def _explain(self, kind: str, method: str, analysis: Analysis) -> Explanation:
        choice = self.choice
        return self.predictor.explain(analysis, choice.detection, choice.label, method, kind)

    @cached_property
    def _scale(self) -> np.ndarray:
        """Pixels of a kept map for each of the photo, for x1 y1 x2 y2."""
        size = self.prediction.size
        height, width = light_size(size)
        return np.tile(np.array([width / size[1], height / size[0]], np.float32), 2)

    @cached_property
    def _light(self) -> Analysis:
        """The analysis as of a photo of the size of the kept maps."""
        found, size = self.prediction, light_size(self.prediction.size)
        return replace(
            self.analysis,
            prediction=replace(found, boxes=found.boxes * self._scale, size=size),
            encoding=replace(self.analysis.encoding, original_sizes=[size]),
        )

    def steps(self) -> dict[str, float]:
        """Seconds of every step so far, by name."""
        return {**self.prediction.seconds, **self.seconds}

    def bytes(self) -> int:
        """About what the photo, its maps and its features take in memory."""
        (height, width), encoding = self.prediction.size, self.analysis.encoding
        found = self.prediction
        maps = [found.localization_map, found.classification_map]
        # A copy in one step: the session that is measured may be explaining at this moment.
        maps += [told.map for told in list(self.explained.values())]
        arrays = [map for map in maps if map is not None]
        arrays += [encoding.images.tensors, encoding.f, encoding.f_loc, encoding.f_cls]
        return 3 * height * width + sum(array.nbytes for array in arrays)


@dataclass
class Session:
    """One browser tab: the photo, the second model and its view of the photo, the last 'what if'.

    `lock` holds while one event changes this session, so that two never mix.
    """

    photo: Study | None = None
    second: Predictor | None = None
    compared: Study | None = None
    changed: Study | None = None
    on_canvas: Study | None = None
    painting: bool = False  # the third tab is open
    refused: bool = False  # the last photo could not be read
    lock: Lock = field(default_factory=Lock)

    def open(self, study: Study | None) -> None:
        """Take a new photo (or none) and forget what was made of the last one."""
        self.photo, self.compared, self.changed, self.on_canvas = study, None, None, None

    def bytes(self) -> int:
        studies = (self.photo, self.compared, self.changed)
        taken = sum(study.bytes() for study in studies if study is not None)
        second = self.second  # another thread may drop it meanwhile
        if second is not None:
            taken += sum(p.nbytes for p in second.detector.parameters())
        return taken


class SessionStore:
    """Sessions by Gradio's session hash, least recently used first out."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_sessions: int = 64):
        self.max_bytes, self.max_sessions = max_bytes, max_sessions
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.lock = Lock()

    def get(self, key: str | None) -> Session:
        """The session of a tab, a new one where there is none; makes room for it."""
        with self.lock:
            session = self.sessions.setdefault(key or "", Session())
            self.sessions.move_to_end(key or "")
            while len(self.sessions) > 1 and self._too_much():
                self.sessions.popitem(last=False)
            return session

    def drop(self, key: str | None) -> None:
        """Forget a tab that was closed."""
        with self.lock:
            self.sessions.pop(key or "", None)

    def _too_much(self) -> bool:
        total = sum(session.bytes() for session in self.sessions.values())
        return total > self.max_bytes or len(self.sessions) > self.max_sessions


def study_photo(predictor: Predictor, photo, name: str, *maps) -> Study:
    """Run the network on a photo once and choose its first detection.

    Args:
        photo: whatever `Predictor.analyse` takes. maps: that replace the network's own.

    Raises:
        InputError: the photo cannot be read.
    """
    analysis = predictor.analyse(photo, *maps)
    found = analysis.prediction
    found = replace(
        found,
        localization_map=_sampled(found.localization_map),
        classification_map=_sampled(found.classification_map),
    )
    study = Study(predictor, replace(analysis, prediction=found), name)
    study.choice = first_choice(study)
    return study


def light_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the maps that are kept of a photo of `size`: twelve whole maps of a large
    one would be a gigabyte, and they are smooth."""
    scale = min(1.0, MAP_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _sampled(map: np.ndarray | None) -> np.ndarray | None:
    return None if map is None else sampled(map, light_size(map.shape))


def first_choice(study: Study) -> Choice:
    """The best detection; where nothing was found, the class that comes closest to one."""
    if len(study.prediction.boxes):
        return Choice(detection=0)
    logits = study.analysis.found.logits
    if len(logits) == 0:
        raise InputError(f"{study.name}: the model proposes no region in this photo.")
    return Choice(label=int(logits.softmax(-1)[:, 1:].amax(0).argmax()) + 1)


def detection_at(study: Study, x: float, y: float, threshold: float) -> int | None:
    """Row of the smallest shown detection whose box holds a point of the photo.

    x, y: 0 to 1, from the photo's left and upper edge.
    """
    found = study.prediction
    height, width = found.size
    left, top, right, bottom = found.boxes.T if len(found.boxes) else np.zeros((4, 0))
    holds = (left <= x * width) & (x * width < right) & (top <= y * height) & (y * height < bottom)
    holds &= found.scores >= threshold
    areas = np.where(holds, (right - left) * (bottom - top), np.inf)
    return int(areas.argmin()) if holds.any() else None
