"""What an export of a labelling tool is read as: photographs, objects, what is left out."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from als.data import fields
from als.images import IMAGE_SUFFIXES

MADE = "made from boxes by `als data masks` are left out: they are no truth"
Segmentation = list | dict
"""As in COCO: polygons in pixels, an RLE, or an empty list where there is none."""


class LeftOut(NamedTuple):
    """What is not imported: "photograph", "object", "label file" or "split"; its file, and why."""

    what: str
    file: Path
    why: str


Report = Callable[[LeftOut], None]


@dataclass(frozen=True)
class Labelled:
    """One object. box: x1 y1 x2 y2 in pixels, 0-based and half-open, perhaps over the edge.

    ignored: difficult, or a crowd.
    """

    name: str
    box: tuple[float, ...]
    segmentation: Segmentation = field(default_factory=list)
    ignored: bool = False


@dataclass(frozen=True)
class LabelledPhoto:
    """A photograph as an export describes it.

    split: "" where the export has none. size: (height, width) as the export says, None without.
    void: RLE of pixels that are neither object nor background.
    """

    path: Path
    split: str
    objects: list[Labelled]
    size: tuple[int, int] | None = None
    void: dict | None = None


@dataclass
class Export:
    """An export that was read. kind: for people. classes: in its order, once. notes: sentences."""

    kind: str
    classes: list[str]
    photos: list[LabelledPhoto] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def images_in(paths: Iterable[Path]) -> list[Path]:
    """The image files among paths, in order."""
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


def finite(values: Iterable[Any], name: str = "a value") -> list[float]:
    """Finite numbers, or the text of such. Raises ValueError that calls one `name`."""
    return [fields.number(value, name) for value in values]


def bounds(polygons: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """x1 y1 x2 y2 around polygons, each x y x y ... in pixels."""
    points = [value for polygon in polygons for value in polygon]
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def find_image(name: str, folders: list[Path]) -> Path:
    """A file by as much of its name's end as is there; names may be of another machine.

    Raises ValueError when there is none.
    """
    for written in dict.fromkeys((name, unquote(name))):
        parts = [p for p in re.split(r"[\\/]", written) if p not in ("", ".", "..")]
        for start in range(len(parts)):
            for folder in folders:
                path = folder.joinpath(*parts[start:])
                if os.path.isfile(path):  # also of a name that no file can have
                    return path
    raise ValueError("there is no such image")
