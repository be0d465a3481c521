"""Reads VOC's XML and masks, as Roboflow, Label Studio and CVAT export them."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import splitext
from pathlib import Path

import numpy as np

from als.data.convert import segment
from als.data.derived_masks import is_marked
from als.data.image_folder import ImageFolder, files_below
from als.data.labelled import (
    MADE,
    Export,
    Labelled,
    LabelledPhoto,
    LeftOut,
    Report,
    find_image,
    finite,
)
from als.data.masks import palette
from als.data.record import Problem
from als.data.rle import VOID
from als.data.voc_layout import Annotation, class_names, lines, read_annotation
from als.errors import InputError
from als.images import image_size, open_image

_PALETTE = np.frombuffer(palette(), np.uint8).reshape(256, 3).tolist()
VOC_COLOURS = {tuple(colour): value for value, colour in enumerate(_PALETTE)}
NOTHING = Annotation(ET.Element("annotation"), None, [])
"""What is said of a photograph without a box, for which CVAT writes no XML."""


def xml_folders(source: Path) -> Iterator[tuple[str, Path]]:
    """(Split, folder) of Roboflow's folders, where XML lies beside the photographs."""
    for folder in (source, *sorted(path for path in source.glob("*") if path.is_dir())):
        if any(folder.glob("*.xml")):
            yield folder.name if folder != source else "", folder


def read_voc(source: Path, kind: str, report: Report) -> Export:
    """As `als.data.exports.read_export`, of a folder of this kind."""
    classes, colours = _voc_classes(source)
    is_cvat = "CVAT" in kind
    table = classes or list(class_names(source))  # of values in masks
    entries: list[tuple[str, str, Path, list[ImageFolder]]] = []  # split, id, XML, images
    if (source / "Annotations").is_dir():
        top = source / "Annotations"
        names = ("JPEGImages", "images", "Images", "", "Annotations")
        images = [ImageFolder(source / name) for name in names]
        files = (path for path in files_below(top) if path.suffix == ".xml")
        ids = {str(path.relative_to(top).with_suffix("")) for path in files}
        split_of = _voc_splits(source, ids, table)
        for name in sorted(ids - set(split_of)) if split_of else ():
            report(LeftOut("label file", top / f"{name}.xml", "no list of ImageSets names it"))
        for name, split in (split_of or dict.fromkeys(sorted(ids), "")).items():
            entries.append((split, name, top / f"{name}.xml", images))
    else:
        for split, folder in xml_folders(source):
            images = [ImageFolder(folder)]
            entries += [(split, f.stem, f, images) for f in sorted(folder.glob("*.xml"))]
    found: list[tuple] = []
    for split, name, xml, folders in entries:
        told, why = NOTHING, ""
        try:
            if xml.is_file() or not is_cvat:
                told = read_annotation(xml)
        except Problem as problem:
            why = f"{xml.name}: {problem.problem}"
        try:
            path = _image_of(name, told, folders)
        except ValueError as error:
            path, why = xml, why or str(error)
        if why:
            report(LeftOut("photograph", path, why))
            continue
        found.append((split, name, path, told))
    # Of VOC itself the first pixel is 1; CVAT and Label Studio begin at 0, others now and then.
    tools = {told.root.findtext("owner/name") for *_, told in found}
    by_tool = is_cvat or "Label Studio" in tools
    low = any(min(one.corners[:2]) < 0 for *_, told in found for one in told.objects)
    export, made = Export(kind, classes), 0
    if low and not by_tool:
        export.notes.append("corners are counted from 0, since some are 0; VOC's own are from 1")
    if (source / "SBD").is_dir():
        export.notes.append("the masks in SBD/ are left out: only VOC's own readers take them")
    for split, name, path, told in found:
        try:
            objects = _voc_objects(told, 0 if by_tool or low else 1)
            void, mask = None, source / "SegmentationClass" / f"{name}.png"
            if mask.is_file() and is_marked(mask):
                made += 1
            elif mask.is_file():
                labels = _indices(mask, colours)
                if labels.max(where=labels < VOID, initial=0) > len(table):
                    raise InputError(
                        f"{mask}: a value of the mask is none of {len(table)} classes."
                    )
                file = source / "SegmentationObject" / f"{name}.png"
                numbers = _indices(file, colours and VOC_COLOURS) if file.is_file() else None
                objects, void = _with_masks(path, objects, table, labels, numbers, not is_cvat)
        except (InputError, ValueError) as error:
            report(LeftOut("photograph", path, str(error)))
            continue
        export.photos.append(LabelledPhoto(path, split, objects, told.size, void))
    if made:
        export.notes.append(f"{made} masks {MADE}")
    named = {thing.name for photo in export.photos for thing in photo.objects}
    export.classes = [*classes, *sorted(named - set(classes))]
    return export


def _voc_classes(source: Path) -> tuple[list[str], dict[tuple[int, ...], int]]:
    """The classes, and the colour of each class (1, 2, ...) in CVAT's masks, empty elsewhere."""
    if not (source / "labelmap.txt").is_file():
        return list(class_names(source)) if (source / "classes.txt").is_file() else [], {}
    names, colours = [], {}
    for line in lines(source / "labelmap.txt"):
        if not line.startswith("#"):
            name, _, colour = (part.strip() for part in line.partition(":"))
            if name not in ("background", "ignored"):
                names.append(name)
            index = {"background": 0, "ignored": VOID}.get(name, len(names))
            try:
                if colour := colour.partition(":")[0]:
                    colours[tuple(int(value) for value in colour.split(","))] = index
            except ValueError as error:
                told = f"the line '{line}' is not NAME:RED,GREEN,BLUE:PARTS:ACTIONS"
                raise InputError(f"{source / 'labelmap.txt'}: {told}; mend it.") from error
    return names, colours


def _voc_splits(source: Path, ids: set[str], classes: list[str]) -> dict[str, str]:
    """Image id -> split, by ImageSets/Main; empty where that names no image.

    Of several lists an image belongs to the shortest: trainval and all hold the others.
    """
    listed = {f.stem: lines(f) for f in sorted((source / "ImageSets" / "Main").glob("*.txt"))}
    of_class = {f"{name}_{split}" for name in classes for split in listed}
    flagged = {s for s, told in listed.items() if all(re.search(r"\s(-1|0|1)$", t) for t in told)}
    of_class |= {s for s in flagged if any(s.endswith(f"_{split}") for split in listed)}
    found: dict[str, str] = {}
    for split in sorted(listed.keys() - of_class, key=lambda split: (len(listed[split]), split)):
        for line in listed[split]:
            name = line if line in ids else re.sub(r"\s+(-1|0|1)$", "", line).strip('"')
            if name not in ids and splitext(name)[0] in ids:  # listed with its ending
                name = splitext(name)[0]
            found.setdefault(name, "" if split == "default" else split)
    return found


def _image_of(name: str, told: Annotation, folders: list[ImageFolder]) -> Path:
    """The photograph of an XML file: by the XML's own name, or by the name that it gives.

    Raises ValueError when there is none, or two.
    """
    for images in folders:
        fits = images.stems(name)
        if len(fits) > 1:
            raise ValueError(f"two images fit, {' and '.join(path.name for path in fits)}")
        if fits:
            return fits[0]
    named = told.root.findtext("filename") or name
    return find_image(named, [images.folder for images in folders])


def _voc_objects(told: Annotation, first: int) -> list[Labelled]:
    """Objects of an annotation whose first pixel is `first`; `read_annotation` takes it to be 1."""
    objects = []
    for one in told.objects:
        x1, y1, x2, y2 = finite(one.corners)
        outline = one.element.findall("polygon[1]/*")  # Roboflow's: x1, y1, x2, y2, ...
        points = finite((c.text for c in outline), "a value of <polygon>")
        polygons = [[value - first for value in points]] if points else []
        box = (x1 + 1 - first, y1 + 1 - first, x2, y2)
        objects.append(Labelled(one.name, box, polygons, one.difficult))
    return objects


def _indices(file: Path, colours: dict[tuple[int, ...], int]) -> np.ndarray:
    """The value of each pixel, uint8 [H, W]; colours are looked up in `colours`, else VOC's."""
    try:
        with open_image(file, f"{file}: the mask cannot be read", formats=("PNG",)) as image:
            if image.mode in ("P", "L") and not colours:
                return np.array(image)
            pixels, colours = np.array(image.convert("RGB")), colours or VOC_COLOURS
    except OSError as error:
        raise InputError(f"{file}: the mask cannot be read ({error}).") from error
    shown, places = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    unknown = [tuple(map(int, c)) for c in shown if tuple(map(int, c)) not in colours]
    if unknown:
        raise InputError(f"{file}: nothing says what colour {unknown[0]} of the mask means.")
    values = np.array([colours[tuple(map(int, colour))] for colour in shown], np.uint8)
    return values[places.reshape(-1)].reshape(pixels.shape[:2])


def _with_masks(
    path: Path,
    objects: list[Labelled],
    classes: list[str],
    labels: np.ndarray,
    numbers: np.ndarray | None,
    by_order: bool,
) -> tuple[list[Labelled], dict | None]:
    """The objects with their pixels, and the void ones.

    by_order: object k of the XML has number k in the mask, as in VOC. CVAT numbers objects in an
    order of its own, and outlines some that have no box.
    """
    size = image_size(path)
    if labels.shape != size or (numbers is not None and numbers.shape != size):
        raise ValueError(f"its mask is no image of {size[1]}x{size[0]} pixels")
    if numbers is not None and not by_order:
        objects, numbers = _renumbered(objects, classes, labels, numbers)
    # A class that the masks do not know has no pixel in them; 0 would be the background's.
    index = [classes.index(thing.name) + 1 if thing.name in classes else -1 for thing in objects]
    parts = (index, [thing.box for thing in objects], [thing.ignored for thing in objects])
    found, void = segment(size, zip(*parts, strict=True), labels, numbers)
    outlined = [
        replace(thing, segmentation=made["segmentation"] or thing.segmentation)
        for thing, made in zip(objects, found, strict=True)
    ]
    return outlined, void


def _renumbered(
    objects: list[Labelled], classes: list[str], labels: np.ndarray, numbers: np.ndarray
) -> tuple[list[Labelled], np.ndarray]:
    """Object numbers in the order of `objects`, each by the box that its pixels fill best.

    An outline without a box becomes an object of its own.
    """
    objects, renumbered = list(objects), np.zeros(numbers.shape, np.int32)
    free = dict(enumerate(objects, start=1))
    for number in np.unique(numbers[(numbers > 0) & (numbers < VOID)]):
        inside = numbers == number
        seen = labels[inside & (labels > 0) & (labels < VOID)]
        if not len(seen):
            continue
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        bounds = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        name = classes[np.bincount(seen).argmax() - 1]
        fits = {k: _iou(bounds, t.box) for k, t in free.items() if t.name == name}
        best = max(fits, key=fits.get, default=0)
        if not best or fits[best] < 0.5:
            objects.append(Labelled(name, tuple(map(float, bounds))))
            best = len(objects)
        free.pop(best, None)
        renumbered[inside] = best
    return objects, renumbered


def _iou(one: Sequence[float], two: Sequence[float]) -> float:
    sides = [min(one[k + 2], two[k + 2]) - max(one[k], two[k]) for k in (0, 1)]
    shared = max(0, sides[0]) * max(0, sides[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return shared / (sum(areas) - shared) if shared else 0.0
