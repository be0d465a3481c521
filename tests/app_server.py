"""The app with tiny models, served for tests on a port of its own, from a cache of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import lively_detector

from als.drawing import RULES
from als.inference import Predictor

VALUES = (0.3, "class score", 0.6, "viridis", RULES[1], "gradact")  # of the page's controls


@cache
def tiny_predictor(**options) -> Predictor:
    """A lively detector with three classes; nothing outside the repository is needed."""
    detector = lively_detector(0, **options).float()
    info = {"data": {"train": "blocks"}, "seed": 77, "figures": {"data": "lines", "AP": 0.125}}
    return Predictor(detector, info, source="tiny.safetensors")


@contextmanager
def served(folder: Path, allow_hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of the app with a second model without attention; its cache is in `folder`."""
    from als.ui import build_app, serving

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        app = build_app(tiny_predictor(), tiny_predictor(attention=False))
        options = serving(app, folder, allow_hosts=allow_hosts)
        _, url, _ = app.launch(**options, prevent_thread_lock=True, quiet=True)
        try:
            yield url
        finally:
            app.close()


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A drawn photo of (width, height): coloured blocks that differ with the seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)


class Click:
    """What a click on the page sends."""

    def __init__(self, **data):
        self._data = data


def only_network(monkeypatch, predictor):
    """Counts runs of the trunk and backward passes of a predictor."""
    runs = []
    for method in ("analyse", "explain"):
        original = getattr(predictor, method)

        def counted(*args, _original=original, _method=method, **options):
            runs.append(_method)
            return _original(*args, **options)

        monkeypatch.setattr(predictor, method, counted)
    return runs
