"""Photographs that come with an installed package: examples that need no download."""

import importlib.util
from pathlib import Path

NAMES = ("chelsea.png", "astronaut.png", "camera.png", "coffee.png", "rocket.jpg")


def package_photographs() -> list[Path]:
    """Files of scikit-image: a cat, two people, and two scenes without an animal.

    Found without importing the package, which takes seconds; only those that are installed.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        return []
    folder = Path(package.origin).parent / "data"
    return [folder / name for name in NAMES if (folder / name).is_file()]
