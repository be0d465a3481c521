"""Reads the text files of YOLO, as Roboflow, Ultralytics, CVAT and Label Studio export them."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from als.data.image_folder import files_below
from als.data.labelled import (
    Export,
    Labelled,
    LabelledPhoto,
    LeftOut,
    Report,
    bounds,
    finite,
    images_in,
)
from als.data.record import TOLERANCE, Problem
from als.data.voc_layout import lines
from als.errors import InputError
from als.images import image_size


def yolo_config(source: Path) -> dict | None:
    """The data.yaml of a folder as text values ("yes" stays a word), with its file as "file"."""
    for file in sorted(source.glob("*.y*ml"), key=lambda file: (file.stem != "data", file)):
        try:
            config = _loaded(file)
        except (OSError, yaml.YAMLError):  # `why_not` says it where nothing else is there
            continue
        if isinstance(config, dict) and config.get("names"):
            return {**config, "file": file}
    return None


def _loaded(file: Path) -> Any:
    return yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)


def why_not(file: Path) -> str:
    """Why a data.yaml is none of YOLO's."""
    try:
        _loaded(file)
    except (OSError, yaml.YAMLError) as error:
        return f"it cannot be read ({' '.join(str(error).split())})"
    return "it has no 'names'"


def read_yolo(source: Path, kind: str, report: Report) -> Export:
    """As `als.data.exports.read_export`, of a folder of this kind."""
    config = yolo_config(source)
    if config is None:
        names, listed = lines(source / "classes.txt"), source / "classes.txt"
        if len(names) < len(listed.read_text(encoding="utf-8-sig").rstrip().splitlines()):
            raise InputError(
                f"{listed}: a line is blank, but a class's number is its line; mend it."
            )
        images = {"": images_in(files_below(source / "images"))}
        points = 0
    else:
        names, file = _yolo_names(config), config["file"]
        try:
            images = _yolo_images(config, report)
            points = math.prod(map(int, config.get("kpt_shape") or ["0"]))
        except (AttributeError, TypeError, ValueError) as error:
            told = "its paths and kpt_shape cannot be read"
            raise InputError(f"{file}: {told} ({error}); mend it.") from error
    export = Export(kind, names)
    if points:
        export.notes.append("keypoints are left out: a data set here has none")
    blank = 0
    of_file = defaultdict(set)
    for path in (path for paths in images.values() for path in paths):
        of_file[_label_file(path)].add(path)
    for split, paths in images.items():
        for path in paths:
            file = _label_file(path)
            try:
                if file.is_file() and len(of_file[file]) > 1:
                    both = " and ".join(sorted(one.name for one in of_file[file]))
                    raise ValueError(f"it is that of {both}; rename one of them")
                told = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []
                frame = image_size(path)
                objects = [
                    _yolo_object(line.split(), names, frame, points, f"line {place}")
                    for place, line in enumerate(told, start=1)
                    if line.strip()
                ]
            except InputError as error:
                report(LeftOut("photograph", path, Problem.of(path, error).problem))
            except (ValueError, OSError) as error:
                report(LeftOut("photograph", path, f"{file.name}: {error}"))
            else:
                blank += not file.is_file()
                export.photos.append(LabelledPhoto(path, split, objects))
    if blank:
        export.notes.append(f"{blank} photographs have no label file: they show no object")
    for folder in sorted({file.parent for file in of_file}):
        for file in sorted(folder.glob("*.txt")):
            if file not in of_file and file.name != "classes.txt":
                report(LeftOut("label file", file, "there is no photograph for it"))
    return export


def _yolo_names(config: dict) -> list[str]:
    names, file = config["names"], config["file"]
    try:
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
            if sorted(map(int, config["names"])) != list(range(len(names))):
                raise ValueError("its numbers are not 0, 1, 2, ...")
        if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
            raise ValueError("they are no list of names")
    except ValueError as error:
        raise InputError(f"{file}: 'names' cannot be read ({error}); mend it.") from error
    return [name.strip() for name in names]


def _yolo_images(config: dict, report: Report) -> dict[str, list[Path]]:
    """The images of each split. Roboflow's paths begin with ../, but mean the folder itself."""
    file, found = config["file"], {}
    roots = [file.parent / _slashed(config.get("path", ".")), file.parent]
    for split in ("train", "val", "valid", "test"):
        entries = config.get(split) or []
        for entry in map(_slashed, [entries] if isinstance(entries, str) else entries):
            inside = re.sub(r"^(\.\./)+", "", entry)
            places = [root / name for root in roots for name in (inside, entry)]
            place = next(filter(os.path.exists, places), None)
            if place is None:
                report(LeftOut("split", file, f"its '{split}', {entry}, is not there"))
                continue
            of_folder = place.is_dir()
            paths = images_in(files_below(place)) if of_folder else _listed(place, roots, report)
            found.setdefault(split, []).extend(paths)
    return found


def _slashed(path: str) -> str:
    """As Windows writes it, too."""
    return path.replace("\\", "/")


def _listed(file: Path, roots: list[Path], report: Report) -> Iterator[Path]:
    """The images that a text file lists, a path a line."""
    for line in map(_slashed, lines(file)):
        inside = line.removeprefix("./").removeprefix("data/")  # CVAT's lines begin with data/
        places = [r / n for r in (file.parent, *roots) for n in (line, inside)]
        path = next(filter(os.path.isfile, places), None)
        if path is None:
            report(LeftOut("photograph", file, f"{line}: there is no such image"))
        else:
            yield path


def _label_file(image: Path) -> Path:
    """The text file of an image: in labels/ beside the last images/ of its path, or beside it."""
    parts = list(image.with_suffix(".txt").parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    found, beside = Path(*parts), image.with_suffix(".txt")
    return beside if beside.is_file() and not found.is_file() else found


def _yolo_object(
    values: list[str], names: list[str], size: tuple[int, int], points: int, told: str
) -> Labelled:
    """Raises ValueError that says what is wrong with the line."""
    try:
        index, *numbers = finite(values)
    except ValueError as error:
        raise ValueError(f"{told}: {error}") from error
    if not index.is_integer() or not 0 <= index < len(names):
        raise ValueError(f"{told}: class {values[0]} is none of the {len(names)} names, from 0")
    is_box = len(numbers) == 4 + points
    if not is_box and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{told}: {len(values)} values are neither a box nor a polygon")
    sides = (size[1], size[0]) * (len(numbers) // 2)
    numbers = numbers[:4] if is_box else numbers
    pixels = [number * side for number, side in zip(numbers, sides, strict=False)]
    if any(not -TOLERANCE <= p <= s + TOLERANCE for p, s in zip(pixels, sides, strict=False)):
        raise ValueError(f"{told}: a coordinate lies outside 0 to 1; are they pixels?")
    if is_box:
        x, y, width, height = pixels
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Labelled(names[int(index)], box)
    return Labelled(names[int(index)], bounds([pixels]), [pixels])
