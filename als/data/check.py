"""Says what is wrong with a data set, file by file, before hours of training find out."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from als.data import coco_layout
from als.data.exports import advice
from als.data.masks import find_masks, read_class_map
from als.data.record import Problem, Record, box_problem, size_problem
from als.data.voc_layout import Annotation, class_names, read_annotation, read_split
from als.errors import InputError
from als.images import as_rgb, exif_orientation, image_size


def check_folder(
    folder: Path,
    classes: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> pd.DataFrame:
    """Read every file of a data set in VOC's or COCO's layout and tell which are broken.

    folder: a folder with JPEGImages/ or with annotations/instances_*.json, or one that holds such
        folders (VOC2007/, VOC2012/, coco2017/, ...).
    classes: the class names that may occur; by default those of classes.txt, else VOC's, or the
        categories of a COCO file.
    tell: called with sentences about what is unusual but not broken, as images without annotations
        or photographs that EXIF turns.

    Returns a table with the columns file and problem, a row for each problem; it is empty when
    all is well. Problems are: a file that a split lists is missing, an image that does not decode
    to its end, XML or JSON that does not parse, an unknown class, a box outside the image or of no
    area, an image size unlike the annotation's, a mask that cannot be read or is of another size.

    Raises InputError when the folder holds no such data set.
    """
    folder = Path(folder)
    parts = (folder, *sorted(folder.glob("*")))
    voc = [part for part in parts if (part / "JPEGImages").is_dir()]
    in_coco = [(part, split) for part in parts for split in coco_layout.splits(part)]
    if not voc and not in_coco:
        raise InputError(
            f"{folder}: there is no JPEGImages/ and no annotations/instances_*.json in it or one "
            f"level below to check. {advice(folder)}"
        )
    found: list[Problem] = []
    for part in voc:
        found += _check_set(part, class_names(part) if classes is None else tuple(classes))
        _tell_turned(part, (part / "JPEGImages").glob("*.jpg"), tell)
    for part, split in in_coco:
        found += _check_coco(part, split, classes, tell)
    rows = [(str(problem.file), problem.problem) for problem in found]
    return pd.DataFrame(rows, columns=["file", "problem"], dtype="str")


def refuse_problems(
    problems: pd.DataFrame, folder: Path, tell: Callable[[str], None] = print
) -> None:
    """Tell the table of `check_folder` and raise InputError, unless it is empty."""
    if len(problems):
        tell(problems.to_string(index=False))
        raise InputError(
            f"{folder}: {len(problems)} problems, see the table above; mend or download the files "
            f"again. {advice(folder)}"
        )


def _check_coco(
    folder: Path, split: str, classes: Sequence[str] | None, tell: Callable[[str], None]
) -> list[Problem]:
    """All problems of one split in COCO's layout. Objects of no area are told, not a problem."""
    found: list[Problem] = []
    path = coco_layout.annotation_file(folder, split)
    try:
        file = coco_layout.read_file(folder, split)
        names = file.names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `coco_layout.notes` says the same
            entries = list(coco_layout.read_records(folder, split, names, found.append, file))
    except InputError as error:
        return [Problem.of(path, error)]
    unknown = () if classes is None else sorted(set(names) - set(classes))
    found += [Problem(path, f"class '{name}' is not known") for name in unknown]
    for record, _ in tqdm(entries, desc=split, disable=None):
        found += _image_problems(record.path, record.size)
    _tell_turned(path, (record.path for record, _ in entries), tell)
    if not found:
        for sentence in coco_layout.notes(file):
            tell(sentence)
    return found


def _check_set(folder: Path, known: tuple[str, ...]) -> Iterator[Problem]:
    """All problems of one folder with JPEGImages/."""
    listed: dict[str, list[str]] = {}
    for file in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        try:
            for image_id in read_split(folder, file.stem):
                listed.setdefault(image_id, []).append(file.name)
        except InputError as error:
            yield Problem.of(file, error)
    images = {file.stem for file in (folder / "JPEGImages").glob("*.jpg")}
    annotated = {file.stem for file in (folder / "Annotations").glob("*.xml")}
    for image_id in tqdm(sorted(images | annotated | set(listed)), desc=folder.name, disable=None):
        image = folder / "JPEGImages" / f"{image_id}.jpg"
        xml = folder / "Annotations" / f"{image_id}.xml"
        for file, there in ((image, image_id in images), (xml, image_id in annotated)):
            if image_id in listed and not there:
                lists = ", ".join(dict.fromkeys(listed[image_id]))
                yield Problem(file, f"it is missing but listed in {lists}")
        if image_id not in listed and image_id not in images:
            yield Problem(xml, f"its image {image_id}.jpg is missing")
        yield from _check_image(folder, image_id, image_id in images, image_id in annotated, known)


def _check_image(
    folder: Path, image_id: str, has_image: bool, has_xml: bool, known: tuple[str, ...]
) -> Iterator[Problem]:
    """The problems in the files of one image, of those files that are there."""
    annotation, size = None, None
    image = folder / "JPEGImages" / f"{image_id}.jpg"
    if has_xml:
        try:
            annotation = read_annotation(folder / "Annotations" / f"{image_id}.xml")
            size = annotation.size
        except Problem as error:
            yield error
    if has_image:
        found = list(_image_problems(image, size))
        yield from found
        if size is None and not found:
            size = image_size(image)
    if annotation is None or size is None:
        return  # without a size neither boxes nor masks can be judged
    yield from _annotation_problems(folder, image_id, annotation, size, known)
    record = Record(image_id, image, size, annotation.boxes, np.zeros(0), np.zeros(0), None)
    for mask in find_masks(folder, image_id, class_names(folder), annotation.names):
        yield from _mask_problems(replace(record, mask=mask), known)


def _annotation_problems(
    folder: Path,
    image_id: str,
    annotation: Annotation,
    size: tuple[int, int],
    known: tuple[str, ...],
) -> Iterator[Problem]:
    xml = folder / "Annotations" / f"{image_id}.xml"
    for name in sorted(set(annotation.names) - set(known)):
        yield Problem(xml, f"class '{name}' is not known")
    for box in annotation.boxes:
        if problem := box_problem(box, size):
            yield Problem(xml, problem)


def _image_problems(path: Path, size: tuple[int, int] | None) -> Iterator[Problem]:
    """Whether the image decodes, and to (height, width) `size` if that is known."""
    try:
        width, height = as_rgb(path, name=str(path)).size
    except InputError as error:
        yield Problem.of(path, error)
        return
    if size is not None and (problem := size_problem(path, (height, width), size)):
        yield Problem(path, problem)


def _tell_turned(place: Path, images: Iterable[Path], tell: Callable[[str], None]) -> None:
    if turned := sum(exif_orientation(path) > 1 for path in images):
        tell(
            f"{place}: photographs that EXIF turns: {turned}; their boxes and masks must count in "
            "the turned frame, as viewers and labelling tools show it."
        )


def _mask_problems(record: Record, classes: Sequence[str]) -> Iterator[Problem]:
    try:
        read_class_map(record, classes)
    except InputError as error:
        yield Problem.of(record.mask.path, error)
