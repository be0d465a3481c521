"""The one door to data sets: `load_records`, whatever layout they are in."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from als.data import coco_layout, voc_layout
from als.data.exports import advice
from als.data.record import Problem, Record, nothing_to_count, told_doubled
from als.errors import InputError

Report = Callable[[Problem], None]


class Layout(NamedTuple):
    """How data sets of one kind are read; one more is a module and an entry of `LAYOUTS`.

    is_here: (folder, split) -> whether the split is to be read so, complete or not.
    listing: (folder, split) -> the file that lists its images.
    names: (folder, split) -> all of its classes.
    read: (folder, split, classes, report) -> each record with the names of all its objects;
        `report` is told each image that cannot be used.
    """

    is_here: Callable[[Path, str], bool]
    listing: Callable[[Path, str], Path]
    names: Callable[[Path, str], tuple[str, ...]]
    read: Callable[[Path, str, Sequence[str], Report], Iterator[tuple[Record, tuple[str, ...]]]]


LAYOUTS = (  # the first that is there
    Layout(
        coco_layout.is_layout,
        coco_layout.annotation_file,
        lambda folder, split: coco_layout.read_file(folder, split).names,
        coco_layout.read_records,
    ),
    Layout(
        lambda folder, split: True,
        voc_layout.listing_file,
        lambda folder, split: voc_layout.class_names(folder),
        voc_layout.read_records,
    ),
)


def all_classes(spec: str, root: Path) -> tuple[str, ...]:
    """The classes of splits, as `load_records` names them. Raises InputError as it does."""
    parts = _parse_spec(spec, Path(root))
    return tuple(dict.fromkeys(name for part in parts for name in _layout(*part).names(*part)))


def load_records(
    spec: str,
    root: Path,
    classes: Sequence[str],
    on_error: Callable[[Problem], None] | None = None,
) -> list[Record]:
    """Read the images and annotations of one or several splits, in the order of the files.

    spec: splits joined by "+", each FOLDER:SPLIT, as "VOC2007:trainval + VOC2012:trainval" or
        "coco2017:val2017".
    root: the folder that holds those folders, in COCO's or VOC's layout (docs/data.md).
    classes: what to detect; objects of the data set's other classes are left out. Images without
        any object of `classes` are kept, since an evaluation counts false detections on them too.
    on_error: called with every broken file (no such image, XML that does not parse, a class that
        neither the data set nor `classes` has, box outside the image or of no area, ...), and the
        image is left out. Without it all files are read and then one InputError tells how many
        are broken and what is wrong with the first.

    Warns of what is unusual but can be used. Raises InputError also for a malformed spec, a
    missing folder or split, and when no image has an object of `classes` that counts: that is
    neither difficult nor a crowd.
    """
    classes = _checked_classes(classes)
    problems: list[Problem] = []
    report = on_error or problems.append
    records: dict[str, Record] = {}
    seen: set[str] = set()
    parts = _parse_spec(spec, Path(root))
    for folder, split in parts:
        layout = _layout(folder, split)
        try:
            for record, names in layout.read(folder, split, classes, report):
                if record.image_id in records:
                    told = f"lists {record.image_id}, which '{spec}' already holds"
                    report(Problem(layout.listing(folder, split), told))
                    continue
                records[record.image_id] = record
                seen.update(names)
        except InputError as error:  # where an export is taken for a data set, this says so
            raise InputError(f"{error} {advice(folder)}") from error
    if problems:
        told = next(filter(None, (advice(folder) for folder, _ in parts)), "")
        raise InputError(
            f"{problems[0]} It is one of {len(problems)} broken files in '{spec}'; "
            f"`als data check` lists them all. {told}"
        )
    if not any(len(record.labels) for record in records.values()):
        raise InputError(
            f"'{spec}' below {root} holds no object of {', '.join(classes)}; "
            f"its classes are {', '.join(sorted(seen)) or 'none'}."
        )
    if told := nothing_to_count(records.values()):
        raise InputError(f"'{spec}' below {root}: {told}.")
    if told := told_doubled(f"'{spec}' below {root}", records.values()):
        warnings.warn(told, stacklevel=2)
    return list(records.values())


def _layout(folder: Path, split: str) -> Layout:
    return next(one for one in LAYOUTS if one.is_here(folder, split))


def _parse_spec(spec: str, root: Path) -> list[tuple[Path, str]]:
    """Names may hold spaces, those at their ends apart, and stand for one folder below the root."""
    name = r"\s*([^\s:+/\\](?:[^:+/\\]*[^\s:+/\\])?)\s*"
    pairs = [re.fullmatch(f"{name}:{name}", part) for part in spec.split("+")]
    if not all(pairs):
        raise InputError(
            f"'{spec}' names no data; write FOLDER:SPLIT, joined by + where there are several, "
            "as in 'VOC2007:trainval + VOC2012:trainval'."
        )
    return [(root / pair[1], pair[2]) for pair in pairs]


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or not names or len(set(names)) < len(names) or len(names) > 254:
        raise InputError(
            f"classes {classes!r}: give 1 to 254 different class names as a list; 255 is void."
        )
    return names
