"""The images of a folder by the names that annotation files give them."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from als.data.record import Problem
from als.images import IMAGE_SUFFIXES


class ImageFolder:
    """A folder of images, each of its subfolders listed once, when it is first asked for.

    A listing is much faster than a question for each file. Names are relative to the folder, with
    forward slashes. Nothing outside the folder is ever looked at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, set[str]] = {}
        self._by_stem: dict[str, dict[str, list[str]]] = {}

    def named(self, name: str) -> Path | None:
        """The file of exactly this name."""
        parent, base = os.path.split(name)
        return self.folder / name if base in self._listed(parent) else None

    def stems(self, stem: str) -> list[Path]:
        """The images whose name without its ending is `stem`, by name; endings in any case."""
        parent, base = os.path.split(stem)
        self._listed(parent)
        return [self.folder / parent / name for name in self._by_stem[parent].get(base, ())]

    def one(self, stem: str) -> Path:
        """The one image of a stem. Raises Problem where there is none, or where two fit."""
        found = self.stems(stem)
        if not found:
            raise Problem(
                self.folder / f"{stem}.jpg",
                "there is no such image, nor of another ending; copy it there or correct the list",
            )
        if len(found) > 1:
            names = " and ".join(path.name for path in found[:2])
            raise Problem(self.folder / stem, f"two images fit, {names}; remove or rename one")
        return found[0]

    def has_folder(self, name: str) -> bool:
        """Whether a subfolder is there and holds anything."""
        return bool(self._listed(name))

    def count(self) -> int:
        """Images in the folder and all its subfolders."""
        return sum(path.suffix.lower() in IMAGE_SUFFIXES for path in files_below(self.folder))

    def _listed(self, parent: str) -> set[str]:
        if parent not in self._names:
            try:
                names = sorted(os.listdir(self.folder / parent))
            except OSError:  # no such folder, or a name that no folder can have
                names = []
            stems: dict[str, list[str]] = defaultdict(list)
            for stem, ending in map(os.path.splitext, names):
                if ending.lower() in IMAGE_SUFFIXES:
                    stems[stem].append(stem + ending)
            self._names[parent], self._by_stem[parent] = set(names), stems
        return self._names[parent]


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, also of those that are links, without a circle."""
    for place, folders, names in os.walk(folder, followlinks=True):
        above = Path(place).resolve()
        folders[:] = [f for f in folders if not above.is_relative_to(Path(place, f).resolve())]
        yield from (Path(place, name) for name in names)


def inside(name: str) -> str | None:
    """A relative name with forward slashes; None for one that leads out of its folder.

    Backslashes, as Windows writes them, part folders too.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    leads_out = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", str(path))
    return None if leads_out or not path.parts else str(path)
