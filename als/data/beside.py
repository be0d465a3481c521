"""Annotations that lie beside photographs: VOC's XML files by name, or one of COCO's files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from als.data.coco_file import read_file, read_object
from als.data.fields import size
from als.data.record import Record, record_of, size_problem
from als.data.voc_layout import check_boxes, read_annotation
from als.errors import InputError
from als.images import image_size

MAX_BYTES = 8 * 2**20  # of an annotation file
SUFFIXES = (".xml", ".json")
Found = tuple[Record, set[str]] | None
"""A record and the classes of all its objects; None for what is of no photograph here."""


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
    for name, path in annotations.items():
        read = _read_coco if path.suffix.lower() == ".json" else _read_voc
        try:
            if path.stat().st_size > MAX_BYTES:
                raise InputError(
                    f"{path}: over the limit of {MAX_BYTES // 2**20} MB; cut it down to what is "
                    "said of these photographs."
                )
            for found in read(path, name, photographs, classes):
                if found is None:
                    unused += 1
                    continue
                record, names = found
                if record.image_id in records:
                    told = "is annotated a second time here; take one of the two out"
                    raise InputError(f"{path}: {record.image_id} {told}.")
                records[record.image_id] = record
                others |= names - set(classes)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
    told = []
    if unused:
        told.append(f"{unused} annotated images are not among these photographs.")
    if others:
        some = ", ".join(sorted(others)[:5])
        told.append(f"Objects of classes that this model does not know are left out: {some}.")
    return records, told


def _read_voc(
    xml: Path, name: str, photographs: Mapping[str, Path], classes: Sequence[str]
) -> Iterator[Found]:
    stem = PurePosixPath(name).stem
    fits = [photograph for photograph in photographs if PurePosixPath(photograph).stem == stem]
    if not fits:
        yield None
        return
    if len(fits) > 1:
        raise InputError(f"{xml}: it fits {' and '.join(fits[:2])}; rename one of them.")
    path = photographs[fits[0]]
    annotation, frame = read_annotation(xml), image_size(path)
    if annotation.size and (problem := size_problem(path, frame, annotation.size)):
        raise InputError(f"{xml}: {problem}.")
    check_boxes(annotation, xml, frame)
    yield record_of(fits[0], path, frame, annotation.objects, classes)[0], set(annotation.names)


def _read_coco(
    json: Path, _: str, photographs: Mapping[str, Path], classes: Sequence[str]
) -> Iterator[Found]:
    file = read_file(json).in_words_of(classes)
    for entry in file.images:
        name = PurePosixPath(entry["file_name"].replace("\\", "/")).name
        if name not in photographs:
            yield None
            continue
        path, frame = photographs[name], image_size(photographs[name])
        # Outlines are not used here, and a broken one harms nothing.
        found = [one | {"segmentation": None} for one in file.annotations.get(entry["id"], [])]
        try:
            told = size(entry.get("height"), entry.get("width")) or frame
            if problem := size_problem(path, frame, told):
                raise ValueError(problem)
            objects = [read_object(file, one, n, frame) for n, one in enumerate(found, start=1)]
        except ValueError as error:
            raise InputError(f"{json}: image {name}: {error}.") from error
        yield record_of(name, path, frame, objects, classes)[0], {one.name for one in objects}
