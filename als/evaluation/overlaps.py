"""Which object each detection overlaps most, for many images without a loop over them."""

import numpy as np


def best_overlaps(
    boxes: np.ndarray,
    gt_boxes: np.ndarray,
    group: np.ndarray,
    gt_group: np.ndarray,
    groups_at_once: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU [N] of each box in its group, and the first object [N] that has it (0, -1: none).

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
    firsts = best_pairs[first_of_each(box[best_pairs], len(boxes))]
    best_object[box[firsts]] = obj[firsts]
    return best_iou, best_object


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of a[i] with b[i], [P]; 0 for boxes that do not overlap."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)


def first_of_each(values: np.ndarray, n_values: int) -> np.ndarray:
    """Positions in `values` (integers below n_values) where each value occurs first."""
    first = np.full(n_values, -1)
    # numpy keeps the last of repeated assignments: written backwards, that is the first.
    first[values[::-1]] = np.arange(len(values))[::-1]
    return first[first >= 0]
