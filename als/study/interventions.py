"""Interventions: another map in the place of A_loc or A_cls, and what becomes of the detections.

Only a map that is part of the computation can be tested so. The class branch reads F_cls alone and
the box branch F_loc alone, so each error is taken where only one of them speaks: the class at the
true box, the box from a displaced true box.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image
from tqdm import tqdm

from als.data.masks import read_object_map
from als.data.record import Record
from als.errors import InputError
from als.evaluation.average_precision import match
from als.evaluation.bootstrap import Resampled, draw_weights, resampled_ap, resampled_mean
from als.evaluation.detections import DAMAGED, Detections
from als.evaluation.evaluate import truths_of
from als.files import LONGEST_STEM, atomic_write
from als.inference import Predictor
from als.model import Detector, Encoding
from als.model.boxes import rescaled
from als.model.grid import image_to_map
from als.study.cases import own_seed

REPLACEMENTS = ("neutral", "mean", "other", "another image", "mask")
DISPLACED = 0.15  # of a box's sides: how far its corners are moved before it is refined
ERRORS = ("proposal_recall", "class_error", "box_error")
RESAMPLES = 1000

Row = tuple[str, str]  # which map is replaced ("" for none), by what
Taken = dict[str, np.ndarray]  # of one photograph: boxes, labels, scores; each of `ERRORS`


def rows_of_the_table() -> list[Row]:
    """("", "") first, then both maps by each of `REPLACEMENTS`, and both neutral at once."""
    single = [(name, by) for name in ("localization", "classification") for by in REPLACEMENTS]
    return [("", ""), *single, ("both", "neutral")]


def intervene(
    predictor: Predictor,
    records: Sequence[Record],
    seed: int = 0,
    progress: bool = True,
    folder: Path | None = None,
    shard: slice = slice(None),
) -> list[dict] | None:
    """Detections and errors under each replacement, over the photographs that have a mask.

    When one map is replaced the other stays what the network made of the untouched photograph.
    "neutral" is the form's neutral map, under which the feature stays as it is (1 where the model
    multiplies by A, 0 where by 1 + A), "other" the other of the two maps, "another image" the same
    map of the photograph before, "mask" the share of object in each cell of the grid, void pixels
    counted as background.

    Args:
        folder: keeps what was found in each photograph; what it holds is not computed again. Of
            one checkpoint and seed. None to keep nothing.
        shard: photographs to compute, of those with a mask, when several processes fill `folder`.

    Returns:
        For each row of the table: map, by, AP50, AP75, AP; proposal_recall (share of objects
        that a proposal overlaps by IoU 0.5); class_error (share of true boxes whose class, the
        softmax's largest, background included, is wrong); box_error (mean of 1 - IoU of the
        refined box with the object, from the object's box displaced at random). Each as mean,
        low and high (95%, bootstrap over images), and change, the paired difference to the first
        row. None for a shard.

    Raises InputError for a model without attention, or no photograph with a mask.
    """
    if not predictor.detector.config.attention:
        raise InputError(f"{predictor.source}: has no attention maps to replace.")
    records = masked(records)
    pairs = list(zip(records, [records[-1], *records[:-1]], strict=True))[shard]
    bar = tqdm(pairs, desc="interventions", unit="image", disable=not progress)
    taken = [_photograph(predictor, record, before, seed, folder) for record, before in bar]
    return None if len(pairs) < len(records) else _table(taken, records, predictor.classes)


def masked(records: Sequence[Record]) -> list[Record]:
    """Those with a mask. Raises InputError where there are not two, each the other's other one."""
    found = [record for record in records if record.mask is not None]
    if len(found) < 2:
        raise InputError("interventions need at least two photographs with masks.")
    return found


def interventions_table(rows: list[dict]) -> pd.DataFrame:
    """What `intervene` gives as a table: a line for each replacement and measure."""
    return pd.DataFrame(
        {"map": row["map"], "by": row["by"], "measure": name, **values}
        for row in rows
        for name, values in row.items()
        if name not in ("map", "by")
    )


def _photograph(
    predictor: Predictor, record: Record, before: Record, seed: int, folder: Path | None
) -> dict[Row, Taken]:
    """Each row of the table on one photograph; from its file, if there is one."""
    # The other photograph is a part of the name: it depends on which ones are studied.
    name = f"{record.image_id},{before.image_id}.npz".replace("/", "%2F")  # ids in subfolders
    if len(os.fsencode(name)) > LONGEST_STEM:
        name = f"{hashlib.sha256(os.fsencode(name)).hexdigest()}.npz"
    file = None if folder is None else Path(folder) / name
    if file is not None and file.exists():
        try:
            return read_arrays(file)
        except DAMAGED:
            print(f"als: {file}: is cut off or damaged; made again.", file=sys.stderr)
    detector, taken = predictor.detector, {}
    encoding, another = predictor.encode(record.path), predictor.encode(before.path)
    made, others = (encoding.a_loc, encoding.a_cls), (another.a_loc, another.a_cls)
    mask = torch.from_numpy(read_object_map(record, predictor.classes) == 1).float()
    mask = image_to_map(mask[None].to(predictor.device), detector, made[0])
    for row in rows_of_the_table():
        chosen = list(made)
        for i, name in enumerate(("localization", "classification")):
            if row[0] in (name, "both"):
                given = made[i], made[1 - i], others[i], mask
                chosen[i] = _replacement(row[1], detector.form.neutral, *given)
        changed = with_maps(detector, encoding, *chosen)
        taken[row] = _detect(detector, changed, record, own_seed(record, seed))
    if file is not None:
        write_arrays(file, taken)
    return taken


def write_arrays(path: Path, groups: dict[Row, Taken]) -> None:
    """Write arrays by row and name; neither holds a "|"."""
    flat = {
        "|".join((*row, name)): array for row, one in groups.items() for name, array in one.items()
    }
    with atomic_write(path, durable=True) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **flat)


def read_arrays(path: Path) -> dict[Row, Taken]:
    """What `write_arrays` wrote."""
    groups: dict[Row, Taken] = {}
    with np.load(path) as arrays:
        for key in arrays:
            *row, name = key.split("|")
            groups.setdefault(tuple(row), {})[name] = arrays[key]
    return groups


@torch.no_grad()
def with_maps(detector: Detector, encoding: Encoding, a_loc: Tensor, a_cls: Tensor) -> Encoding:
    """The encoding as it is with these maps [B, 1, h, w] in the place of its own."""
    return detector.attend(
        replace(encoding, override_loc=lambda *_: a_loc, override_cls=lambda *_: a_cls)
    )


def _replacement(
    by: str, neutral: float, own: Tensor, other: Tensor, before: Tensor, mask: Tensor
) -> Tensor:
    """One of `REPLACEMENTS` for a map [1, 1, h, w]."""
    if by == "neutral":
        return torch.full_like(own, neutral)
    if by == "mean":
        return own.mean().expand_as(own)
    if by == "another image":
        return F.interpolate(before, own.shape[-2:], mode="bilinear")
    return other if by == "other" else mask


@torch.no_grad()
def _detect(detector: Detector, encoding: Encoding, record: Record, seed: int) -> Taken:
    """Detect, and take the errors at the true boxes."""
    (found,) = detector.detect(encoding)
    size = encoding.images.image_sizes[0]
    easy = ~record.difficult
    boxes = rescaled(torch.from_numpy(record.boxes[easy]).to(encoding.f), record.size, size)
    labels = torch.from_numpy(record.labels[easy]).to(encoding.f.device)
    overlap = box_iou(boxes, found.proposals)
    recalled = overlap.amax(1) >= 0.5 if overlap.shape[1] else torch.zeros(len(boxes))
    guesses = detector.roi_heads.classify(encoding.f_cls, [boxes], encoding.rivals)[0].argmax(1)
    refined = _refine(detector, encoding, _displaced(boxes, seed, size), labels)
    errors = (recalled, guesses != labels, 1 - box_iou(refined, boxes).diagonal())
    taken = found.as_dict() | dict(zip(ERRORS, (e.float() for e in errors), strict=True))
    return {name: values.cpu().numpy() for name, values in taken.items()}


def _displaced(boxes: Tensor, seed: int, size: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] whose corners move by up to `DISPLACED` of the box's sides, inside the image."""
    generator = torch.Generator().manual_seed(seed)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moves = (torch.rand(boxes.shape, generator=generator) * 2 - 1) * DISPLACED
    return clip_boxes_to_image(boxes + moves.to(boxes) * sides, size)


def _refine(detector: Detector, encoding: Encoding, rois: Tensor, labels: Tensor) -> Tensor:
    """The box branch's answer [N, 4] to RoIs [N, 4] for given classes, in the same pixels."""
    deltas = detector.roi_heads.localize(encoding.f_loc, [rois]).unflatten(1, (-1, 4))
    own = deltas[torch.arange(len(rois), device=rois.device), labels]
    boxes = detector.roi_heads.box_coder.decode_single(own, rois)
    return clip_boxes_to_image(boxes, encoding.images.image_sizes[0])


def _table(taken: list[dict[Row, Taken]], records: list[Record], classes) -> list[dict]:
    given = truths_of(records), classes, draw_weights(len(records), RESAMPLES)
    values = {row: _resampled([one[row] for one in taken], *given) for row in rows_of_the_table()}
    base = values["", ""]
    return [
        {"map": name, "by": by} | {m: _with_change(v, base[m]) for m, v in row.items()}
        for (name, by), row in values.items()
    ]


def _resampled(taken: list[Taken], truths, classes, weights: np.ndarray) -> dict[str, Resampled]:
    """Each measure, on the photographs and on each resample of them."""
    detections = [Detections(one["boxes"], one["labels"], one["scores"]) for one in taken]
    ap = resampled_ap(match(detections, truths, classes), weights)
    values = {"AP50": ap["AP50_area"], "AP75": ap["AP75"], "AP": ap["AP"]}
    for name in ERRORS:
        photograph = np.repeat(np.arange(len(taken)), [len(one[name]) for one in taken])
        errors = np.concatenate([one[name] for one in taken])
        values[name] = resampled_mean(errors, photograph, weights)
    return values


def _with_change(value: Resampled, base: Resampled) -> dict[str, float]:
    change = value - base
    (low, high), (change_low, change_high) = value.interval, change.interval
    return {
        "mean": value.whole,
        "low": low,
        "high": high,
        "change": change.whole,
        "change_low": change_low,
        "change_high": change_high,
    }
