"""One file of COCO's instance annotations, read whole and checked.

Checked here is what concerns the file: its parts, ids and names. Each annotation is checked with
its image, since a broken one costs that image only (`read_object`). Ids of annotations mean nothing
here: labelling tools count from 0, merged files hold them twice, and some are text.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from als.classes import COCO_WORDS
from als.data.fields import id_order, identity, mark, number, numbers, shown, text
from als.data.record import box_problem
from als.data.rle import area, pack
from als.errors import InputError

PARTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoFile:
    """An annotation file, read and grouped.

    path: the JSON file. images: its entries in its order, ids and file names checked.
    categories: id -> name, by rising id; without unused ones whose name another one has.
    annotations: image id -> the annotations of that image, in the file's order; of these, ids of
        image and category are checked.
    """

    path: Path
    images: list[dict]
    categories: dict[int | str, str]
    annotations: dict[int | str, list[dict]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The categories' names by rising id."""
        return tuple(self.categories.values())

    def in_words_of(self, classes: Iterable[str]) -> "CocoFile":
        """The file with VOC's words where `classes` have them and not COCO's (`COCO_WORDS`)."""
        wanted = set(classes)
        words = {
            theirs: ours
            for ours, theirs in COCO_WORDS.items()
            if ours in wanted - set(self.names) and theirs not in wanted
        }
        return replace(
            self, categories={id_: words.get(name, name) for id_, name in self.categories.items()}
        )


class CocoObject(NamedTuple):
    """An annotation, checked.

    told: what a sentence calls it. box: x, y, width, height, as the file has it, finite.
    corners: x1 y1 x2 y2, not yet held to the image. difficult: a crowd.
    area: the file's, None where it has none that can be meant.
    runs: the segmentation as compressed runs, None without any.
    """

    told: str
    name: str
    box: list[float]
    corners: list[float]
    difficult: bool
    area: float | None
    runs: bytes | None


def read_file(path: Path, annotated: bool = True) -> CocoFile:
    """Read a file. Raises InputError when it is missing, no JSON or no instance annotations.

    annotated: False for a file that may list images alone.
    """
    content = read_parts(path, annotated)
    try:
        return _grouped(path, *(content[part] for part in PARTS))
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error


def read_parts(path: Path, annotated: bool = True) -> dict[str, Any]:
    """All that a file holds, of which only `PARTS` are checked to be lists of objects of JSON.

    Raises InputError when they are not, or it is missing or no JSON.
    """
    try:
        content = json.loads(path.read_bytes())  # a byte-order mark is passed over
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file.") from error
    except RecursionError as error:
        raise InputError(f"{path}: its JSON is nested too deeply; export it again.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the JSON cannot be read ({error}); unpack, download or export it again."
        ) from error
    if not annotated and isinstance(content, dict):
        content.setdefault("annotations", [])
    for part in PARTS:
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            told = "it has no" if entries is None else "it has no list of"
            raise InputError(f"{path}: {told} '{part}'; instance annotations are needed here.")
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                told = f"entry {place} (from 0) of '{part}' is {shown(entry)}"
                raise InputError(f"{path}: {told}; instance annotations are needed here.")
    return content


def read_object(file: CocoFile, annotation: dict, place: int, size: tuple[int, int]) -> CocoObject:
    """Check an annotation, the `place`-th (from 1) of an image of (height, width) `size`.

    Raises ValueError, a sentence without its end, for a field that cannot be used or a box outside.
    """
    id_ = annotation.get("id")
    told = f"annotation number {place} of this image" if id_ is None else f"annotation {shown(id_)}"
    try:
        box = numbers(annotation.get("bbox"), ("x", "y", "width", "height"), "bbox")
        crowd = mark(annotation.get("iscrowd"), "iscrowd")
        segmentation = annotation.get("segmentation")
        runs = pack(segmentation, size) if segmentation else None
    except ValueError as error:
        raise ValueError(f"{told}: {error}") from error
    told = f"box {annotation['bbox']} of {told}"
    x, y, width, height = box
    corners = [x, y, x + width, y + height]
    is_flat = min(width, height) == 0  # which COCO has; a negative side is a broken file
    if not is_flat and (problem := box_problem(corners, size, told)):
        raise ValueError(problem)
    # A mask that was made from the box says nothing of the area.
    unsaid = width * height if annotation.get("derived") else None
    return CocoObject(
        told,
        file.categories[annotation["category_id"]],
        box,
        corners,
        crowd,
        _usable_area(annotation.get("area") or unsaid, size),
        runs,
    )


def area_of(one: CocoObject, size: tuple[int, int]) -> float:
    """The area of an object: what the file says, else that of its pixels, else of its box."""
    if one.area is not None:
        return one.area
    pixels = area(one.runs, size) if one.runs else 0
    return float(pixels or one.box[2] * one.box[3])


def _usable_area(value: Any, size: tuple[int, int]) -> float | None:
    """An area that an object in an image of `size` can have; COCO's measures part by it."""
    try:
        found = number(value, "area")
    except ValueError:
        return None
    return found if 0 < found <= size[0] * size[1] else None


def _grouped(path: Path, images: list, annotations: list, categories: list) -> CocoFile:
    """Raises ValueError when an id or name cannot be used or ids do not fit together."""
    if not images:
        raise ValueError("it lists no image")
    known: dict[int | str, str] = {}
    for place, entry in enumerate(images):
        told = f"of image {place} (from 0)"
        name = text(entry.get("file_name"), f"file_name {told}")
        entry["id"] = id_ = identity(entry.get("id"), f"id {told}")
        if id_ in known:
            both = f"{shown(known[id_])} and {shown(name)}"
            raise ValueError(f"the images {both} have one id, {shown(id_)}; give each its own")
        known[id_] = name
    named: dict[int | str, str] = {}
    for place, entry in enumerate(categories):
        told = f"of category {place} (from 0)"
        id_ = identity(entry.get("id"), f"id {told}")
        if id_ in named:
            raise ValueError(f"two of its categories have the id {shown(id_)}; give each its own")
        named[id_] = text(entry.get("name"), f"name {told}").strip()
    grouped = defaultdict(list)
    for place, annotation in enumerate(annotations):
        for key, ids in (("image_id", known), ("category_id", named)):
            value = annotation.get(key)
            # A list can be no key; a float is one, of the whole number.
            can_be = isinstance(value, int | float | str) and not isinstance(value, bool)
            if not (can_be and value in ids):
                told = shown(annotation.get("id", f"at place {place}"))
                listed = "images" if key == "image_id" else "categories"
                raise ValueError(
                    f"annotation {told} has {key} {shown(value)}, which the file does not list "
                    f"among its {listed}; correct it"
                )
        grouped[annotation["image_id"]].append(annotation)
    used = {annotation["category_id"] for annotation in annotations}
    return CocoFile(path, images, _distinct(named, used), dict(grouped))


def _distinct(named: dict[int | str, str], used: set) -> dict[int | str, str]:
    """The categories by rising id, without unused ones of a doubled name, as Roboflow's root."""
    counts = Counter(named.values())
    kept = {}
    for id_ in sorted(named, key=id_order):
        name = named[id_]
        if counts[name] > 1 and id_ not in used:
            counts[name] -= 1
            continue
        if name in kept.values():
            raise ValueError(
                f"two of its categories are called {shown(name)} and both have annotations; rename "
                "one, or give their annotations one category_id"
            )
        kept[id_] = name
    return kept
