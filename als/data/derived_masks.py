"""Masks made from boxes by GrabCut (Rother et al. 2004), for photographs without a mask.

A mask that is made is no truth: training takes it like any other, and `without_derived` keeps it
out of every measure of maps. Where they are written and how they are marked is told in
docs/data.md.
"""

import filecmp
import hashlib
import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin
from tqdm import tqdm

from als.data import coco_layout, voc_layout
from als.data.coco_file import read_parts
from als.data.fields import mark, numbers
from als.data.masks import fill, palette, read_class_map
from als.data.record import Record, read_photo, refuse
from als.data.rle import VOID, write_runs
from als.errors import InputError
from als.files import atomic_write, read_json, write_json
from als.images import as_rgb, open_image, reduced

ITERATIONS = 2  # five take 1.7 times as long and gain 0.003 of IoU
LONGEST = 500
"""Longest side in pixels on which GrabCut works; a larger photograph is averaged down to it."""
LOST = 0.25
"""A box of which a smaller share is object is filled: GrabCut lost the object."""
FEWEST = 16  # pixels of each of the two that GrabCut tells apart
KEPT_APART = ("val", "valid", "validation", "test")
"""Splits that measure; their photographs get no derived masks unless they are named."""
GALLERY = "derived-masks.png"
SHOWN, COLUMNS, CELL = 24, 6, 240  # photographs of the gallery, a row of it, pixels of a side


def derive_masks(
    folder: Path, splits: Sequence[str] | None = None, tell: Callable[[str], None] = print
) -> int:
    """Make masks for the photographs of a data set that have boxes and no mask at all.

    folder: in VOC's or COCO's layout. A mask that is there is left as it is, so that the same call
        goes on where one was broken off.
    splits: by default all but those that measure (val, valid, validation, test).
    tell: called with sentences about what was done.

    Returns how many masks were made, and leaves a picture of some, FOLDER/derived-masks.png.
    Raises InputError without OpenCV, for a split that is not there, and for broken files.
    """
    folder = Path(folder)
    opencv()
    in_coco = coco_layout.splits(folder)
    there = in_coco or voc_layout.splits(folder)
    if not there:
        raise InputError(f"{folder}: there is no split in it; give the folder of a data set.")
    if unknown := sorted(set(splits or ()) - set(there)):
        raise InputError(f"{folder}: no split {unknown[0]}; the splits are {', '.join(there)}.")
    wanted = splits or [split for split in there if split not in KEPT_APART]
    apart = sorted(set(there) - set(wanted)) if splits is None else []
    measuring = defaultdict(list)  # trainval holds val, in COCO's layout as copies of one name
    for split in apart:
        for record in _records(folder, split, bool(in_coco)):
            measuring[record.image_id].append(record.path)
    records = {
        r.path: (split, r)
        for split in wanted
        for r in _records(folder, split, bool(in_coco))
        if not any(filecmp.cmp(r.path, p, shallow=False) for p in measuring[r.image_id])
    }
    if apart:
        tell(f"{', '.join(apart)}: left alone, since they measure; name them to get masks, too")
    todo = [(s, r) for s, r in records.values() if r.mask is None and (~r.difficult).any()]
    tell(f"{folder}: {len(records)} photographs, {len(todo)} of them have boxes and no mask")
    if in_coco:
        for split in wanted:
            _write_coco(folder, split, [record for s, record in todo if s == split])
    else:
        _write_voc(folder, [record for _, record in todo])
    _draw_gallery(folder, [r for s in wanted for r in _records(folder, s, bool(in_coco))], tell)
    return len(todo)


def without_derived(records: Sequence[Record]) -> list[Record]:
    """The records, derived masks taken from them; warns of how many."""
    kept = [replace(r, mask=None) if is_derived(r) else r for r in records]
    if count := sum(a is not b for a, b in zip(kept, records, strict=True)):
        warnings.warn(
            f"{count} masks were made from boxes by `als data masks`: no map is measured by them.",
            stacklevel=2,
        )
    return kept


def is_derived(record: Record) -> bool:
    """Whether the mask of a record was made from its boxes."""
    source = record.mask
    if source is not None and source.kind == "coco":
        name = record.path.relative_to(source.path.parents[1]).as_posix()
        return name in _noted(_note_of(source.path))
    return source is not None and source.kind == "png" and is_marked(source.path)


def is_marked(mask: Path) -> bool:
    """Whether the PNG says that it was made. Raises InputError when it cannot be read."""
    with open_image(mask, f"{mask}: the mask cannot be read", formats=("PNG",)) as image:
        return "derived" in image.info


def object_of_pixels(photo: Image.Image, boxes: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """Whether each pixel of a photograph belongs to an object, by GrabCut: bool [H, W].

    boxes: float [N, 4], x1 y1 x2 y2 in its pixels. What lies outside all boxes is background.
    longest: side in pixels to which a larger photograph is shrunk for it.
    """
    cv2 = opencv()
    small = np.ascontiguousarray(np.asarray(reduced(photo, longest))[..., ::-1])
    scale = np.tile([small.shape[1] / photo.width, small.shape[0] / photo.height], 2)
    inside = fill(np.asarray(boxes) * scale, small.shape[:2])
    if FEWEST <= inside.sum() <= inside.size - FEWEST:  # else there is nothing to learn from
        guess = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(small, guess, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
        inside = guess == cv2.GC_PR_FGD
    large = Image.fromarray(inside.astype(np.uint8) * 255).resize(photo.size, Image.BILINEAR)
    size = (photo.height, photo.width)
    found = (np.asarray(large) > 127) & fill(boxes, size)
    whole = [fill(boxes[index : index + 1], size) for index in range(len(boxes))]
    for box in [box for box in whole if found[box].sum() < LOST * box.sum()]:
        found |= box
    return found


def object_numbers(
    path: Path, size: tuple[int, int], boxes: np.ndarray, ignored: Sequence[bool]
) -> np.ndarray:
    """The number, from 1, of the box that each pixel of an object belongs to: int [H, W], else 0.

    It is the smallest box's that holds it; an ignored one's is 0. Raises InputError for a
    photograph that cannot be read or is not of (height, width) `size`.
    """
    found = object_of_pixels(read_photo(path, size), boxes)
    numbers = np.zeros(size, dtype=np.int32)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for index in np.argsort(areas, kind="stable")[::-1]:
        numbers[fill(boxes[index : index + 1], size)] = 0 if ignored[index] else index + 1
    return np.where(found, numbers, 0)


def kept_object_map(record: Record, folder: Path) -> np.ndarray:
    """An object map from boxes: uint8 [H, W], 1 object, 0 background, 255 void, as in VOC.

    It is made once and kept in `folder`, by what it was made of. Raises InputError as
    `object_numbers`.
    """
    made_of = f"{record.path.resolve()} {record.boxes.tolist()} {record.difficult.tolist()}"
    path = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.png"
    if not path.is_file():
        values = _class_map(record)
        with atomic_write(path) as aside:
            values = np.where(values == VOID, VOID, values > 0).astype(np.uint8)
            Image.fromarray(values).save(aside, format="png")
    with Image.open(path) as image:
        return np.array(image)


def opencv():
    """The module. Raises InputError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "masks from boxes need OpenCV: pip install opencv-python-headless (the extra 'masks')."
        ) from error
    return cv2


def _records(folder: Path, split: str, in_coco: bool) -> Iterator[Record]:
    """The records of a split, of all classes. Raises Problem for the first broken file."""
    read = coco_layout.read_records if in_coco else voc_layout.read_records
    known = coco_layout.read_file(folder, split).names if in_coco else None
    for record, _ in read(folder, split, known or voc_layout.class_names(folder), refuse):
        yield record


def _add_to_note(note: Path, images: Iterable[str]) -> None:
    """Say how masks were made, and of which images, besides those that are noted."""
    record = {
        "what": "masks made from boxes; no truth: no map is measured by them",
        "by": f"als data masks: GrabCut of OpenCV {opencv().__version__}, one cut a photograph",
        "iterations": ITERATIONS,
        "longest_side": LONGEST,
        "images": sorted(_noted(note).union(images)),
    }
    write_json(note, record)
    _noted.cache_clear()


@cache
def _noted(note: Path) -> frozenset[str]:
    return frozenset(read_json(note)["images"]) if note.is_file() else frozenset()


def _note_of(path: Path) -> Path:
    return path.with_name(path.name.replace("instances_", "derived_", 1))


def _write_voc(folder: Path, records: Sequence[Record]) -> None:
    """A class mask for each record; difficult objects are void, as in VOC."""
    if not records:
        return
    if len(voc_layout.class_names(folder)) >= VOID:
        told = f"masks as files hold at most {VOID - 1} classes; use COCO's layout"
        raise InputError(f"{folder / voc_layout.CLASSES_FILE}: {told}.")
    note = folder / "SegmentationClass" / "derived.json"
    _add_to_note(note, ())
    made, made_so = [], PngImagePlugin.PngInfo()
    made_so.add_text("derived", "from boxes by als data masks")
    try:
        for record in tqdm(records, desc=folder.name, disable=None):
            image = Image.fromarray(_class_map(record))
            image.putpalette(palette())
            with atomic_write(note.parent / f"{record.image_id}.png") as aside:
                image.save(aside, format="png", pnginfo=made_so)
            made.append(record.image_id)
    finally:
        _add_to_note(note, made)


def _class_map(record: Record) -> np.ndarray:
    """The label of each pixel, uint8 [H, W], by GrabCut; an object without pixels is void."""
    numbers = object_numbers(record.path, record.size, record.boxes, record.difficult)
    void = np.setdiff1d(np.arange(len(record.boxes)), numbers - 1)
    values = np.where(fill(record.boxes[void], record.size), VOID, 0)
    labels = np.concatenate([[0], record.labels])
    return np.where(numbers > 0, labels[numbers], values).astype(np.uint8)


def _write_coco(folder: Path, split: str, records: Sequence[Record]) -> None:
    """Segmentations into a split's file, at the end; until then they wait in a file of lines."""
    if not records:
        return
    path = coco_layout.annotation_file(folder, split)
    content = read_parts(path)
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        x, y, width, height = numbers(annotation["bbox"], ("x", "y", "width", "height"), "bbox")
        if min(width, height) > 0:
            corners = (x, y, x + width, y + height)
            ignored = mark(annotation.get("iscrowd"), "iscrowd")
            of_image[annotation["image_id"]].append((annotation, corners, ignored))
    lines = path.with_name(f"derived_{split}.jsonl")
    head = {"file": hashlib.sha256(path.read_bytes()).hexdigest(), "longest_side": LONGEST}
    done = _waiting(lines, head)
    with lines.open("w") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in (head, *done.items()))
        for record in tqdm(records, desc=split, disable=None):
            name = record.path.relative_to(folder).as_posix()
            annotations, corners, ignored = zip(*of_image[record.coco.image_id], strict=True)
            if name not in done:
                found = object_numbers(record.path, record.size, np.array(corners), ignored)
                own = [found == number for number in range(1, len(corners) + 1)]
                done[name] = [write_runs(pixels) if pixels.any() else [] for pixels in own]
                file.write(json.dumps([name, done[name]]) + "\n")
                file.flush()
            for annotation, runs in zip(annotations, done[name], strict=True):
                annotation.update({"segmentation": runs, "derived": bool(runs)})
    _add_to_note(_note_of(path), (r.path.relative_to(folder).as_posix() for r in records))
    boxes = path.with_name(f"boxes_{split}.json")
    if not boxes.is_file():
        with atomic_write(boxes) as aside:
            shutil.copyfile(path, aside)
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(content))
    lines.unlink()


def _waiting(lines: Path, head: dict) -> dict[str, list]:
    """What an earlier call made of the same file, image name -> RLE of its objects."""
    if not lines.is_file():
        return {}
    first, *rest = lines.read_text().split("\n")
    whole = rest[:-1]  # what follows the last end of a line was broken off
    return dict(map(json.loads, whole)) if first == json.dumps(head) else {}


def _draw_gallery(folder: Path, records: list[Record], tell: Callable[[str], None]) -> None:
    """Some derived masks in colour on their photographs, drawn by chance, always the same."""
    derived = [record for record in records if is_derived(record)]
    if not derived:
        return
    order = np.random.default_rng(0).permutation(len(derived))[:SHOWN]
    rows = -(-len(order) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    for place, index in enumerate(sorted(order)):
        record = derived[index]
        seen = {record.mask.names[label - 1] for label in record.labels.tolist()}
        labels = read_class_map(record, sorted(seen))
        photo = as_rgb(record.path)
        tint = Image.new("RGB", photo.size, "#E69F00")
        share = np.where(labels == VOID, 60, np.where(labels > 0, 140, 0)).astype(np.uint8)
        photo = Image.composite(tint, photo, Image.fromarray(share))
        draw = ImageDraw.Draw(photo)
        for box in record.boxes.tolist():
            draw.rectangle(box, outline="#56B4E9", width=max(1, max(photo.size) // CELL))
        photo.thumbnail((CELL - 4, CELL - 4))
        sheet.paste(photo, (place % COLUMNS * CELL, place // COLUMNS * CELL))
    with atomic_write(folder / GALLERY) as aside:
        sheet.save(aside, format="png")
    tell(f"{folder / GALLERY}: {len(order)} of {len(derived)} derived masks to look at")
