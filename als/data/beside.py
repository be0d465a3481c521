"""Annotations that lie beside photographs: VOC's XML files by name, or one of COCO's files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from als.data.coco_file import read_file, read_object
from als.data.coco_layout import corners
from als.data.fields import size
from als.data.record import Record, clip_boxes, size_problem
from als.data.voc_layout import read_annotation, record_of
from als.errors import InputError
from als.images import image_size

MAX_BYTES = 8 * 2**20  # of an annotation file
SUFFIXES = (".xml", ".json")


def records_beside(
    photographs: Mapping[str, Path], annotations: Mapping[str, Path], classes: Sequence[str]
) -> tuple[dict[str, Record], list[str]]:
    """What annotation files say of photographs.

    photographs, annotations: the files by the names that they were given; an XML file is that of
    the photograph of its stem, an image of a COCO file the photograph of its bare name.
    classes: label k is `classes[k - 1]`; objects of others are left out.

    Returns a record of each photograph that is annotated, by name, without a mask; and sentences
    about what was left out. Raises InputError, which names the file, for one that cannot be used.
    """
    records: dict[str, Record] = {}
    others: set[str] = set()
    unused = 0
    stems: dict[str, list[str]] = defaultdict(list)
    for name in photographs:
        stems[PurePosixPath(name).stem].append(name)
    for name, path in annotations.items():
        try:
            if path.stat().st_size > MAX_BYTES:
                raise InputError(
                    f"{path}: over the limit of {MAX_BYTES // 2**20} MB; cut it down to what is "
                    "said of these photographs."
                )
            if path.suffix.lower() == ".json":
                unused += _read_coco(path, photographs, classes, records, others)
            elif not (fits := stems[PurePosixPath(name).stem]):
                unused += 1
            elif len(fits) > 1:
                raise InputError(f"{path}: it fits {' and '.join(fits[:2])}; rename one of them.")
            else:
                _read_voc(path, fits[0], photographs[fits[0]], classes, records, others)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
    told = []
    if unused:
        told.append(f"{unused} annotated images are not among these photographs.")
    if others:
        some = ", ".join(sorted(others)[:5])
        told.append(f"Objects of classes that this model does not know are left out: {some}.")
    return records, told


def _read_voc(xml: Path, name: str, path: Path, classes, records: dict, others: set) -> None:
    annotation, frame = read_annotation(xml), image_size(path)
    if annotation.size and (problem := size_problem(path, frame, annotation.size)):
        raise InputError(f"{xml}: {problem}.")
    _put(records, record_of(annotation, xml, name, path, frame, classes)[0], xml)
    others |= set(annotation.names) - set(classes)


def _read_coco(json: Path, photographs, classes, records: dict, others: set) -> int:
    """Puts records; gives the number of images that are no photographs of these."""
    file, unused = read_file(json), 0
    for entry in file.images:
        name = PurePosixPath(entry["file_name"].replace("\\", "/")).name
        if name not in photographs:
            unused += 1
            continue
        path, frame = photographs[name], image_size(photographs[name])
        # Outlines are not used here, and a broken one harms nothing.
        found = [one | {"segmentation": None} for one in file.annotations.get(entry["id"], [])]
        try:
            told = size(entry.get("height"), entry.get("width")) or frame
            if problem := size_problem(path, frame, told):
                raise ValueError(problem)
            objects = [read_object(file, one, n, frame) for n, one in enumerate(found, start=1)]
            boxes, has_area = clip_boxes(np.array([corners(o, frame) for o in objects]), frame)
        except ValueError as error:
            raise InputError(f"{json}: image {name}: {error}.") from error
        kept = [i for i, o in enumerate(objects) if o.name in classes and has_area[i]]
        record = Record(
            image_id=name,
            path=path,
            size=frame,
            boxes=boxes[kept],
            labels=np.array([classes.index(objects[i].name) + 1 for i in kept], np.int64),
            difficult=np.array([objects[i].crowd for i in kept], bool),
            mask=None,
        )
        _put(records, record, json)
        others |= {o.name for o in objects} - set(classes)
    return unused


def _put(records: dict, record: Record, file: Path) -> None:
    if record.image_id in records:
        told = "is annotated a second time here; take one of the two out"
        raise InputError(f"{file}: {record.image_id} {told}.")
    records[record.image_id] = record
