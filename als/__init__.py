"""Attentive layer separation: object detection that shows where it looks.

    import als
    detector = als.load()                      # the checkpoint that ships with the package
    prediction = detector.predict("photo.jpg")  # boxes, names, scores and both maps

`import als` is quick: what a name needs (torch, torchvision) is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from als.config import ModelConfig, TrainConfig
    from als.errors import InputError
    from als.inference import Analysis, Prediction, Predictor, load
    from als.model import Detector

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "Detector",
    "InputError",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "TrainConfig",
    "load",
]

_HOMES = {
    "Analysis": "als.inference",
    "Detector": "als.model",
    "InputError": "als.errors",
    "ModelConfig": "als.config",
    "Prediction": "als.inference",
    "Predictor": "als.inference",
    "TrainConfig": "als.config",
    "load": "als.inference",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'als' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
