"""Each detection's best object, against torchvision's IoU image by image, in blocks of any size."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from als.evaluation.average_precision import _by_class_and_score, best_overlaps

CLASSES = 3


def random_boxes(rng, count):
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1).round()


@pytest.mark.parametrize("images_at_once", [1, 2, 5, 100])
def test_best_objects_are_torchvisions(images_at_once):
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), rng.integers(0, 9, 12))  # some images have none
    gt_image = np.repeat(np.arange(12), rng.integers(0, 5, 12))
    boxes, gt_boxes = random_boxes(rng, len(image)), random_boxes(rng, len(gt_image))
    group = image * CLASSES + rng.integers(0, CLASSES, len(image))
    gt_group = gt_image * CLASSES + rng.integers(0, CLASSES, len(gt_image))
    iou, best = best_overlaps(boxes, gt_boxes, group, gt_group, images_at_once * CLASSES)
    pairs = box_iou(torch.from_numpy(boxes), torch.from_numpy(gt_boxes)).numpy()
    pairs[group[:, None] != gt_group] = 0
    np.testing.assert_allclose(iou, pairs.max(1), rtol=1e-12)
    assert (best >= 0).sum() > 5 and (best < 0).sum() > 5
    np.testing.assert_array_equal(best, np.where(pairs.max(1) > 0, pairs.argmax(1), -1))


def test_no_boxes_have_no_objects():
    none, some = np.zeros((0, 4)), np.array([[0.0, 0, 9, 9]])
    no_group, group = np.zeros(0, int), np.zeros(1, int)
    assert [len(part) for part in best_overlaps(none, some, no_group, group, 3)] == [0, 0]
    iou, best = best_overlaps(some, none, group, no_group, 3)
    assert iou.tolist() == [0] and best.tolist() == [-1]


def test_order_is_that_of_a_stable_sort_by_label_and_falling_score():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(1, 301, 5000), rng.integers(0, 20, 5000) / 20  # many ties
    order, starts = _by_class_and_score(labels, scores, 300)
    np.testing.assert_array_equal(order, np.lexsort((-scores, labels)))
    np.testing.assert_array_equal(starts, np.searchsorted(labels[order], np.arange(1, 302)))
