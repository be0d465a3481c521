"""The app with tiny models, served for tests on a port of its own, from a cache of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import lively_detector

from als.predictor import Predictor


@cache
def tiny_predictor(attention: bool = True) -> Predictor:
    """A lively detector with three classes; nothing outside the repository is needed."""
    detector = lively_detector(0, attention=attention).float()
    return Predictor(
        detector, {"data": {"train": "random"}, "AP50": 12.5}, source="tiny.safetensors"
    )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the app with a second model without attention; its cache is in `folder`."""
    from als.ui import build_app, serving

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        app = build_app(tiny_predictor(), tiny_predictor(attention=False))
        _, url, _ = app.launch(**serving(), prevent_thread_lock=True, quiet=True)
        try:
            yield url
        finally:
            app.close()


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A drawn photo of (width, height): coloured blocks that differ with the seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)
