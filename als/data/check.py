"""Says what is wrong with a data set, file by file, before hours of training find out."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from als.data import coco_layout, voc_layout
from als.data.exports import advice
from als.data.masks import find_masks, read_class_map
from als.data.record import Problem, Record, nothing_to_count, read_photo, told_doubled
from als.errors import InputError
from als.images import exif_orientation


def check_folder(
    folder: Path,
    classes: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> pd.DataFrame:
    """Read every file of a data set in VOC's or COCO's layout and tell which are broken.

    folder: a folder with JPEGImages/ or with annotations/instances_*.json, or one that holds such
        folders (VOC2007/, VOC2012/, coco2017/, ...).
    classes: what is to be detected, as a training's `model.classes`; by default the classes of
        classes.txt, else VOC's, or the categories of a COCO file.
    tell: called with sentences about what is unusual but not broken, as images without annotations
        or photographs that EXIF turns.

    Reads by the functions that training and evaluation read by, and decodes each image and mask to
    its end besides.

    Returns a table with the columns file and problem, a row for each problem. Raises InputError
    when the folder holds no such data set.
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
        found += _check_voc(part, classes, tell)
    for part, split in in_coco:
        found += _check_coco(part, split, classes, tell)
    rows = [(str(problem.file), problem.problem) for problem in found]
    return pd.DataFrame(rows, columns=["file", "problem"], dtype="str")


def refuse_problems(problems: pd.DataFrame, folder: Path) -> None:
    """Print the table of `check_folder` and raise InputError, unless it is empty."""
    if len(problems):
        print(problems.to_string(index=False))
        raise InputError(
            f"{folder}: {len(problems)} problems, see the table above; mend or download the files "
            f"again. {advice(folder)}"
        )


def _check_coco(
    folder: Path, split: str, classes: Sequence[str] | None, tell: Callable[[str], None]
) -> list[Problem]:
    """All problems of one split in COCO's layout."""
    found: list[Problem] = []
    path = coco_layout.annotation_file(folder, split)
    try:
        file = coco_layout.read_file(folder, split)
        names = file.names if classes is None else classes
        with _warnings_told(tell):
            read = coco_layout.read_records(folder, split, names, found.append, file)
            records = [record for record, _ in read]
    except InputError as error:
        return [Problem.of(path, error)]
    if records and (told := nothing_to_count(records)):
        found.append(Problem(path, told))
    found += _image_problems_of(records, split)
    _tell_unusual(path, records, tell)
    if not found:
        for sentence in coco_layout.notes(file):
            tell(sentence)
    return found


def _check_voc(
    folder: Path, classes: Sequence[str] | None, tell: Callable[[str], None]
) -> list[Problem]:
    """All problems of one folder with JPEGImages/: of its splits, each image read once."""
    found: list[Problem] = []
    images = voc_layout.image_folder(folder)
    listed: dict[str, list[str]] = {}
    names = voc_layout.splits(folder)
    if not names:
        told = "there is no list of images here; write one, an id a line"
        return [Problem(voc_layout.listing_file(folder, "train"), told)]
    with _warnings_told(tell):
        for split in names:
            try:
                listed[split] = voc_layout.read_split(folder, split, images)
            except InputError as error:
                found.append(Problem.of(voc_layout.listing_file(folder, split), error))
        ids = dict.fromkeys(image_id for some in listed.values() for image_id in some)
        pairs: dict[str, tuple[Record, tuple[str, ...]]] = {}
        try:
            known = voc_layout.class_names(folder)
            chosen = known if classes is None else classes
            for pair in voc_layout.read_images(folder, ids, chosen, found.append, images):
                pairs[pair[0].image_id] = pair
        except InputError as error:
            found.append(Problem.of(folder / voc_layout.CLASSES_FILE, error))
            known = None
    for split, some in listed.items():
        own = [pairs[image_id][0] for image_id in some if image_id in pairs]
        if own and (told := nothing_to_count(own)):
            found.append(Problem(voc_layout.listing_file(folder, split), told))
    records = [record for record, _ in pairs.values()]
    found += _image_problems_of(records, folder.name)
    if known is not None:
        for record, objects in pairs.values():
            for mask in find_masks(folder, record.image_id, known, objects):
                try:
                    read_class_map(replace(record, mask=mask), known)
                except InputError as error:
                    found.append(Problem.of(mask.path, error))
    _tell_unusual(images.folder, records, tell)
    if unlisted := images.count() - sum(bool(images.stems(image_id)) for image_id in ids):
        tell(f"{images.folder}: {unlisted} images are in no split; nothing uses them.")
    return found


@contextmanager
def _warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """What reading warns of goes to `tell`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # what libraries say of themselves
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        tell(str(warning.message))


def _image_problems_of(records: Sequence[Record], title: str) -> Iterator[Problem]:
    for record in tqdm(records, desc=title, disable=None):
        try:
            read_photo(record.path, record.size)
        except Problem as problem:
            yield problem


def _tell_unusual(place: Path, records: Sequence[Record], tell: Callable[[str], None]) -> None:
    if told := told_doubled(place, records):
        tell(told)
    if turned := sum(exif_orientation(record.path) > 1 for record in records):
        tell(
            f"{place}: photographs that EXIF turns: {turned}; their boxes and masks must count in "
            "the turned frame, as viewers and labelling tools show it."
        )
