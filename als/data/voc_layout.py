"""Reads data sets into plain records: the PASCAL VOC layout (Everingham et al. 2010) here.

`load_records` is the one door for every layout; COCO's it hands to `als.data.coco_layout`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from als.classes import VOC_CLASSES
from als.data import coco_layout
from als.data.masks import find_masks
from als.data.record import Problem, Record, box_problem
from als.errors import InputError
from als.images import image_size


@dataclass(frozen=True)
class Annotation:
    """What an XML file says, of all classes. Boxes as in `Record`, not yet held to the image.

    size is None when the file gives none.
    """

    size: tuple[int, int] | None
    names: tuple[str, ...]
    boxes: np.ndarray
    difficult: np.ndarray


def load_records(
    spec: str,
    root: Path,
    classes: Sequence[str],
    on_error: Callable[[Problem], None] | None = None,
) -> list[Record]:
    """Read the images and annotations of one or several splits, in the order of the files.

    spec: splits joined by "+", each FOLDER:SPLIT, as "VOC2007:trainval + VOC2012:trainval" or
        "coco2017:val2017".
    root: the folder that holds those folders. One that holds annotations/instances_SPLIT.json is
        read in COCO's layout, see `als.data.coco_layout`. Any other needs VOC's: Annotations/,
        JPEGImages/ and ImageSets/Main/SPLIT.txt; SegmentationClass/, SegmentationObject/ and SBD/
        are used for masks where they are. A file classes.txt (a name a line) says what the values
        in the class masks mean; without it they are VOC's.
    classes: what to detect; objects of the data set's other classes are left out. Images without
        any object of `classes` are kept, since an evaluation counts false detections on them too.
    on_error: called with every broken file (no such image, XML that does not parse, a class that
        neither the data set nor `classes` has, box outside the image or of no area, ...), and the
        image is left out. Without it all files are read and then one InputError tells how many
        are broken and what is wrong with the first.

    Raises InputError also for a malformed spec, a missing folder or split, and when no image has
    an object of `classes`.
    """
    classes = _checked_classes(classes)
    problems: list[Problem] = []
    report = on_error or problems.append
    records: dict[str, Record] = {}
    seen: set[str] = set()
    for folder, split in _parse_spec(spec, Path(root)):
        is_coco = coco_layout.is_layout(folder, split)
        listing = coco_layout.annotation_file(folder, split) if is_coco else _listing(folder, split)
        read = coco_layout.read_records if is_coco else read_records
        for record, names in read(folder, split, classes, report):
            if record.image_id in records:
                told = f"lists {record.image_id}, which '{spec}' already holds"
                report(Problem(listing, told))
                continue
            records[record.image_id] = record
            seen.update(names)
    if problems:
        raise InputError(
            f"{problems[0]} It is one of {len(problems)} broken files in '{spec}'; "
            "`als data check` lists them all."
        )
    if not any(len(record.labels) for record in records.values()):
        raise InputError(
            f"'{spec}' below {root} holds no object of {', '.join(classes)}; "
            f"its classes are {', '.join(sorted(seen)) or 'none'}."
        )
    return list(records.values())


def read_records(
    folder: Path, split: str, classes: Sequence[str], report: Callable[[Problem], None]
) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """Each image of a split in the VOC layout, with the names of all objects in its XML.

    `report` is told each image that cannot be used. Raises InputError as `read_split` does.
    """
    table = class_names(folder)
    for image_id in read_split(folder, split):
        try:
            yield _read_record(folder, image_id, tuple(classes), table)
        except Problem as error:
            report(error)


def class_names(folder: Path) -> tuple[str, ...]:
    """The classes of a data set: those in its classes.txt, a line each, or VOC's without one."""
    path = folder / "classes.txt"
    return tuple(_lines(path)) if path.is_file() else VOC_CLASSES


def read_split(folder: Path, split: str) -> list[str]:
    """The image ids in FOLDER/ImageSets/Main/SPLIT.txt (the first column of it).

    Raises InputError when the folder or the file is missing, or the file is empty.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; is the data root right?")
    path = _listing(folder, split)
    if not path.is_file():
        splits = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise InputError(f"{path}: there is no such split file; the splits here are: {splits}.")
    ids = [line.split()[0] for line in _lines(path)]
    if not ids:
        raise InputError(f"{path}: the split lists no image.")
    return ids


def _lines(path: Path) -> list[str]:
    """The lines of a text file, without blank ones. Raises InputError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); save it as UTF-8 text.") from error
    return [line.strip() for line in lines if line.strip()]


def read_annotation(path: Path) -> Annotation:
    """Read one VOC XML file. VOC's 1-based inclusive corners become 0-based half-open ones.

    Raises Problem when the file is missing, does not parse or lacks a needed element.
    """
    try:
        tree = ET.parse(path).getroot()
        size = tree.find("size")
        objects = [_read_object(element) for element in tree.iterfind("object")]
        height, width = (0, 0) if size is None else (int(size.find(k).text) for k in _SIZE_KEYS)
    except FileNotFoundError as error:
        raise Problem(path, "there is no such annotation") from error
    except (OSError, ET.ParseError, AttributeError, TypeError, ValueError, LookupError) as error:
        raise Problem(path, f"the XML cannot be read ({error})") from error
    return Annotation(
        size=(height, width) if height > 0 and width > 0 else None,
        names=tuple(name for name, _, _ in objects),
        boxes=np.array([box for _, box, _ in objects], dtype=np.float32).reshape(-1, 4),
        difficult=np.array([difficult for _, _, difficult in objects], dtype=np.bool_),
    )


_SIZE_KEYS = ("height", "width")


def _read_object(element: ET.Element) -> tuple[str, list[float], bool]:
    name = element.findtext("name")
    corners = element.find("bndbox")  # of the object itself; VOC's body parts have boxes below it
    if not name or corners is None:
        raise ValueError("an object without a name or a bndbox")
    x1, y1, x2, y2 = (float(corners.find(key).text) for key in ("xmin", "ymin", "xmax", "ymax"))
    return name.strip(), [x1 - 1, y1 - 1, x2, y2], int(element.findtext("difficult") or 0) == 1


def _read_record(
    folder: Path, image_id: str, classes: tuple[str, ...], table: tuple[str, ...]
) -> tuple[Record, tuple[str, ...]]:
    """The record of one image and the names of all objects in its XML."""
    path = folder / "JPEGImages" / f"{image_id}.jpg"
    xml = folder / "Annotations" / f"{image_id}.xml"
    if not path.is_file():
        raise Problem(path, "there is no such image")
    annotation = read_annotation(xml)
    if unknown := sorted(set(annotation.names) - {*table, *classes}):
        told = f"class '{unknown[0]}' is not known; correct it, or name it in classes.txt"
        raise Problem(xml, told)
    try:
        size = annotation.size or image_size(path)
    except InputError as error:
        raise Problem.of(path, error) from error
    kept = [index for index, name in enumerate(annotation.names) if name in classes]
    boxes = annotation.boxes[kept]
    for box in boxes:
        if problem := box_problem(box, size):
            raise Problem(xml, problem)
    height, width = size
    record = Record(
        image_id=image_id,
        path=path,
        size=size,
        boxes=boxes.clip(0, np.array([width, height, width, height], dtype=np.float32)),
        labels=np.array([classes.index(annotation.names[i]) + 1 for i in kept], dtype=np.int64),
        difficult=annotation.difficult[kept],
        mask=next(iter(find_masks(folder, image_id, table, annotation.names)), None),
    )
    return record, annotation.names


def _listing(folder: Path, split: str) -> Path:
    return folder / "ImageSets" / "Main" / f"{split}.txt"


def _parse_spec(spec: str, root: Path) -> list[tuple[Path, str]]:
    pairs = [re.fullmatch(r"([\w.-]+):([\w.-]+)", part.strip()) for part in spec.split("+")]
    if not all(pairs):
        raise InputError(
            f"'{spec}' names no data; write FOLDER:SPLIT, joined by + where there are several, "
            "as in 'VOC2007:trainval + VOC2012:trainval'."
        )
    return [(root / pair[1], pair[2]) for pair in pairs]


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or not names or len(set(names)) < len(names) or len(names) > 254:
        raise InputError(
            f"classes {classes!r}: give 1 to 254 different class names as a list; 255 is void."
        )
    return names
