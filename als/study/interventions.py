"""Interventions: another map in the place of A_loc or A_cls, and what becomes of the detections.

Only a map that is part of the computation can be tested so. The class branch reads F_cls alone and
the box branch F_loc alone, so each error is taken where only one of them speaks: the class at the
true box, the box from a displaced true box.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image
from tqdm import tqdm

from als.data.dataset import read_image
from als.data.masks import read_object_map
from als.data.voc import Record
from als.errors import InputError
from als.evaluation import Detections, GroundTruth
from als.evaluation.voc import average_precisions, match
from als.model import Detector, Encoding
from als.model.grid import image_to_map
from als.predictor import Predictor

REPLACEMENTS = ("ones", "mean", "other", "another image", "mask")
DISPLACED = 0.15  # of a box's sides: how far its corners are moved before it is refined
RESAMPLES = 1000

Row = tuple[str, str]  # which map is replaced ("" for none), by what


def rows_of_the_table() -> list[Row]:
    """("", "") first, then both maps by each of `REPLACEMENTS`, and both by ones at once."""
    single = [(map, by) for map in ("localization", "classification") for by in REPLACEMENTS]
    return [("", ""), *single, ("both", "ones")]


def intervene(
    predictor: Predictor, records: Sequence[Record], seed: int = 0, progress: bool = True
) -> list[dict]:
    """Detections and errors under each replacement, over the photographs that have a mask.

    When one map is replaced the other stays what the network made of the untouched photograph.
    "other" is the other of the two maps, "another image" the same map of the photograph before,
    "mask" the true binary map of equation 1.

    Returns:
        For each row of the table: map, by, AP50, AP75, AP; proposal_recall (share of objects
        that a proposal overlaps by IoU 0.5); class_error (share of true boxes whose class, the
        softmax's largest, background included, is wrong); box_error (mean of 1 - IoU of the
        refined box with the object, from the object's box displaced at random). Each as mean,
        low and high (95%, bootstrap over images), and change, the paired difference to the first
        row.

    Raises:
        InputError: a model without attention, or no photograph with a mask.
    """
    detector = predictor.detector
    if not detector.config.attention:
        raise InputError(f"{predictor.source}: has no attention maps to replace.")
    records = [record for record in records if record.mask is not None]
    if len(records) < 2:
        raise InputError("interventions need at least two photographs with masks.")
    table = rows_of_the_table()
    taken = {row: _Taken() for row in table}
    before = _maps(predictor, records[-1])
    for number, record in enumerate(tqdm(records, desc="interventions", disable=not progress)):
        encoding = _encode(predictor, record)
        made = encoding.a_loc, encoding.a_cls
        mask = torch.from_numpy(read_object_map(record, predictor.classes) == 1).float()
        mask = image_to_map(mask[None, None].to(predictor.device), detector, made[0])
        for row in table:
            _replace(encoding, row, made, before, mask)
            _detect(detector, encoding, record, taken[row], seed + number)
        before = made
    return _table(taken, records, predictor.classes)


class _Taken:
    """What one row of the table took of each image."""

    def __init__(self):
        self.detections: list[Detections] = []
        self.errors: dict[str, list[np.ndarray]] = {
            "proposal_recall": [],
            "class_error": [],
            "box_error": [],
        }


@torch.no_grad()
def _encode(predictor: Predictor, record: Record) -> Encoding:
    pixels = torch.from_numpy(np.array(read_image(record.path))).to(predictor.device)
    return predictor.detector.encode([pixels.permute(2, 0, 1).float() / 255])


def _maps(predictor: Predictor, record: Record) -> tuple[Tensor, Tensor]:
    encoding = _encode(predictor, record)
    return encoding.a_loc, encoding.a_cls


def _replace(
    encoding: Encoding, row: Row, made: tuple[Tensor, Tensor], before: tuple, mask: Tensor
) -> None:
    """Set the encoding's overrides as a row of the table says; `Detector.attend` applies them."""
    chosen = list(made)
    for i, name in enumerate(("localization", "classification")):
        if row[0] in (name, "both"):
            chosen[i] = _replacement(row[1], made[i], made[1 - i], before[i], mask)
    a_loc, a_cls = chosen
    encoding.override_loc = lambda loc, cls: a_loc
    encoding.override_cls = lambda loc, cls: a_cls


def _replacement(by: str, own: Tensor, other: Tensor, before: Tensor, mask: Tensor) -> Tensor:
    """One of `REPLACEMENTS` for a map [1, 1, h, w]."""
    if by == "ones":
        return torch.ones_like(own)
    if by == "mean":
        return own.mean().expand_as(own)
    if by == "another image":
        return F.interpolate(before, own.shape[-2:], mode="bilinear")
    return other if by == "other" else mask


@torch.no_grad()
def _detect(
    detector: Detector, encoding: Encoding, record: Record, taken: _Taken, seed: int
) -> None:
    """Detect with the encoding's overrides, and take the errors at the true boxes."""
    detector.attend(encoding)
    proposals = detector.propose(encoding)
    logits, vectors = detector.roi_heads.classify(encoding.f_cls, proposals)
    found = detector.locate(encoding, proposals, logits, vectors)[0]
    taken.detections.append(Detections(**{k: v.cpu().numpy() for k, v in found.items()}))

    size = encoding.images.image_sizes[0]
    easy = ~record.difficult
    scale = torch.tensor([size[1] / record.size[1], size[0] / record.size[0]] * 2)
    boxes = torch.from_numpy(record.boxes[easy]).to(encoding.f) * scale.to(encoding.f)
    labels = torch.from_numpy(record.labels[easy]).to(encoding.f.device)
    overlap = box_iou(boxes, proposals[0])
    recalled = overlap.amax(1) >= 0.5 if overlap.shape[1] else torch.zeros(len(boxes))
    guesses = detector.roi_heads.classify(encoding.f_cls, [boxes])[0].argmax(1)
    refined = _refine(detector, encoding, _displaced(boxes, seed, size), labels)
    ious = box_iou(refined, boxes).diagonal()
    for name, values in (
        ("proposal_recall", recalled),
        ("class_error", guesses != labels),
        ("box_error", 1 - ious),
    ):
        taken.errors[name].append(values.cpu().numpy().astype(float))


def _displaced(boxes: Tensor, seed: int, size: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] whose corners move by up to `DISPLACED` of the box's sides, inside the image."""
    generator = torch.Generator().manual_seed(seed)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moves = (torch.rand(boxes.shape, generator=generator) * 2 - 1) * DISPLACED
    return clip_boxes_to_image(boxes + moves.to(boxes) * sides, size)


def _refine(detector: Detector, encoding: Encoding, rois: Tensor, labels: Tensor) -> Tensor:
    """The box branch's answer [N, 4] to RoIs [N, 4] for given classes, in the same pixels."""
    deltas = detector.roi_heads.localize(encoding.f_loc, [rois]).unflatten(1, (-1, 4))
    coder: BoxCoder = detector.roi_heads.box_coder
    own = deltas[torch.arange(len(rois), device=rois.device), labels]
    return clip_boxes_to_image(coder.decode_single(own, rois), encoding.images.image_sizes[0])


def _table(taken: dict[Row, _Taken], records: list[Record], classes) -> list[dict]:
    n = len(records)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n), int), draws])  # the photographs themselves first
    truths = [GroundTruth(r.boxes, r.labels, r.difficult) for r in records]
    values = {row: _resampled(one, truths, classes, weights) for row, one in taken.items()}
    base = values["", ""]
    return [
        {"map": row[0], "by": row[1]}
        | {name: _with_interval(v, base[name]) for name, v in values[row].items()}
        for row in taken
    ]


def _resampled(taken: _Taken, truths, classes, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure [1 + RESAMPLES], for the photographs and for each resample of them."""
    matches = match(taken.detections, truths, classes)
    area = np.stack([average_precisions(matches, w).area for w in weights])  # [B, T, C]
    means = np.nanmean(area, axis=2)
    middle = matches.iou_thresholds.index(0.75)
    values = {"AP50": means[:, 0], "AP75": means[:, middle], "AP": means.mean(1)}
    for name, errors in taken.errors.items():
        sums, counts = (np.array([f(e) for e in errors]) for f in (np.sum, len))
        values[name] = (weights @ sums) / (weights @ counts)
    return values


def _with_interval(values: np.ndarray, base: np.ndarray) -> dict[str, float]:
    change = values - base
    low, high = np.quantile(values[1:], [0.025, 0.975])
    change_low, change_high = np.quantile(change[1:], [0.025, 0.975])
    return {
        "mean": float(values[0]),
        "low": float(low),
        "high": float(high),
        "change": float(change[0]),
        "change_low": float(change_low),
        "change_high": float(change_high),
    }
