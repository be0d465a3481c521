"""Reads data sets in COCO's layout (Lin et al. 2014) into plain records.

A folder holds annotations/instances_SPLIT.json and the images in SPLIT/ or images/SPLIT/. What
COCO has and VOC has not:

- Category ids have gaps (80 categories, ids up to 90). Only names count here; where an order is
  needed, it is that of rising ids.
- A crowd (iscrowd: 1) outlines many objects at once. It becomes a difficult object, not trained on
  and not counted, and its pixels are void in the maps.
- Boxes are x, y, width, height in floating point, 0-based. train2017 has two boxes of height 0:
  such an object is left out and its pixels are void.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from als.data.masks import Instances, MaskSource, area, pack
from als.data.record import CocoEntry, Problem, Record, box_problem
from als.errors import InputError

_PARTS = ("images", "annotations", "categories")
_NEEDED = ("id", "bbox", "area", "iscrowd")  # by pycocotools too


@dataclass(frozen=True)
class CocoFile:
    """An annotation file, read and grouped.

    path: the JSON file. images, categories: as in the file, images in its order.
    annotations: image id -> the annotations of that image, in the file's order.
    """

    path: Path
    images: list[dict]
    categories: list[dict]
    annotations: dict[int, list[dict]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The categories' names by rising id."""
        return tuple(c["name"] for c in sorted(self.categories, key=lambda c: c["id"]))

    @cached_property
    def place_of(self) -> dict[int, int]:
        """Category id -> place in `names`."""
        return {id_: place for place, id_ in enumerate(sorted(c["id"] for c in self.categories))}


def annotation_file(folder: Path, split: str) -> Path:
    """Where the annotations of a split lie in COCO's layout."""
    return folder / "annotations" / f"instances_{split}.json"


def splits(folder: Path) -> list[str]:
    """The splits whose annotations are in a folder, sorted."""
    files = (folder / "annotations").glob("instances_*.json")
    return sorted(file.stem.removeprefix("instances_") for file in files)


def is_layout(folder: Path, split: str) -> bool:
    """Whether a split of this folder is to be read in COCO's layout, complete or not."""
    if annotation_file(folder, split).is_file():
        return True
    has_images = any(path.is_dir() for path in _image_folders(folder, split))
    return not (folder / "ImageSets").is_dir() and (has_images or bool(splits(folder)))


def read_records(
    folder: Path,
    split: str,
    classes: Sequence[str],
    report: Callable[[Problem], None],
    file: CocoFile | None = None,
) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """Each image of a split, with the names of all its annotated objects, crowds too.

    classes: what to detect, any of the file's categories in any order; label k is
        `classes[k - 1]`.
    report: told each image that cannot be used: it is missing, its entry lacks something, a box
        lies outside, a segmentation cannot be read.
    file: the split's annotations where they are read already (train2017's are half a gigabyte).

    Warns of objects that were left out because their box has no area. Raises InputError when the
    annotations are missing, no JSON or no instance annotations, when the images' folder is missing,
    and for a class that is none of the categories.
    """
    file = file or read_file(folder, split)
    if unknown := sorted(set(classes) - set(file.names)):
        raise InputError(
            f"{file.path}: it has no category '{unknown[0]}'; its categories are "
            f"{', '.join(file.names)}."
        )
    images = _images_of(folder, split)
    present = {path.name for path in images.iterdir()}
    flat = []
    for entry in file.images:
        try:
            record, left_out = _read_record(file, entry, images, present, tuple(classes))
        except Problem as problem:
            report(problem)
            continue
        flat += left_out
        found = file.annotations.get(entry["id"], ())
        yield record, tuple(file.names[file.place_of[a["category_id"]]] for a in found)
    if flat:
        warnings.warn(_told_flat(file.path, flat), stacklevel=2)


def read_file(folder: Path, split: str) -> CocoFile:
    """The annotations of a split. Raises InputError when they are missing or broken."""
    path = annotation_file(folder, split)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        there = ", ".join(splits(folder)) or "none"
        raise InputError(
            f"{path}: there are no such annotations; the splits here are: {there}."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the JSON cannot be read ({error}); unpack or download it again."
        ) from error
    lacking = [k for k in _PARTS if not isinstance(content, dict) or k not in content]
    if lacking:
        raise InputError(f"{path}: it has no '{lacking[0]}'; instance annotations are needed here.")
    try:
        return _grouped(path, content)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: an entry lacks {error}; it is no file of COCO's instance annotations."
        ) from error


def notes(file: CocoFile) -> list[str]:
    """Sentences about a file that is sound: how much it holds, and what is unusual in it."""
    objects = [a for found in file.annotations.values() for a in found]
    crowds = sum(a["iscrowd"] for a in objects)
    empty = sum(entry["id"] not in file.annotations for entry in file.images)
    told = [
        f"{file.path}: {len(file.images)} images, {len(objects) - crowds} objects and {crowds} "
        f"crowds of {len(file.names)} categories."
    ]
    if empty:
        told.append(
            f"{file.path}: {empty} images without annotations; they count in an evaluation and are "
            "left out of training."
        )
    flat = [a["id"] for a in objects if _is_flat(a)]
    return [*told, _told_flat(file.path, flat)] if flat else told


def _grouped(path: Path, content: dict) -> CocoFile:
    """Raises InputError when ids do not fit together, KeyError when one is lacking."""
    known = {entry["id"] for entry in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    for kind, distinct in (("images", known), ("categories", set(categories.values()))):
        if len(distinct) < len(content[kind]):
            raise InputError(f"{path}: two of its {kind} have one id or name; mend the file.")
    if not known:
        raise InputError(f"{path}: it lists no image.")
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        _ = [annotation[key] for key in _NEEDED]  # a KeyError names the one that is lacking
        for key, ids in (("image_id", known), ("category_id", categories)):
            if annotation[key] not in ids:
                raise InputError(
                    f"{path}: annotation {annotation['id']} has {key} {annotation[key]}, which the "
                    "file does not list; mend the file."
                )
        annotations[annotation["image_id"]].append(annotation)
    return CocoFile(path, content["images"], content["categories"], dict(annotations))


def _image_folders(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / split, folder / "images" / split


def _images_of(folder: Path, split: str) -> Path:
    for path in _image_folders(folder, split):
        if path.is_dir():
            return path
    first, second = _image_folders(folder, split)
    raise InputError(f"{first}: there is no such folder, nor {second}; put the images in one.")


def _read_record(
    file: CocoFile, entry: dict, images: Path, present: set[str], classes: tuple[str, ...]
) -> tuple[Record, list[int]]:
    """The record of one image, and the ids of the objects left out for want of area."""
    try:
        path, size = images / entry["file_name"], (int(entry["height"]), int(entry["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(file.path, f"the entry of image {entry['id']} is broken ({error})") from error
    # One listing of the folder is much faster than a question for each file.
    if entry["file_name"] not in present and not path.is_file():
        raise Problem(path, "there is no such image")
    found = file.annotations.get(entry["id"], [])
    try:
        boxes = [_corners(file, annotation, size) for annotation in found]
        mask = MaskSource("coco", file.path, file.names, _instances(file, entry, found, size))
    except (KeyError, TypeError, ValueError) as error:
        told = f"the annotations of image {entry['id']} are broken ({error})"
        raise Problem(file.path, told) from error
    named = [file.names[file.place_of[a["category_id"]]] for a in found]
    wanted = [i for i, name in enumerate(named) if name in classes]
    kept = [i for i in wanted if not _is_flat(found[i])]
    record = Record(
        image_id=path.stem,
        path=path,
        size=size,
        boxes=np.array([boxes[i] for i in kept], dtype=np.float32).reshape(-1, 4),
        labels=np.array([classes.index(named[i]) + 1 for i in kept], dtype=np.int64),
        difficult=np.array([found[i]["iscrowd"] for i in kept], dtype=np.bool_),
        mask=mask if mask.instances is not None else None,
        coco=CocoEntry(file.path, entry["id"]),
    )
    return record, [found[i]["id"] for i in wanted if _is_flat(found[i])]


def _corners(file: CocoFile, annotation: dict, size: tuple[int, int]) -> np.ndarray:
    """x1 y1 x2 y2 of an annotation, clipped to the image. Raises Problem when it lies outside."""
    x, y, width, height = (float(value) for value in annotation["bbox"])
    corners = np.array([x, y, x + width, y + height])
    told = f"box {annotation['bbox']} of annotation {annotation['id']}"
    if not _is_flat(annotation) and (problem := box_problem(corners, size, told)):
        raise Problem(file.path, problem)
    return corners.clip(0, [size[1], size[0]] * 2)


def _is_flat(annotation: dict) -> bool:
    """Whether a box has a side of 0, which COCO has; a negative side is a broken file."""
    return min(annotation["bbox"][2:]) == 0


def _told_flat(path: Path, ids: list[int]) -> str:
    return (
        f"{path}: {len(ids)} objects have a box of no area (annotation "
        f"{', '.join(map(str, ids[:5]))}); they are left out, their pixels are void."
    )


def _instances(
    file: CocoFile, entry: dict, annotations: list[dict], size: tuple[int, int]
) -> Instances | None:
    """What is drawn of an image; None when none of its objects has a segmentation.

    Where some have one, the box of an object without a pixel of its own is void: nobody said which
    pixels are its. An entry of the image named "void" (written by `als.data.convert`, unknown to
    others) holds further void pixels.
    """
    if not any(annotation.get("segmentation") for annotation in annotations):
        return None
    classes, runs, void = [], [], []
    for annotation in annotations:
        packed = pack(annotation["segmentation"], size) if annotation.get("segmentation") else None
        if blank := packed is None or area(packed, size) == 0:
            x1, y1, x2, y2 = (float(v) for v in _corners(file, annotation, size))
            packed = pack([[x1, y1, x2, y1, x2, y2, x1, y2]], size)
        classes.append(file.place_of[annotation["category_id"]])
        runs.append(packed)
        void.append(bool(annotation["iscrowd"]) or blank or _is_flat(annotation))
    if "void" in entry:
        classes.append(None)
        runs.append(pack(entry["void"], size))
        void.append(True)
    return Instances(tuple(classes), tuple(runs), tuple(void))
