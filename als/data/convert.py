"""Writes a data set in the VOC layout as one in COCO's layout."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
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
    - Boxes are x, y, width, height, 0-based. A difficult object becomes a crowd, the only mark by
      which COCO leaves an object out of the count.
    - Segmentations are RLE, of each object its pixels in SegmentationObject/. Where there is only a
      class mask (also SBD's), it is the pixels of its class inside its box, which are not its own
      alone where two objects of a class overlap. A difficult object without a pixel of its own
      gets the void pixels inside its box, which is where VOC puts it. Any other object without a
      pixel, and every object of an image without a mask, gets no segmentation, and the area of its
      box.
    - Void pixels, and object pixels that belong to no box, are kept as RLE in the image's entry
      "void", which COCO has not and other programs pass over.

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
    images, annotations = [], []
    (out / "annotations").mkdir(exist_ok=True)
    (out / split).mkdir()
    for record in tqdm(records, desc=split, disable=None):
        read_photo(record.path, record.size)
        name = record.path.relative_to(image_folder(folder).folder).as_posix()
        link_or_copy(record.path, out / split / name)
        labels = read_class_map(record, classes)
        numbers = _own_numbers(record, folder)
        objects, void = segment(record, labels, numbers)
        height, width = record.size
        entry = {"id": ids[record.image_id], "file_name": name}
        images.append(entry | {"height": height, "width": width} | ({"void": void} if void else {}))
        for annotation in objects:
            place = {"id": len(annotations) + 1, "image_id": entry["id"]}
            annotations.append(place | annotation)
    content = {
        "info": {"description": f"{split} of {folder.name}, converted from the VOC layout"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
    }
    (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return len(images)


def _own_numbers(record: Record, folder: Path) -> np.ndarray | None:
    """As `read_object_numbers`, in the record's order; an object that it left out is void."""
    boxes = read_annotation(folder / "Annotations" / f"{record.image_id}.xml").boxes
    numbers = read_object_numbers(record, folder, highest=len(boxes))
    _, has_area = clip_boxes(boxes, record.size)
    own = np.full(VOID + 1, VOID, np.uint8)
    kept = np.flatnonzero(has_area[: VOID - 1])  # a mask has no value for more
    own[0], own[1 + kept] = 0, np.arange(1, len(kept) + 1)
    return None if numbers is None else own[numbers]


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it, elsewhere a copy with the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)  # of an id in a subfolder
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def segment(
    record: Record, labels: np.ndarray | None, numbers: np.ndarray | None
) -> tuple[list[dict], dict | None]:
    """The annotations of an image, without ids, and its void pixels as RLE (None without).

    labels: the label of each pixel, uint8 [H, W], 255 void; None for an image without a mask.
    numbers: the number of the object of each pixel, from 1 in the record's order, 255 void; None
        where there is no such map.
    """
    covered = np.zeros(record.size, dtype=bool)
    annotations = []
    for index in range(len(record.labels)):
        x1, y1, x2, y2 = (float(value) for value in record.boxes[index])
        annotation = {
            "category_id": int(record.labels[index]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(record.difficult[index]),
            "segmentation": [],
        }
        if labels is not None:
            inside = _pixels(record, index, labels, numbers)
            covered |= inside
            if inside.any():
                annotation["segmentation"] = write_runs(inside)
                annotation["area"] = int(inside.sum())
        annotations.append(annotation)
    if labels is None:
        return annotations, None
    void = (labels == VOID) | ((labels > 0) & ~covered)
    return annotations, write_runs(void) if void.any() else None


def _pixels(
    record: Record, index: int, labels: np.ndarray, numbers: np.ndarray | None
) -> np.ndarray:
    """The pixels of object `index` of a record: bool [H, W]."""
    box = fill(record.boxes[index : index + 1], record.size)
    own = numbers == index + 1 if numbers is not None else (labels == record.labels[index]) & box
    return (labels == VOID) & box if record.difficult[index] and not own.any() else own
