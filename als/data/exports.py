"""Reads what labelling tools export: YOLO's text files, COCO's JSON, VOC's XML, and their folders.

A photograph of which one label cannot be read is left out whole: what else it shows would count as
background. An object without area is left out alone.
"""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import yaml

from als.data import fields
from als.data.coco_file import read_parts
from als.data.convert import segment
from als.data.derived_masks import is_marked
from als.data.image_folder import ImageFolder, files_below
from als.data.masks import palette
from als.data.record import TOLERANCE, Problem, Record
from als.data.rle import VOID
from als.data.voc_layout import class_names, lines, read_annotation
from als.errors import InputError
from als.images import IMAGE_SUFFIXES, image_size, open_image

MADE = "made from boxes by `als data masks` are left out: they are no truth"
Segmentation = list | dict
"""As in COCO: polygons in pixels, an RLE, or an empty list where there is none."""


class LeftOut(NamedTuple):
    """What is not imported: "photograph", "object", "label file" or "split"; its file, and why."""

    what: str
    file: Path
    why: str


Report = Callable[[LeftOut], None]
_PALETTE = np.frombuffer(palette(), np.uint8).reshape(256, 3).tolist()
VOC_COLOURS = {tuple(colour): value for value, colour in enumerate(_PALETTE)}


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


def kind_of(source: Path) -> str | None:
    """What exported a folder, by its files; None where nothing is known of it."""
    if _yolo_config(source) is not None:
        return "YOLO (data.yaml)"
    if (source / "classes.txt").is_file() and (source / "labels").is_dir():
        return "Label Studio (YOLO)"
    files = _coco_files(source)
    if files:
        names = {"_annotations.coco.json": "Roboflow (COCO)", "result.json": "Label Studio (COCO)"}
        return names.get(files[0].name, "COCO, as CVAT writes it")
    if (source / "labelmap.txt").is_file():
        return "CVAT (VOC)"
    if (source / "Annotations").is_dir():
        own = (source / "images").is_dir()
        return "Label Studio (VOC)" if own else "VOC"
    return "Roboflow (VOC)" if any(_xml_folders(source)) else None


def advice(folder: Path) -> str:
    """The sentence for who takes an export for a data set; empty where the folder is none."""
    kind = kind_of(folder) if folder.is_dir() else None
    is_voc = all((folder / name).is_dir() for name in ("JPEGImages", "Annotations", "ImageSets"))
    splits = (file.stem.removeprefix("instances_") for file in _coco_files(folder))
    is_coco = any((folder / s).is_dir() or (folder / "images" / s).is_dir() for s in splits)
    if kind is None or (is_voc and "CVAT" not in kind) or (is_coco and "CVAT" in kind):
        return ""
    return (
        f"It looks like an export ({kind}): `als data import '{folder}' NEW` makes it a data set."
    )


def read_export(source: Path, report: Report) -> Export:
    """Read the export of a labelling tool.

    report: told all that cannot be used. Raises InputError when the folder holds no such export,
    or a file of it that everything needs is broken.
    """
    if source.is_file():
        raise InputError(f"{source}: is a file; unpack it and give the folder.")
    kind = kind_of(source) if source.is_dir() else None
    if kind is None:
        for file in sorted(source.glob("data.y*ml")):
            raise InputError(f"{file}: {_why_not(file)}; mend it, or export again.")
        raise InputError(
            f"{source}: there is no export in it: no data.yaml, no classes.txt with labels/, no "
            "_annotations.coco.json, result.json or annotations/instances_*.json, no XML; give the "
            "folder that holds them."
        )
    read = _read_yolo if "YOLO" in kind else _read_coco if "COCO" in kind else _read_voc
    named: set[Path] = set()

    def note(left_out: LeftOut) -> None:
        named.add(left_out.file.resolve())
        report(left_out)

    export = read(source, kind, note)
    export.classes = list(dict.fromkeys(export.classes))
    used = named | {photo.path.resolve() for photo in export.photos}
    for folder in sorted({photo.path.parent for photo in export.photos}):
        for path in _images_in(folder.glob("*")):
            if path.resolve() not in used:
                report(LeftOut("photograph", path, "it stands alone: no label file names it"))
    return export


def _images_in(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


def _finite(values: Iterable[Any], name: str = "a value") -> list[float]:
    return [fields.number(value, name) for value in values]


def _bounds(polygons: Iterable[Sequence[float]]) -> tuple[float, ...]:
    points = [value for polygon in polygons for value in polygon]
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


# YOLO -------------------------------------------------------------------------------------------


def _yolo_config(source: Path) -> dict | None:
    """The data.yaml of a folder as text values ("yes" stays a word), with its file as "file"."""
    for file in sorted(source.glob("*.y*ml"), key=lambda file: (file.stem != "data", file)):
        try:
            config = _loaded(file)
        except (OSError, yaml.YAMLError):  # `_why_not` says it where nothing else is there
            continue
        if isinstance(config, dict) and config.get("names"):
            return {**config, "file": file}
    return None


def _loaded(file: Path) -> Any:
    return yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)


def _why_not(file: Path) -> str:
    """Why a data.yaml is none of YOLO's."""
    try:
        _loaded(file)
    except (OSError, yaml.YAMLError) as error:
        return f"it cannot be read ({' '.join(str(error).split())})"
    return "it has no 'names'"


def _read_yolo(source: Path, kind: str, report: Report) -> Export:
    config = _yolo_config(source)
    if config is None:
        names = lines(source / "classes.txt")
        images = {"": _images_in(files_below(source / "images"))}
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
    read, blank = set(), 0
    for split, paths in images.items():
        for path in paths:
            file = _label_file(path)
            read.add(file)
            try:
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
    for folder in sorted({file.parent for file in read}):
        for file in sorted(folder.glob("*.txt")):
            if file not in read and file.name != "classes.txt":
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
            paths = _images_in(files_below(place)) if of_folder else _listed(place, roots, report)
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
    return Path(*parts)


def _yolo_object(
    values: list[str], names: list[str], size: tuple[int, int], points: int, told: str
) -> Labelled:
    """Raises ValueError that says what is wrong with the line."""
    try:
        index, *numbers = _finite(values)
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
    return Labelled(names[int(index)], _bounds([pixels]), [pixels])


# COCO -------------------------------------------------------------------------------------------


def _coco_files(source: Path) -> list[Path]:
    for pattern in ("_annotations.coco.json", "*/_annotations.coco.json", "result.json"):
        if files := sorted(source.glob(pattern)):
            return files
    return sorted(source.glob("annotations/instances_*.json"))


def _read_coco(source: Path, kind: str, report: Report) -> Export:
    export, crowds, made = Export(kind, []), 0, 0
    for file in _coco_files(source):
        content = read_parts(file)
        images, annotations = content["images"], content["annotations"]
        try:
            names = _coco_names(content["categories"], annotations)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: it is no file of COCO's ({error!r}); export again."
            ) from error
        export.classes += names.values()
        split = file.stem.removeprefix("instances_")
        if file.name == "_annotations.coco.json":
            split = file.parent.name if file.parent != source else ""
        top = (file.parent, source)  # CVAT's images lie in images/default/, once in images/
        folders = [f for t in top for f in (t, t / "images", t / "images" / split, t / split)]
        split = "" if split in ("default", "result") else split
        ids = Counter(_id(entry.get("id")) for entry in images)
        of_image: dict[str, list[dict]] = {}
        for annotation in annotations:
            place = _id(annotation.get("image_id"))
            of_image.setdefault(place, []).append(annotation)
            if place not in ids:
                why = f"annotation {annotation.get('id')}: the file lists no image {place}"
                report(LeftOut("object", file, why))
        for entry in images:
            told = f"image {entry.get('id')}, {entry.get('file_name')}"
            found = of_image.get(_id(entry.get("id")), [])
            path = None
            try:
                path = _find_image(str(entry.get("file_name")), folders)
                if ids[_id(entry.get("id"))] > 1:
                    raise ValueError("another image has its id")
                objects = [_coco_object(annotation, names) for annotation in found]
                frame = fields.size(entry.get("height"), entry.get("width"))
            except (ValueError, TypeError, KeyError) as error:
                where = f"{file.name}: " if path else ""
                report(LeftOut("photograph", path or file, f"{where}{told}: {error}"))
                continue
            crowds += sum(_is_brushed(annotation) for annotation in found)
            made += sum(bool(annotation.get("derived")) for annotation in found)
            export.photos.append(LabelledPhoto(path, split, objects, frame, entry.get("void")))
    if crowds:
        export.notes.append(
            f"{crowds} objects were drawn with CVAT's brush, which it exports as crowds: they are "
            "objects here"
        )
    if made:
        export.notes.append(f"{made} outlines {MADE}")
    return export


def _coco_names(categories: list[dict], annotations: list[dict]) -> dict[str, str]:
    """Category id -> name, by rising id. Roboflow's root, a class of classes, is left out."""
    if len({_id(category["id"]) for category in categories}) < len(categories):
        raise ValueError("two categories have one id")
    used = {_id(annotation.get("category_id")) for annotation in annotations}
    above = {category.get("supercategory") for category in categories}
    kept = {}
    for category in sorted(categories, key=lambda c: (len(_id(c["id"])), _id(c["id"]))):
        is_root = category.get("supercategory") == "none" and category["name"] in above
        if not (is_root and _id(category["id"]) not in used):
            name = fields.text(str(category["name"]), "name of a category")
            kept[_id(category["id"])] = name.strip()
    return kept


def _id(value: Any) -> str:
    """An id as ids are compared: 1, "1" and 1.0, which pandas writes, are one."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _is_brushed(annotation: dict) -> bool:
    """CVAT exports whatever its brush drew as a crowd. It alone writes 'occluded'."""
    attributes = annotation.get("attributes")
    is_cvat = isinstance(attributes, dict) and "occluded" in attributes
    return is_cvat and bool(annotation.get("iscrowd")) and bool(annotation.get("segmentation"))


def _coco_object(annotation: dict, names: dict[str, str]) -> Labelled:
    """Raises ValueError or TypeError that says what is wrong with the annotation."""
    told = f"annotation {annotation.get('id')}"
    category = _id(annotation.get("category_id"))
    if category not in names:
        raise ValueError(f"{told}: the file has no category {category}")
    segmentation = (not annotation.get("derived") and annotation.get("segmentation")) or []
    try:
        if isinstance(segmentation, list):
            if not all(isinstance(polygon, list) for polygon in segmentation):
                raise ValueError(
                    "its segmentation is no list of polygons, [[x, y, x, y, ...], ...]"
                )
            segmentation = [_finite(polygon) for polygon in segmentation if polygon]
        if annotation.get("bbox"):
            x, y, width, height = _finite(annotation["bbox"])
            box = (x, y, x + width, y + height)
        elif isinstance(segmentation, list) and max(map(len, segmentation), default=0) > 1:
            box = _bounds(segmentation)
        else:
            raise ValueError("it has no bbox")
        crowd = fields.mark(annotation.get("iscrowd"), "iscrowd") and not _is_brushed(annotation)
        ignored = fields.mark(annotation.get("ignore"), "ignore")  # Label Studio's key
    except (ValueError, TypeError) as error:
        raise ValueError(f"{told}: {error}") from error
    return Labelled(names[category], box, segmentation, crowd or ignored)


def _find_image(name: str, folders: list[Path]) -> Path:
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


# VOC --------------------------------------------------------------------------------------------


def _xml_folders(source: Path) -> Iterator[tuple[str, Path]]:
    """(Split, folder) of Roboflow's folders, where XML lies beside the photographs."""
    for folder in (source, *sorted(path for path in source.glob("*") if path.is_dir())):
        if any(folder.glob("*.xml")):
            yield folder.name if folder != source else "", folder


def _read_voc(source: Path, kind: str, report: Report) -> Export:
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
        for split, folder in _xml_folders(source):
            images = [ImageFolder(folder)]
            entries += [(split, f.stem, f, images) for f in sorted(folder.glob("*.xml"))]
    found: list[tuple] = []
    least = math.inf
    for split, name, xml, folders in entries:
        tree, told, why = _root(xml), None, ""
        try:
            if xml.is_file() or not is_cvat:  # which writes none where there is no box
                told = read_annotation(xml)
        except Problem as problem:
            why = f"{xml.name}: {problem.problem}"
        try:
            path = _image_of(name, tree, folders)
        except ValueError as error:
            path, why = xml, why or str(error)
        if why:
            report(LeftOut("photograph", path, why))
            continue
        found.append((split, name, path, tree, told))
        if told is not None and len(told.boxes):
            least = min(least, told.boxes[:, :2].min())
    # Of VOC itself the first pixel is 1; CVAT and Label Studio begin at 0, others now and then.
    by_tool = is_cvat or any(t.findtext("owner/name") == "Label Studio" for *_, t, _ in found)
    zero_based = by_tool or least < 0
    export, made = Export(kind, classes), 0
    if zero_based and not by_tool:
        export.notes.append("corners are counted from 0, since some are 0; VOC's own are from 1")
    if (source / "SBD").is_dir():
        export.notes.append("the masks in SBD/ are left out: only VOC's own readers take them")
    for split, name, path, tree, told in found:
        try:
            frame = told.size if told is not None else None
            objects = [] if told is None else _voc_objects(told, tree, int(not zero_based))
            void, mask = None, source / "SegmentationClass" / f"{name}.png"
            if mask.is_file() and is_marked(mask):
                made += 1
            elif mask.is_file():
                masks = _voc_masks(source, name, len(table), colours)
                objects, void = _with_masks(path, objects, table, *masks, by_order=not is_cvat)
        except (InputError, ValueError) as error:
            report(LeftOut("photograph", path, str(error)))
            continue
        export.photos.append(LabelledPhoto(path, split, objects, frame, void))
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
    found: dict[str, str] = {}
    for split in sorted(listed.keys() - of_class, key=lambda split: (len(listed[split]), split)):
        for line in listed[split]:
            name = line if line in ids else re.sub(r"\s+(-1|0|1)$", "", line).strip('"')
            found.setdefault(name, "" if split == "default" else split)
    return found


def _root(xml: Path) -> ET.Element:
    """The root of an XML file; an empty one where it does not parse, which is told elsewhere."""
    try:
        return ET.parse(xml).getroot()
    except (OSError, ET.ParseError, ValueError, LookupError):  # the last two of its encoding
        return ET.Element("annotation")


def _image_of(name: str, tree: ET.Element, folders: list[ImageFolder]) -> Path:
    """The photograph of an XML file: by the XML's own name, or by the name that it gives.

    Raises ValueError when there is none, or two.
    """
    for images in folders:
        fits = images.stems(name)
        if len(fits) > 1:
            raise ValueError(f"two images fit, {' and '.join(path.name for path in fits)}")
        if fits:
            return fits[0]
    return _find_image(tree.findtext("filename") or name, [images.folder for images in folders])


def _voc_objects(told, tree: ET.Element, first: int) -> list[Labelled]:
    """Objects of an annotation whose first pixel is `first`; `read_annotation` takes it to be 1."""
    objects = []
    for index, element in enumerate(tree.iterfind("object")):
        x1, y1, x2, y2 = _finite(told.boxes[index])
        outline = element.find("polygon")  # Roboflow's: x1, y1, x2, y2, ...
        points = (
            [] if outline is None else _finite((c.text for c in outline), "a value of <polygon>")
        )
        polygons = [[value - first for value in points]] if points else []
        box = (x1 + 1 - first, y1 + 1 - first, x2, y2)
        objects.append(Labelled(told.names[index], box, polygons, bool(told.difficult[index])))
    return objects


def _voc_masks(
    source: Path, name: str, classes: int, colours: dict
) -> tuple[np.ndarray, np.ndarray | None]:
    """The class and object number of each pixel."""
    kinds = ("SegmentationClass", "SegmentationObject")
    files = [source / kind / f"{name}.png" for kind in kinds]
    labels = _indices(files[0], colours)
    if labels.max(where=labels < VOID, initial=0) > classes:
        raise InputError(f"{files[0]}: a value of the mask is none of {classes} classes.")
    return labels, _indices(files[1], colours and VOC_COLOURS) if files[1].is_file() else None


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
    record = Record(
        image_id=path.stem,
        path=path,
        size=size,
        boxes=np.array([thing.box for thing in objects]).reshape(-1, 4).clip(0),
        labels=np.array(index, np.int64),
        difficult=np.array([thing.ignored for thing in objects], np.bool_),
        mask=None,
    )
    found, void = segment(record, labels, numbers)
    outlined = [
        Labelled(thing.name, thing.box, made["segmentation"] or thing.segmentation, thing.ignored)
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
