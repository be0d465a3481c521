"""Writes the export of a labelling tool as a data set in COCO's layout, which keeps all of it."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from als.data.convert import image_entry, new_folder, write_split
from als.data.exports import read_export
from als.data.labelled import Export, Labelled, LabelledPhoto, LeftOut, Report
from als.data.record import Problem, read_photo
from als.data.rle import area, pack
from als.errors import InputError
from als.files import write_json

VAL_SHARE = 0.2  # of the photographs, where an export has no splits and none are asked for
TOLD = 20  # lines about what was left out; all are in the record
RECORD = "import.json"
"""What was imported and what was left out, in the new folder."""


@dataclass(frozen=True)
class Imported:
    """What was written.

    kind: of the export. table: a row a split: images, those without objects, objects with a mask,
        crowds or difficult ones, and the others of each class. left_out, notes: see
        `als.data.labelled`.
    """

    kind: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def import_export(
    source: Path, out: Path, val: float | None = None, test: float = 0.0, seed: int = 0
) -> Imported:
    """Write an export to `out` in COCO's layout, complete or not at all.

    source: the unpacked folder; see `als.data.exports` for which.
    out: a new folder. It gets annotations/instances_SPLIT.json, SPLIT/ with the photographs (hard
        links where the file system allows it, copies elsewhere) and import.json.
    val, test: shares of the photographs, drawn by `seed`, where the export has no splits; by
        default a fifth and none.

    A difficult object becomes a crowd. A box over the edge is clipped, and an object that has no
    area then, or that stands twice, is left out. Photographs keep their names; those of one stem
    get their folder's name before it.

    Raises InputError when `out` exists or cannot be written, for splits asked for of an export that
    has some, and when no object is left.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise InputError(f"{out}: it exists; name a new folder.")
    if seed < 0:
        raise InputError(f"seed {seed}: give at least 0.")
    left_out: list[LeftOut] = []
    export = read_export(source, left_out.append)
    for split in sorted({photo.split for photo in export.photos}):
        if re.search(r"[:+/\\]", split):
            raise InputError(
                f"{source}: its split '{split}' has one of the signs : + / \\, which part names of "
                "data; rename its folder or file."
            )
    photos = _checked(export, left_out.append)
    if not any(photo.objects for photo in photos):
        why = "none of its photographs shows one" if photos else "there is no photograph in it"
        if left_out:
            told = f"{len(left_out)} files or entries are broken; the first: "
            why = told + _told(left_out[0]).rstrip(".")
        raise InputError(
            f"{source}: an export ({export.kind}) of which no object can be used: {why}."
        )
    shares = _shares(photos, source, val, test)
    photos = _divided(photos, shares, seed) if shares else photos
    with new_folder(out) as made:
        table = _write(photos, export.classes, _names(photos, source), made)
        done = Imported(
            export.kind, tuple(export.classes), table, tuple(left_out), tuple(export.notes)
        )
        write_json(made / RECORD, _record(done, source, shares and shares | {"seed": seed}))
    return done


def summary(done: Imported) -> str:
    """What was imported, for people; of what was left out the first `TOLD` lines."""
    lines = [f"{done.kind}; classes: {', '.join(done.classes)}", done.table.T.to_string()]
    lines += [f"note: {note}" for note in done.notes]
    for what, count in Counter(one.what for one in done.left_out).items():
        lines.append(f"left out: {count} {what}{'s' if count > 1 else ''}")
    lines += [f"  {_told(one)}" for one in done.left_out[:TOLD]]
    if len(done.left_out) > TOLD:
        lines.append(f"  and {len(done.left_out) - TOLD} more, all in {RECORD}")
    return "\n".join(lines)


def _told(one: LeftOut) -> str:
    return f"{one.file}: {one.why}"


def _record(done: Imported, source: Path, made: dict | None) -> dict:
    return {
        "source": source.name,
        "kind": done.kind,
        "classes": done.classes,
        "splits": "of the export" if made is None else made,
        "counts": {split: row.to_dict() for split, row in done.table.iterrows()},
        "notes": done.notes,
        "left_out": [one._asdict() for one in done.left_out],
    }


def _checked(export: Export, report: Report) -> list[LabelledPhoto]:
    """The photographs that can be used, with their true size and boxes inside it."""
    kept, clipped = [], 0
    listed = defaultdict(list)
    for photo in export.photos:
        listed[photo.path.resolve()].append(photo)
    for photo in tqdm(export.photos, desc="photographs", disable=None):
        try:
            first, *others = listed[photo.path.resolve()]
            if any(other.objects != first.objects for other in others):
                raise Problem(photo.path, "it is listed more than once, with other objects")
            if photo is not first:
                raise Problem(photo.path, f"it is listed again, for {photo.split or 'the set'}")
            width, height = read_photo(photo.path, photo.size).size
            size = (height, width)
            objects, over = _inside(photo, size, report)
            clipped += over
        except Problem as problem:
            report(LeftOut("photograph", problem.file, problem.problem))
            continue
        kept.append(replace(photo, objects=objects, size=size))
    if clipped:
        export.notes.append(f"{clipped} boxes lay over an edge of their photograph: clipped")
    return kept


def _inside(
    photo: LabelledPhoto, size: tuple[int, int], report: Report
) -> tuple[list[Labelled], int]:
    """The objects that have an area in the photograph, each once, and how many were clipped.

    Raises Problem for an outline that cannot be read.
    """
    try:
        _ = photo.void and pack(photo.void, size)
    except (ValueError, TypeError, KeyError) as error:
        raise Problem(photo.path, f"its void pixels cannot be read ({error})") from error
    edge = np.array([size[1], size[0]] * 2, dtype=float)
    kept: list[Labelled] = []
    clipped = 0
    for thing in photo.objects:
        box = np.clip(thing.box, 0, edge)
        told = f"{thing.name} {', '.join(f'{value:g}' for value in thing.box)}"
        try:
            whole = thing.segmentation
            if isinstance(whole, list):  # a line or a point outlines nothing
                whole = [polygon for polygon in whole if len(polygon) >= 6]
            if whole:
                pack(whole, size)
        except (ValueError, TypeError, KeyError) as error:
            raise Problem(photo.path, f"the outline of {told} cannot be read ({error})") from error
        inside = Labelled(thing.name, tuple(box.tolist()), whole, thing.ignored)
        if box[2] <= box[0] or box[3] <= box[1]:
            report(LeftOut("object", photo.path, f"{told}: its box has no area in the photograph"))
        elif inside in kept:
            report(LeftOut("object", photo.path, f"{told}: it stands there twice"))
        else:
            clipped += bool(np.abs(box - thing.box).max() > 1e-3)
            kept.append(inside)
    return kept, clipped


def _shares(
    photos: Sequence[LabelledPhoto], source: Path, val: float | None, test: float
) -> dict[str, float] | None:
    """The share of val and test; None where the export's own splits are kept."""
    splits = {photo.split for photo in photos}
    asked = val is not None or test > 0
    if splits == {""} or (asked and len(splits) == 1):
        shares = {"val": VAL_SHARE if val is None else val, "test": test}
        if not (min(shares.values()) >= 0 and sum(shares.values()) < 1):  # so NaN, too
            raise InputError(
                f"--val {shares['val']} --test {test}: give shares from 0, together under 1."
            )
        return shares
    if asked:
        raise InputError(
            f"{source}: it has the splits {', '.join(sorted(filter(None, splits)))}, which are "
            "kept; leave --val and --test out."
        )
    return None


def _divided(
    photos: Sequence[LabelledPhoto], shares: dict[str, float], seed: int
) -> list[LabelledPhoto]:
    """The photographs with a split drawn for each; the same for the same paths and seed.

    Raises InputError where none is left for train.
    """
    order = np.random.default_rng(seed).permutation(len(photos))
    ranked = sorted(range(len(photos)), key=lambda index: photos[index].path)
    splits = ["train"] * len(photos)
    start = 0
    for split, share in shares.items():
        count = max(round(share * len(photos)), int(share > 0 and len(photos) > 2))
        for place in order[start : start + count]:
            splits[ranked[place]] = split
        start += count
    if "train" not in splits:
        raise InputError(
            f"--val {shares['val']} --test {shares['test']}: of {len(photos)} photographs none is "
            "left to train on; give smaller shares."
        )
    return [replace(photo, split=split) for photo, split in zip(photos, splits, strict=True)]


def _names(photos: Sequence[LabelledPhoto], source: Path) -> list[str]:
    """A file name for each photograph, no two of one stem."""
    stems = Counter(photo.path.stem.casefold() for photo in photos)
    names, taken = [], set()
    for photo in photos:
        path, name = photo.path, photo.path.name.replace("\\", "-")  # which parts folders elsewhere
        if stems[path.stem.casefold()] > 1:
            inside = path.is_relative_to(source)
            name = "-".join(path.relative_to(source).parts if inside else path.parts[1:])
        stem, number = Path(name).stem, 2
        while Path(name).stem.casefold() in taken:
            name, number = f"{stem}-{number}{path.suffix}", number + 1
        taken.add(Path(name).stem.casefold())
        names.append(name)
    return names


def _write(
    photos: Sequence[LabelledPhoto], classes: Sequence[str], names: Sequence[str], out: Path
) -> pd.DataFrame:
    """Write all splits below `out`; returns the table of `Imported`."""
    ids = {name: number for number, name in enumerate(classes, start=1)}
    order = {"train": 0, "val": 1, "valid": 1, "test": 2}
    of_split: dict[str, list[tuple[dict, Path, list[dict]]]] = defaultdict(list)
    for number, (photo, name) in enumerate(zip(photos, names, strict=True), start=1):
        entry = image_entry(number, name, photo.size, photo.void)
        objects = [_annotation(thing, photo.size, ids) for thing in photo.objects]
        of_split[photo.split or "train"].append((entry, photo.path, objects))
    rows = {}
    for split in sorted(of_split, key=lambda name: (order.get(name, 3), name)):
        found = write_split(out, split, classes, of_split[split])
        per_class = Counter(a["category_id"] for a in found if not a["iscrowd"])
        rows[split] = {
            "images": len(of_split[split]),
            "without objects": sum(not objects for *_, objects in of_split[split]),
            "with a mask": sum(bool(a["segmentation"]) for a in found),
            "crowds or difficult": sum(a["iscrowd"] for a in found),
        } | {name: per_class[number] for name, number in ids.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _annotation(thing: Labelled, size: tuple[int, int], ids: dict[str, int]) -> dict:
    """An annotation of COCO's, without the ids of its own and of its image."""
    x1, y1, x2, y2 = thing.box
    whole = thing.segmentation
    pixels = area(pack(whole, size), size) if whole else 0
    return {
        "category_id": ids[thing.name],
        "bbox": [round(value, 4) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": pixels or round((x2 - x1) * (y2 - y1), 4),
        "iscrowd": int(thing.ignored),
        "segmentation": whole if pixels else [],
    }
