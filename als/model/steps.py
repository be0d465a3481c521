"""From encoding to detections step by step, each step timed: what explaining needs is kept."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from als.errors import InputError
from als.model.detector import Detector
from als.model.interface import AnyDetector


def checked_threshold(detector: AnyDetector, value: float | None) -> float:
    """A score threshold, or the detector's own for None. Raises InputError outside 0 to 1."""
    if value is None:
        return detector.score_threshold
    if not 0 <= value <= 1:
        raise InputError(f"score threshold {value:g}: give a number from 0 to 1.")
    return value


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Write the block's duration to `seconds[name]`."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


@contextmanager
def at_threshold(detector: AnyDetector, value: float | None) -> Iterator[None]:
    """Set the detector's score threshold for the block, and put it back also after an error.

    Raises InputError as `checked_threshold` does.
    """
    before = detector.score_threshold
    detector.score_threshold = checked_threshold(detector, value)
    try:
        yield
    finally:
        detector.score_threshold = before


def detect_in_steps(
    detector: AnyDetector, encoding: Any, seconds: dict[str, float]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The encoding of one image -> (detections, proposals [N, 4], logits [N, C + 1]).

    Detections as `AnyDetector.detect` gives them, proposals in pixels of the resized image. SSD
    has no proposals: N is 0. `seconds` gets the duration of each step by name.
    """
    if not isinstance(detector, Detector):
        with timed(seconds, "detection"):
            found = detector.detect(encoding)[0]
        nothing = encoding.images.tensors.new_zeros(0, 4)
        return found, nothing, nothing.new_zeros(0, len(detector.config.classes) + 1)
    with timed(seconds, "proposals"):
        proposals = detector.propose(encoding)
    with timed(seconds, "classification"):
        logits, vectors = detector.roi_heads.classify(encoding.f_cls, proposals)
    with timed(seconds, "localization"):
        found = detector.locate(encoding, proposals, logits, vectors)[0]
    return found, proposals[0], logits
