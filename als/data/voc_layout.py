"""The PASCAL VOC layout (Everingham et al. 2010), read into plain records."""

import os
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from als.classes import VOC_CLASSES
from als.data.fields import mark, number, shown, size
from als.data.image_folder import ImageFolder, files_below, inside
from als.data.masks import find_masks, shown_classes
from als.data.record import MaskSource, Problem, Record, box_problem, record_of, told_without_area
from als.errors import InputError
from als.images import image_size

CLASSES_FILE = "classes.txt"
FLAGS = ("-1", "0", "1")  # in VOC's lists of one class: absent, only difficult ones, present
BACKGROUND = ("background", "_background_", "__background__")  # value 0 of a mask, no class
UNLABELLED = "__ignore__"  # labelme's value -1, the line before
MASKS_TRIED = 10  # of a split, whether their values fit the class list


class VocObject(NamedTuple):
    """An object of an XML file. corners: as in `Record`, not yet held to the image."""

    name: str
    corners: list[float]
    difficult: bool
    element: ET.Element


class Annotation(NamedTuple):
    """What an XML file says, of all classes; size is None when it gives none."""

    root: ET.Element
    size: tuple[int, int] | None
    objects: list[VocObject]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of its objects."""
        return tuple(one.name for one in self.objects)


def image_folder(folder: Path) -> ImageFolder:
    """The images of a data set."""
    return ImageFolder(folder / "JPEGImages")


def data_folder(record: Record) -> Path:
    """The folder that a record was read from in this layout."""
    return record.path.parents[record.image_id.count("/") + 1]


def image_numbers(folder: Path) -> dict[str, int]:
    """Image id -> its place among all annotation files by name, from 1: the same in every split."""
    annotated = folder / "Annotations"
    files = sorted(p.relative_to(annotated) for p in files_below(annotated) if p.suffix == ".xml")
    return {path.with_suffix("").as_posix(): number for number, path in enumerate(files, start=1)}


def read_records(
    folder: Path, split: str, classes: Sequence[str], report: Callable[[Problem], None]
) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """Each image of a split in the VOC layout, with the names of all objects in its XML.

    `report` is told each image that cannot be used. Raises InputError as `read_split`,
    `class_names` and `read_images` do.
    """
    images = image_folder(folder)
    return read_images(folder, read_split(folder, split, images), classes, report, images)


def read_images(
    folder: Path,
    ids: Iterable[str],
    classes: Sequence[str],
    report: Callable[[Problem], None],
    images: ImageFolder,
) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """As `read_records`, of the images of these ids.

    Warns of objects that were left out because their box has no area. Raises InputError at the
    end when the first masks show that their values count other classes than the class list does.
    """
    table = class_names(folder)
    without_area: list[str] = []
    tried: list[tuple[MaskSource, set[str]]] = []
    for image_id in ids:
        try:
            record, annotation, left_out = _read_record(
                folder, image_id, tuple(classes), table, images
            )
        except Problem as error:
            report(error)
            continue
        without_area += left_out
        counted = {one.name for one in annotation.objects if not one.difficult}
        if record.mask and record.mask.names == table and counted and len(tried) < MASKS_TRIED:
            tried.append((record.mask, counted))
        yield record, annotation.names
    if without_area:
        warnings.warn(told_without_area(folder / "Annotations", without_area), stacklevel=2)
    _refuse_unfit_masks(folder, tried)


def class_names(folder: Path) -> tuple[str, ...]:
    """The classes of a data set: those in its classes.txt, a line each, or VOC's without one.

    A first line that names the background is passed over: the classes count from 1. Raises
    InputError when the file cannot be read, names no class or one twice, or the background below.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return VOC_CLASSES
    names = lines(path)
    for first in ((UNLABELLED,), BACKGROUND):
        if names and names[0].lower() in first:
            names = names[1:]
    if not names:
        raise InputError(f"{path}: it names no class; write a class a line, or remove the file.")
    if low := [name for name in names if name.lower() in (*BACKGROUND, UNLABELLED)]:
        raise InputError(
            f"{path}: '{low[0]}' is no class and stands below one; the background is value 0 of "
            "the masks and belongs into the first line or nowhere."
        )
    if len(set(names)) < len(names):
        name = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: it names '{name}' twice; the line of a class is its value.")
    return tuple(names)


def splits(folder: Path) -> list[str]:
    """The splits that a folder lists, sorted."""
    return sorted(file.stem for file in listing_file(folder, "any").parent.glob("*.txt"))


def read_split(folder: Path, split: str, images: ImageFolder) -> list[str]:
    """The image ids in FOLDER/ImageSets/Main/SPLIT.txt, each once.

    A line is an id, which may hold spaces and subfolders, or an id and a flag of VOC's, -1, 0 or
    1. Warns of ids that are listed twice. Raises InputError when the folder or the file is
    missing, the file is empty, or a line can be read in two ways.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; is the data root right?")
    path = listing_file(folder, split)
    if not path.is_file():
        there = ", ".join(splits(folder)) or "none"
        raise InputError(f"{path}: there is no such split file; the splits here are: {there}.")
    ids = [_id_of(line, path, images) for line in lines(path)]
    if not ids:
        raise InputError(f"{path}: the split lists no image.")
    once = list(dict.fromkeys(ids))
    if doubled := len(ids) - len(once):
        name = Counter(ids).most_common(1)[0][0]
        told = f"{doubled} lines list an image again ({name}); each counts once"
        warnings.warn(f"{path}: {told}.", stacklevel=2)
    return once


def _id_of(line: str, path: Path, images: ImageFolder) -> str:
    whole = inside(line)
    name, *flag = line.rsplit(maxsplit=1)
    if flag and flag[0] in FLAGS:
        bare = inside(name)
        is_image = whole is not None and bool(images.stems(whole))
        if is_image and bare is not None and images.stems(bare):
            raise InputError(
                f"{path}: the line '{line}' may be the image '{line}', or '{name}' with a flag; "
                "rename one of the two."
            )
        if not is_image:
            whole = bare
    if whole is None:
        return line  # `_read_record` says that it leads out of the folder
    if not images.stems(whole) and images.named(whole):  # listed with its ending
        return os.path.splitext(whole)[0]
    return whole


def lines(path: Path) -> list[str]:
    """The lines of a text file, without blank ones. Raises InputError if it cannot be read."""
    try:
        found = path.read_text(encoding="utf-8-sig").splitlines()
        if any("\0" in line for line in found):  # which no file's name can hold
            raise ValueError("a null character")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); save it as UTF-8 text.") from error
    return [line.strip() for line in found if line.strip()]


def read_annotation(path: Path) -> Annotation:
    """Read one VOC XML file. VOC's 1-based inclusive corners become 0-based half-open ones.

    Raises Problem when the file is missing, does not parse, or an element is lacking or cannot be
    read as what it should be.
    """
    try:
        tree = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise Problem(path, "there is no such annotation") from error
    except (OSError, ET.ParseError, ValueError, LookupError) as error:
        raise Problem(path, f"the XML cannot be read ({error}); export it again") from error
    if tree.tag != "annotation":
        told = f"its root is <{tree.tag}>, where VOC's is <annotation> without a namespace"
        raise Problem(path, f"{told}; export it in VOC's format")
    elements = tree.findall("object")
    objects = sum(str(one.tag).rpartition("}")[2].lower() == "object" for one in tree.iter())
    if objects != len(elements):
        told = f"of {objects} elements like <object>, {len(elements)} are right below <annotation>"
        raise Problem(path, f"{told} and spelt so, as all of VOC's are; export it in VOC's format")
    try:
        objects = [_read_object(one, place) for place, one in enumerate(elements, start=1)]
        frame = size(tree.findtext("size/height"), tree.findtext("size/width"))
    except ValueError as error:
        raise Problem(path, str(error)) from error
    return Annotation(tree, frame, objects)


def _read_object(element: ET.Element, place: int) -> VocObject:
    """Raises ValueError that names object and element."""
    name = (element.findtext("name") or "").strip()
    told = f"object {place} ('{name}')"
    if not name:
        raise ValueError(f"object {place} has no <name>; write its class")
    corners = element.find("bndbox")  # of the object itself; VOC's body parts have boxes below it
    if corners is None:
        raise ValueError(f"{told} has no <bndbox>; write its box, or remove the object")
    keys = ("xmin", "ymin", "xmax", "ymax")
    try:
        x1, y1, x2, y2 = (number(corners.findtext(key), f"<{key}>") for key in keys)
        difficult = mark(element.findtext("difficult"), "<difficult>")
    except ValueError as error:
        raise ValueError(f"{told}: {error}") from error
    box = np.array([x1 - 1, y1 - 1, x2, y2], np.float32).tolist()
    return VocObject(name, box, difficult, element)


def _read_record(
    folder: Path,
    image_id: str,
    classes: tuple[str, ...],
    table: tuple[str, ...],
    images: ImageFolder,
) -> tuple[Record, Annotation, list[str]]:
    """The record of one image, its XML, and what was left out for want of area."""
    if inside(image_id) != image_id:
        told = f"a split lists {shown(image_id)}, which leads out of this folder; correct the list"
        raise Problem(images.folder, told)
    path = images.one(image_id)
    xml = folder / "Annotations" / f"{image_id}.xml"
    annotation = read_annotation(xml)
    if unknown := sorted(set(annotation.names) - {*table, *classes}):
        told = f"class '{unknown[0]}' is not known; correct it, or name it in {CLASSES_FILE}"
        raise Problem(xml, told)
    try:
        frame = annotation.size or image_size(path)
    except InputError as error:
        raise Problem.of(path, error) from error
    check_boxes(annotation, xml, frame)
    record, _, flat = record_of(image_id, path, frame, annotation.objects, classes)
    mask = next(iter(find_masks(folder, image_id, table, annotation.names)), None)
    left_out = [f"object {place + 1} of {image_id}" for place in flat]
    return replace(record, mask=mask), annotation, left_out


def check_boxes(annotation: Annotation, xml: Path, frame: tuple[int, int]) -> None:
    """Raise Problem of `xml` where a box lies outside an image of (height, width) `frame`."""
    for place, one in enumerate(annotation.objects, start=1):
        x1, y1, x2, y2 = one.corners
        told = f"object {place} ('{one.name}'): box {x1 + 1:g} {y1 + 1:g} {x2:g} {y2:g}"
        if problem := box_problem(one.corners, frame, told):
            raise Problem(xml, problem)


def _refuse_unfit_masks(folder: Path, tried: list[tuple[MaskSource, set[str]]]) -> None:
    """Raise InputError where most masks show no class of the objects of their own image."""
    unfit, looked = [], 0
    for source, counted in tried:
        try:
            seen = shown_classes(source)
        except InputError:  # told where the masks are read
            continue
        looked += 1
        if not seen & counted:
            told = ", ".join(sorted(seen)[:5]) or "no class"
            unfit.append(f"{source.path}: the mask shows {told}")
    if 2 * len(unfit) > looked:
        listed = folder / CLASSES_FILE
        by = str(listed) if listed.is_file() else f"VOC's list of classes, for want of {listed}"
        raise InputError(
            f"{unfit[0]} by {by}, but its XML has none of these; so it is in {len(unfit)} of "
            f"{looked} masks. Write the classes in the order of the masks' values, from 1."
        )


def listing_file(folder: Path, split: str) -> Path:
    """The file that lists a split."""
    return folder / "ImageSets" / "Main" / f"{split}.txt"
