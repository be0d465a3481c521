"""Attentive layer separation: object detection that shows where it looks.

    import als
    detector = als.load()                      # the checkpoint that ships with the package
    prediction = detector.predict("photo.jpg")  # boxes, names, scores and both maps

`import als` is quick: what a name needs (torch, torchvision) is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from als import explain
    from als.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
    from als.errors import InputError
    from als.evaluation.evaluate import evaluate
    from als.explain import Target
    from als.inference import Analysis, Explanation, Prediction, Predictor, load
    from als.model import Detector
    from als.training.train import train
    from als.views.explorer import explore

__version__ = "0.2.0"

__all__ = [
    "Analysis",
    "DataConfig",
    "Detector",
    "Explanation",
    "InputError",
    "ModelConfig",
    "OptimizerConfig",
    "Prediction",
    "Predictor",
    "Target",
    "TrainConfig",
    "evaluate",
    "explain",
    "explore",
    "load",
    "train",
]


_HOMES = {
    "als.config": ("DataConfig", "ModelConfig", "OptimizerConfig", "TrainConfig"),
    "als.errors": ("InputError",),
    "als.evaluation.evaluate": ("evaluate",),
    "als.explain": ("Target",),
    "als.inference": ("Analysis", "Explanation", "Prediction", "Predictor", "load"),
    "als.model": ("Detector",),
    "als.training.train": ("train",),
    "als.views.explorer": ("explore",),
}


def __getattr__(name: str):
    if name == "explain":  # a subpackage; `import als` alone does not import it
        return import_module("als.explain")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'als' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
