"""Average precision as the PASCAL VOC development kits define it, vectorised.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, sections
4.2 and 4.2.1 (matching, 11-point AP); the VOC2010 and later kits replaced the 11 points by the area
under the monotone precision/recall curve. All APs are fractions in 0..1.

The road: `match` decides once what every detection is (true positive, false positive, ignored),
`average_precisions` turns that into APs, for all images or for a weighted resample of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from als.errors import InputError
from als.evaluation.detections import Detections, GroundTruth, flatten

# Decimals, not np.arange, whose 0.6 is a rounding error more: an IoU of exactly 3/5 must reach it.
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
BLOCK = 2000  # images whose pairs of boxes are held at a time: what they need stays in the cache


@dataclass(frozen=True)
class Matches:
    """What became of each of N detections at each of T IoU thresholds, on I images, C classes.

    Detections are ordered by label, then by falling score, ties as given; label l has those from
    class_starts[l - 1] to class_starts[l]. given [N]: its place in the list of all detections,
    image after image. image [N]: index of the image. scores [N]. true_positive and
    false_positive [T, N] bool: a detection that is neither was matched to a difficult object and
    does not count. objects [I, C]: objects per image and class, without the difficult ones.
    """

    classes: tuple[str, ...]
    iou_thresholds: tuple[float, ...]
    given: np.ndarray
    image: np.ndarray
    scores: np.ndarray
    class_starts: np.ndarray
    true_positive: np.ndarray
    false_positive: np.ndarray
    objects: np.ndarray


class AveragePrecisions(NamedTuple):
    """AP per threshold and class, both [T, C]; NaN for a class without ground truth."""

    area: np.ndarray
    eleven_point: np.ndarray


class VocResult(NamedTuple):
    """per_class: measure -> [C], NaN for a class without ground truth; mean: measure -> float.

    Measures: AP50_11point (VOC2007), AP50_area (VOC2010 on), AP75 (area), AP (area, mean over
    0.5:0.05:0.95). `matches` serves bootstraps.
    """

    per_class: dict[str, np.ndarray]
    mean: dict[str, float]
    matches: Matches


def voc_ap(
    detections: Sequence[Detections],
    ground_truths: Sequence[GroundTruth],
    classes: Sequence[str],
) -> VocResult:
    """The VOC measures of detections[i] against ground_truths[i]; label k is classes[k - 1].

    Raises InputError as `match` does.
    """
    matches = match(detections, ground_truths, classes)
    per_class = measures(matches)
    mean = {name: float(class_mean(values)) for name, values in per_class.items()}
    return VocResult(per_class, mean, matches)


def measures(matches: Matches, image_weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Measure -> [C], as `VocResult.per_class`; for image_weights see `average_precisions`."""
    ap = average_precisions(matches, image_weights)
    at = matches.iou_thresholds.index
    return {
        "AP50_11point": ap.eleven_point[at(0.5)],
        "AP50_area": ap.area[at(0.5)],
        "AP75": ap.area[at(0.75)],
        "AP": ap.area.mean(axis=0),
    }


def match(
    detections: Sequence[Detections],
    ground_truths: Sequence[GroundTruth],
    classes: Sequence[str],
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> Matches:
    """Match as the kit's VOCevaldet.m does, for all thresholds from one computation of IoUs.

    A detection belongs to the object of its image and class that it overlaps most (the first of
    equals), taken or not. Below the threshold it is a false positive; on a difficult object it is
    ignored; on another, the highest score is the true positive and later ones are false. IoU uses
    half-open boxes, which equals the kit's inclusive corners with their "+ 1".
    Raises InputError on lists of different length, labels outside 1..C, thresholds outside (0, 1].
    """
    # Rounded, so that np.arange(0.5, 1, 0.05) gives the decimals it means.
    thresholds = tuple(round(float(t), 10) for t in iou_thresholds)
    if not thresholds or not all(0 < t <= 1 for t in thresholds):
        raise InputError(f"IoU thresholds must lie in (0, 1], got {thresholds}.")
    if len(detections) != len(ground_truths):
        raise InputError(
            f"{len(detections)} images have detections but {len(ground_truths)} have ground truth;"
            " give one of each per image, in the same order."
        )
    n_classes, n_images = len(classes), len(detections)
    gt_boxes, gt_labels, hard, gt_image = flatten(ground_truths, "difficult", n_classes)
    boxes, labels, scores, image = flatten(detections, "scores", n_classes)
    # One number per image and class: only boxes of one group can match.
    group, gt_group = image * n_classes + labels - 1, gt_image * n_classes + gt_labels - 1
    overlaps = best_overlaps(boxes, gt_boxes, group, gt_group, BLOCK * n_classes)
    order, starts = _by_class_and_score(labels, scores, n_classes)
    tp, fp = _decide(*(values[order] for values in overlaps), hard, thresholds)
    objects = np.bincount(gt_group[~hard], minlength=n_images * n_classes)
    objects = objects.reshape(n_images, n_classes)
    kept = order, image[order], scores[order]
    return Matches(tuple(classes), thresholds, *kept, starts, tp, fp, objects)


def average_precisions(
    matches: Matches, image_weights: np.ndarray | None = None
) -> AveragePrecisions:
    """AP by 11 points and by area, per threshold and class.

    image_weights [I], integers >= 0, counts image i that many times: a bootstrap resample is
    `np.bincount(rng.integers(I, size=I), minlength=I)`. It equals repeating the images in the
    list, save among detections of one image and class with equal scores, whose copies stay side by
    side.
    """
    weights = np.ones(len(matches.objects), np.int64) if image_weights is None else image_weights
    objects = weights @ matches.objects
    weight = weights[matches.image]
    area = np.full((len(matches.iou_thresholds), len(matches.classes)), np.nan)
    eleven_point = area.copy()
    for t in range(len(area)):
        # Both APs read the curve at true positives only: a false positive lowers the precision at
        # the same recall, so it is never the maximum. That leaves short arrays per class.
        hits = np.flatnonzero(matches.true_positive[t])
        false = np.concatenate([[0], np.cumsum(weight * matches.false_positive[t])])
        bounds = np.searchsorted(hits, matches.class_starts)
        for c in np.flatnonzero(objects):
            hit = hits[bounds[c] : bounds[c + 1]]
            tp = np.cumsum(weight[hit])
            fp = false[hit] - false[matches.class_starts[c]]
            area[t, c], eleven_point[t, c] = _area_and_eleven_point(tp, fp, objects[c])
    return AveragePrecisions(area, eleven_point)


def class_mean(ap: np.ndarray) -> np.ndarray:
    """The mean over the last axis (classes), leaving out NaN; NaN where nothing is left."""
    known = ~np.isnan(ap)
    count = known.sum(axis=-1)
    total = np.where(known, ap, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _area_and_eleven_point(tp: np.ndarray, fp: np.ndarray, objects: int) -> tuple[float, float]:
    """Both APs from the cumulative counts at each true positive.

    The eleven recall levels are compared in integers (10 tp >= k objects): in floats, 3/10 misses
    the level 3 * 0.1, and which levels miss differs between MATLAB and numpy.
    """
    precision = tp / np.maximum(tp + fp, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = np.diff(tp, prepend=0) @ envelope / objects
    levels = np.searchsorted(10 * tp, np.arange(11) * objects)
    return area, np.append(envelope, 0.0)[levels].mean()


def _decide(
    best_iou: np.ndarray, best_object: np.ndarray, hard: np.ndarray, thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives, both [T, N] bool, of detections sorted by class and score."""
    tp = np.zeros((len(thresholds), len(best_iou)), bool)
    fp = np.zeros_like(tp)
    on_hard = np.zeros(len(best_iou), bool)
    on_hard[best_object >= 0] = hard[best_object[best_object >= 0]]
    for t, threshold in enumerate(thresholds):
        reaches = best_iou >= threshold
        claims = np.flatnonzero(reaches & ~on_hard)
        _, first = np.unique(best_object[claims], return_index=True)
        tp[t, claims[first]] = True
        fp[t] = ~tp[t] & ~(reaches & on_hard)
    return tp, fp


def _by_class_and_score(
    labels: np.ndarray, scores: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices [N] by label, then by falling score, ties as given as MATLAB's sort leaves them; and
    where each label starts among them, [C + 1] with the end.

    np.lexsort's order, but a class at a time: its scores lie side by side while they are sorted.
    """
    order = np.argsort(labels.astype(np.min_scalar_type(n_classes)), kind="stable")  # radix sort
    starts = np.searchsorted(labels, np.arange(1, n_classes + 2), sorter=order)
    falling = -scores[order]
    for start, end in zip(starts, starts[1:], strict=False):
        its = slice(start, end)
        order[its] = order[its][np.argsort(falling[its], kind="stable")]
    return order, starts


def best_overlaps(
    boxes: np.ndarray,
    gt_boxes: np.ndarray,
    group: np.ndarray,
    gt_group: np.ndarray,
    groups_at_once: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU [N] of each box in its group, and the first object [N] that has it (0, -1: none).

    For many images without a loop over them.

    Args:
        boxes, gt_boxes: [N, 4] and [M, 4] xyxy, of detections and of objects.
        group, gt_group: integers >= 0 [N] and [M]; only boxes of one group can match.
        groups_at_once: block of groups whose pairs are held together. Boxes of one block must lie
            side by side, blocks in rising order, as those of image after image do.
    """
    best_iou, best_object = np.zeros(len(boxes)), np.full(len(boxes), -1)
    block, gt_block = group // groups_at_once, gt_group // groups_at_once
    for number in range(block[-1] + 1 if len(block) else 0):
        some, gt_some = (
            slice(*np.searchsorted(index, (number, number + 1))) for index in (block, gt_block)
        )
        iou, best = _best_overlaps_at_once(
            boxes[some], gt_boxes[gt_some], group[some], gt_group[gt_some]
        )
        best_iou[some] = iou
        best_object[some] = np.where(best < 0, -1, best + gt_some.start)
    return best_iou, best_object


def _best_overlaps_at_once(
    boxes: np.ndarray, gt_boxes: np.ndarray, group: np.ndarray, gt_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`best_overlaps` of one block: all pairs of its groups lie in flat arrays."""
    gt_order = np.argsort(gt_group, kind="stable")
    sorted_group = gt_group[gt_order]
    start = np.searchsorted(sorted_group, group, "left")
    count = np.searchsorted(sorted_group, group, "right") - start
    first_pair = np.cumsum(count) - count
    box = np.repeat(np.arange(len(boxes)), count)
    obj = gt_order[np.arange(len(box)) + (start - first_pair)[box]]

    iou = _paired_iou(boxes[box], gt_boxes[obj])
    best_iou = np.zeros(len(boxes))
    some = count > 0
    if some.any():
        best_iou[some] = np.maximum.reduceat(iou, first_pair[some])
    best_object = np.full(len(boxes), -1)
    best_pairs = np.flatnonzero((iou > 0) & (iou == best_iou[box]))
    some_boxes, first = np.unique(box[best_pairs], return_index=True)
    best_object[some_boxes] = obj[best_pairs[first]]
    return best_iou, best_object


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of a[i] with b[i], [P]; 0 for boxes that do not overlap.

    torchvision's would give that of every box with every object of the block.
    """
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
