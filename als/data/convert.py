"""Writes a data set in the VOC layout as one in COCO's layout."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from als.data.derived_masks import without_derived
from als.data.masks import fill, read_class_map, read_object_numbers
from als.data.record import Problem, Record, clip_boxes, nothing_to_count, read_photo, refuse
from als.data.rle import VOID, write_runs
from als.data.voc_layout import (
    class_names,
    image_folder,
    image_numbers,
    listing_file,
    read_annotation,
    read_records,
)
from als.errors import InputError
from als.files import atomic_folder


def to_coco(folder: Path, splits: Sequence[str], out: Path) -> dict[str, int]:
    """Write splits of a VOC-layout folder to `out` in COCO's layout, complete or not at all.

    folder: with JPEGImages/, Annotations/ and ImageSets/Main/SPLIT.txt.
    out: gets annotations/instances_SPLIT.json and SPLIT/ with the images, which are hard links to
        those of `folder` where the file system allows it, and copies elsewhere.

    - Categories are the folder's classes, ids from 1. Images have the ids of `image_numbers`.
    - A difficult object becomes a crowd, the only mark by which COCO leaves an object out of the
      count.
    - Segmentations are RLE, of each object its pixels in SegmentationObject/. Where there is only a
      class mask (also SBD's), it is the pixels of its class inside its box. A difficult object
      without a pixel gets the void pixels inside its box, which is where VOC puts it. Any other
      without a pixel gets no segmentation, and the area of its box.
    - Void pixels, and object pixels that belong to no box, are the RLE "void" of the image's entry.

    Returns the number of images of each split. Raises InputError when `out` is not empty or cannot
    be written, and for anything in the data set that is broken, images that do not decode too.
    """
    with new_folder(out) as aside:
        return {split: _write_split(Path(folder), split, aside) for split in dict.fromkeys(splits)}


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """`atomic_folder` for a data set; what cannot be read or written is an InputError."""
    try:
        with atomic_folder(out) as aside:
            yield aside
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: cannot be read or written ({error.strerror}); make room, or "
            "name another folder."
        ) from error


def _write_split(folder: Path, split: str, out: Path) -> int:
    classes = class_names(folder)
    records = without_derived([r for r, _ in read_records(folder, split, classes, refuse)])
    if told := nothing_to_count(records):
        raise Problem(listing_file(folder, split), told)
    ids = image_numbers(folder)
    photos = []
    for record in tqdm(records, desc=split, disable=None):
        read_photo(record.path, record.size)
        name = record.path.relative_to(image_folder(folder).folder).as_posix()
        parts = (record.labels.tolist(), record.boxes.tolist(), record.difficult.tolist())
        labels, numbers = read_class_map(record, classes), _own_numbers(record, folder)
        objects, void = segment(record.size, zip(*parts, strict=True), labels, numbers)
        entry = image_entry(ids[record.image_id], name, record.size, void)
        photos.append((entry, record.path, objects))
    info = {"description": f"{split} of {folder.name}, converted from the VOC layout"}
    write_split(out, split, classes, photos, info=info)
    return len(photos)


def image_entry(id_: int, name: str, size: tuple[int, int], void: dict | None) -> dict:
    """A COCO file's entry of an image of (height, width) `size`, with RLE of its void pixels."""
    entry = {"id": id_, "file_name": name, "height": size[0], "width": size[1]}
    return entry | ({"void": void} if void else {})


def write_split(
    out: Path,
    split: str,
    classes: Sequence[str],
    photos: Iterable[tuple[dict, Path, list[dict]]],
    **more: dict,
) -> list[dict]:
    """Write a split in COCO's layout; returns its annotations.

    photos: of each its entry, its file and its annotations without ids.
    more: at the head of the annotation file.
    """
    (out / "annotations").mkdir(exist_ok=True)
    (out / split).mkdir()
    content: dict = more | {"images": [], "annotations": []}
    for entry, photo, objects in photos:
        _link_or_copy(photo, out / split / entry["file_name"])
        content["images"].append(entry)
        for annotation in objects:
            place = {"id": len(content["annotations"]) + 1, "image_id": entry["id"]}
            content["annotations"].append(place | annotation)
    content["categories"] = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return content["annotations"]


def _own_numbers(record: Record, folder: Path) -> np.ndarray | None:
    """As `read_object_numbers`, in the record's order; an object that it left out is void."""
    objects = read_annotation(folder / "Annotations" / f"{record.image_id}.xml").objects
    numbers = read_object_numbers(record, folder, highest=len(objects))
    _, has_area = clip_boxes(np.array([one.corners for one in objects]), record.size)
    own = np.full(VOID + 1, VOID, np.uint8)
    kept = np.flatnonzero(has_area[: VOID - 1])  # a mask has no value for more
    own[0], own[1 + kept] = 0, np.arange(1, len(kept) + 1)
    return None if numbers is None else own[numbers]


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it, elsewhere a copy with the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)  # of an id in a subfolder
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def segment(
    size: tuple[int, int],
    objects: Iterable[tuple[int, Sequence[float], bool]],
    labels: np.ndarray | None,
    numbers: np.ndarray | None,
) -> tuple[list[dict], dict | None]:
    """The annotations of an image, without ids, and its void pixels as RLE (None without).

    objects: of each its label, its box and whether it is difficult.
    labels: the label of each pixel, uint8 [H, W], 255 void; None for an image without a mask.
    numbers: the number of the object of each pixel, from 1, 255 void; None without such a map.
    """
    covered = np.zeros(size, dtype=bool)
    annotations = []
    for number, (label, (x1, y1, x2, y2), difficult) in enumerate(objects, start=1):
        annotation = {
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(difficult),
            "segmentation": [],
        }
        if labels is not None:
            box = fill(np.array([[x1, y1, x2, y2]]), size)
            inside = (labels == label) & box if numbers is None else numbers == number
            if difficult and not inside.any():
                inside = (labels == VOID) & box
            covered |= inside
            if inside.any():
                annotation["segmentation"] = write_runs(inside)
                annotation["area"] = int(inside.sum())
        annotations.append(annotation)
    if labels is None:
        return annotations, None
    void = (labels == VOID) | ((labels > 0) & ~covered)
    return annotations, write_runs(void) if void.any() else None
