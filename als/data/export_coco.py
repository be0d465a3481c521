"""Reads COCO's JSON, as Roboflow, Label Studio and CVAT export it."""

from collections import Counter
from pathlib import Path
from typing import Any

from als.data import fields
from als.data.coco_file import read_parts
from als.data.labelled import (
    MADE,
    Export,
    Labelled,
    LabelledPhoto,
    LeftOut,
    Report,
    bounds,
    find_image,
    finite,
)
from als.errors import InputError


def coco_files(source: Path) -> list[Path]:
    """The JSON files of a folder, as Roboflow, Label Studio or CVAT name them."""
    for pattern in ("_annotations.coco.json", "*/_annotations.coco.json", "result.json"):
        if files := sorted(source.glob(pattern)):
            return files
    return sorted(source.glob("annotations/instances_*.json"))


def read_coco(source: Path, kind: str, report: Report) -> Export:
    """As `als.data.exports.read_export`, of a folder of this kind."""
    export, crowds, made = Export(kind, []), 0, 0
    for file in coco_files(source):
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
                path = find_image(str(entry.get("file_name")), folders)
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
            segmentation = [finite(polygon) for polygon in segmentation if polygon]
        if annotation.get("bbox"):
            x, y, width, height = finite(annotation["bbox"])
            box = (x, y, x + width, y + height)
        elif isinstance(segmentation, list) and max(map(len, segmentation), default=0) > 1:
            box = bounds(segmentation)
        else:
            raise ValueError("it has no bbox")
        crowd = fields.mark(annotation.get("iscrowd"), "iscrowd") and not _is_brushed(annotation)
        ignored = fields.mark(annotation.get("ignore"), "ignore")  # Label Studio's key
    except (ValueError, TypeError) as error:
        raise ValueError(f"{told}: {error}") from error
    return Labelled(names[category], box, segmentation, crowd or ignored)
