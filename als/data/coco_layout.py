"""Reads data sets in COCO's layout (Lin et al. 2014) into plain records.

A folder holds annotations/instances_SPLIT.json and the images in SPLIT/ or images/SPLIT/. What
COCO has and VOC has not, crowds and boxes of height 0, is told in docs/data.md.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from posixpath import splitext

import numpy as np

from als.data import coco_file
from als.data.coco_file import CocoFile, CocoObject, area_of, read_object
from als.data.fields import mark, shown, size
from als.data.image_folder import ImageFolder, inside
from als.data.record import (
    CocoEntry,
    MaskSource,
    Problem,
    Record,
    clip_boxes,
    record_of,
    told_without_area,
)
from als.data.rle import Instances, area, pack
from als.errors import InputError
from als.images import image_size


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
    """As `als.data.layouts.Layout` says; the names are those of crowds too.

    file: the split's annotations where they are read already (train2017's are half a gigabyte).

    Warns of objects left out because their box has no area, and of what had to be derived. Raises
    InputError when the annotations are missing or broken, when the images' folder is missing, and
    for a class that is none of the categories.
    """
    file = (file or read_file(folder, split)).in_words_of(classes)
    if unknown := sorted(set(classes) - set(file.names)):
        raise InputError(
            f"{file.path}: it has no category '{unknown[0]}'; its categories are "
            f"{', '.join(file.names)}."
        )
    reader = _Reader(file, ImageFolder(_images_of(folder, split)), tuple(classes))
    for entry in file.images:
        try:
            yield reader.read(entry)
        except Problem as problem:
            report(problem)
    for sentence in reader.remarks():
        warnings.warn(sentence, stacklevel=2)


def read_file(folder: Path, split: str) -> CocoFile:
    """The annotations of a split. Raises InputError when they are missing or broken."""
    path = annotation_file(folder, split)
    if not path.is_file():
        there = ", ".join(splits(folder)) or "none"
        raise InputError(f"{path}: there are no such annotations; the splits here are: {there}.")
    return coco_file.read_file(path)


def notes(file: CocoFile) -> list[str]:
    """Sentences about a file that is sound: how much it holds, and what is unusual in it."""
    objects = [annotation for found in file.annotations.values() for annotation in found]
    crowds = sum(mark(annotation.get("iscrowd"), "iscrowd") for annotation in objects)
    told = [
        f"{file.path}: {len(file.images)} images, {len(objects) - crowds} objects and {crowds} "
        f"crowds of {len(file.names)} categories."
    ]
    if empty := sum(entry["id"] not in file.annotations for entry in file.images):
        told.append(
            f"{file.path}: {empty} images without annotations; they count in an evaluation and are "
            "left out of training."
        )
    return told


def _image_folders(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / split, folder / "images" / split


def _images_of(folder: Path, split: str) -> Path:
    for path in _image_folders(folder, split):
        if path.is_dir():
            return path
    first, second = _image_folders(folder, split)
    raise InputError(f"{first}: there is no such folder, nor {second}; put the images in one.")


class _Reader:
    """Makes records of the images of a file, and counts what was unusual."""

    def __init__(self, file: CocoFile, images: ImageFolder, classes: tuple[str, ...]) -> None:
        self.file, self.images, self.classes = file, images, classes
        names = [_parts(entry["file_name"]) for entry in file.images]
        self.bases = Counter(parts[-1] for parts in names)
        self.stems = Counter(splitext("/".join(parts))[0] for parts in names)
        self.taken: dict[str, int | str] = {}  # image id of a record -> id in the file
        self.ids: dict[tuple[str, ...], list[int | str]] = defaultdict(list)
        for entry, parts in zip(file.images, names, strict=True):
            self.ids[parts].append(entry["id"])
        self.without_area: list[str] = []
        self.elsewhere: list[str] = []
        self.counts: Counter[str] = Counter()

    def read(self, entry: dict) -> tuple[Record, tuple[str, ...]]:
        """A record and the names of all objects. Raises Problem when the image cannot be used."""
        path = self._locate(entry["file_name"])
        image_id = self._image_id(path)
        both = self.ids[_parts(entry["file_name"])]
        if len(both) == 1:
            both = [self.taken.setdefault(image_id, entry["id"]), entry["id"]]
        if both[0] != both[1]:
            told = f"images {shown(both[0])} and {shown(both[1])} are both {image_id}"
            raise Problem(self.file.path, f"{told}; take one of them out")
        found = self.file.annotations.get(entry["id"], [])
        try:
            frame = size(entry.get("height"), entry.get("width"))
            if frame is None:
                self.counts["images without a size: that of the file is taken"] += 1
                frame = image_size(path)
            objects = [read_object(self.file, a, n, frame) for n, a in enumerate(found, start=1)]
            instances = _instances(self.file, entry, objects, frame)
        except ValueError as error:
            told = f"image {shown(entry['file_name'])} (id {shown(entry['id'])}): {error}"
            raise Problem(self.file.path, told) from error
        except InputError as error:
            raise Problem.of(path, error) from error
        record, kept, flat = record_of(image_id, path, frame, objects, self.classes)
        self._count(found, [objects[i] for i in kept])
        self.without_area += [objects[i].told for i in flat]
        mask = instances and MaskSource("coco", self.file.path, self.file.names, instances)
        coco = CocoEntry(
            self.file.path,
            entry["id"],
            self.file.categories,
            np.array([objects[i].box for i in kept], dtype=np.float64).reshape(-1, 4),
            np.array([area_of(objects[i], frame) for i in kept], dtype=np.float64),
        )
        return replace(record, mask=mask, coco=coco), tuple(one.name for one in objects)

    def remarks(self) -> list[str]:
        """Sentences about what was unusual in the images read."""
        told = [f"{self.file.path}: {count} {what}." for what, count in self.counts.items()]
        if self.elsewhere:
            told.append(
                f"{self.file.path}: {len(self.elsewhere)} file names name another folder "
                f"({shown(self.elsewhere[0])}); the images of these names in {self.images.folder} "
                "are taken."
            )
        if self.without_area:
            told.append(told_without_area(self.file.path, self.without_area))
        return told

    def _locate(self, file_name: str) -> Path:
        """The image of an entry, whatever folders a tool wrote before its name.

        As the file says; with another ending; below the images' folder where that is a part of the
        name; and by its bare name, if only one entry has that, and the folder that is named is not
        here: then the file speaks of the machine that it was written on.
        """
        parts, inner = _parts(file_name), inside(file_name)
        if inner is not None and (path := self._find(inner)):
            return path
        below = self.images.folder.name
        tails = enumerate(parts[:-1], start=1)
        others = ["/".join(parts[k:]) for k, part in tails if part == below]
        missing_here = inner is not None and self.images.has_folder("/".join(parts[:-1]))
        if self.bases[parts[-1]] == 1 and not missing_here:
            others.append(parts[-1])
        for name in others:
            if path := self._find(name):
                self.elsewhere.append(file_name)
                return path
        raise Problem(
            self.images.folder / (inner or parts[-1]),
            f"there is no such image, which {self.file.path.name} calls {shown(file_name)}; copy "
            "it there or correct its file_name",
        )

    def _find(self, name: str) -> Path | None:
        if path := self.images.named(name):
            return path
        stem = splitext(name)[0]
        # Another entry may have the same name with another ending.
        return self.images.one(stem) if self.stems[stem] < 2 and self.images.stems(stem) else None

    def _image_id(self, path: Path) -> str:
        name = path.relative_to(self.images.folder).as_posix()
        stem = splitext(name)[0]
        return name if self.stems[stem] > 1 else stem

    def _count(self, found: list[dict], objects: list[CocoObject]) -> None:
        if marks := sum(annotation.get("iscrowd") is None for annotation in found):
            self.counts["annotations without iscrowd: 0 is taken"] += marks
        if areas := sum(one.area is None for one in objects):
            told = "annotations without an area that can be meant: that of the segmentation, or of"
            self.counts[f"{told} the box, is taken"] += areas


def _parts(name: str) -> tuple[str, ...]:
    """The folders of a file name and the name itself; backslashes part them too."""
    return PurePosixPath(name.replace("\\", "/")).parts or (name,)


def _instances(
    file: CocoFile, entry: dict, objects: Sequence[CocoObject], frame: tuple[int, int]
) -> Instances | None:
    """What is drawn of an image; None when none of its objects has a segmentation.

    Where some have one, the box of an object without a pixel of its own is void: nobody said which
    pixels are its. An entry of the image named "void" (written by `als.data.convert`, unknown to
    others) holds further void pixels.
    """
    further = pack(entry["void"], frame) if entry.get("void") else None
    if not any(one.runs for one in objects):
        return None
    boxes, has_area = clip_boxes(np.array([one.corners for one in objects]), frame)
    classes, runs, void = [], [], []
    for one, box, inside_has_area in zip(objects, boxes.tolist(), has_area, strict=True):
        packed = one.runs
        if blank := packed is None or area(packed, frame) == 0:
            x1, y1, x2, y2 = box
            packed = pack([[x1, y1, x2, y1, x2, y2, x1, y2]], frame)
        classes.append(file.names.index(one.name))
        runs.append(packed)
        void.append(one.difficult or blank or not inside_has_area)
    if further:
        classes.append(None)
        runs.append(further)
        void.append(True)
    return Instances(tuple(classes), tuple(runs), tuple(void))
