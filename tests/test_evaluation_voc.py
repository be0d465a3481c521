"""The VOC measures against hand-computed cases, a literal port of the kit, and resampling."""

import numpy as np
import pytest

from als.errors import InputError
from als.evaluation.average_precision import (
    IOU_THRESHOLDS,
    Detections,
    GroundTruth,
    average_precisions,
    class_mean,
    match,
    voc_ap,
)
from als.evaluation.coco_measures import as_coco, coco_metrics

# Boxes far apart: detections of one never overlap another.
A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
NOWHERE = [80, 80, 90, 90]


def truth(boxes, labels=None, difficult=None):
    return GroundTruth(
        boxes,
        np.ones(len(boxes)) if labels is None else labels,
        np.zeros(len(boxes)) if difficult is None else difficult,
    )


def found(boxes, scores, labels=None):
    return Detections(boxes, np.ones(len(boxes)) if labels is None else labels, scores)


def ap50(detections, ground_truths):
    """(11-point, area) of a single class."""
    mean = voc_ap(detections, ground_truths, ["thing"]).mean
    return mean["AP50_11point"], mean["AP50_area"]


# ---- cases by hand


def test_perfect_detections_score_one_in_every_measure():
    result = voc_ap(
        [found([A, B], [0.9, 0.8], [1, 2]), found([C], [0.7], [1])],
        [truth([A, B], [1, 2]), truth([C], [1])],
        ["cat", "dog"],
    )
    assert result.mean == {"AP50_11point": 1.0, "AP50_area": 1.0, "AP75": 1.0, "AP": 1.0}
    assert result.matches.objects.sum(0).tolist() == [2, 1]


def test_a_duplicate_is_false_and_eleven_points_differ_from_the_area():
    # Two objects. By score: true, duplicate (false), true.
    #   recall    1/2  1/2  1
    #   precision 1    1/2  2/3
    # Area: 1/2 * 1 + 1/2 * 2/3 = 5/6. Eleven points: the levels 0 to 0.5 (six) have 1, the levels
    # 0.6 to 1 (five) have 2/3: (6 + 10/3) / 11 = 28/33.
    eleven, area = ap50([found([A, A, B], [0.9, 0.8, 0.7])], [truth([A, B])])
    assert eleven == pytest.approx(28 / 33, abs=1e-12)
    assert area == pytest.approx(5 / 6, abs=1e-12)


def test_ap75_is_the_area():
    # As above: 5/6, by eleven points 28/33. The last box overlaps B by 0.8, less than 0.85.
    detections = found([A, A, [20, 0, 28, 10]], [0.9, 0.8, 0.7])
    mean = voc_ap([detections], [truth([A, B])], ["thing"]).mean
    assert mean["AP75"] == pytest.approx(5 / 6)
    assert mean["AP"] == pytest.approx((7 * 5 / 6 + 3 * 1 / 2) / 10)


def test_a_duplicate_is_the_false_positive_of_the_curve():
    matches = match([found([B, A, A], [0.7, 0.9, 0.8])], [truth([A, B])], ["thing"])
    assert matches.true_positive[0].tolist() == [True, False, True]  # by falling score
    assert matches.false_positive[0].tolist() == [False, True, False]
    assert matches.objects.tolist() == [[2]]


def test_the_best_overlap_decides_even_when_that_object_is_taken():
    # The second detection overlaps object 1 by 90/110 and object 2 by 80/120, both over 1/2.
    # VOC sees a duplicate of object 1: recall stays at 1/2, area 1/2. COCO gives it object 2: 1.
    objects = truth([[0, 0, 10, 10], [0, 3, 10, 13]])
    twice = found([[0, 0, 10, 10], [0, 1, 10, 11]], [0.9, 0.8])
    assert ap50([twice], [objects])[1] == pytest.approx(0.5)
    coco = as_coco([objects], [(20, 20)], ["thing"])
    assert coco_metrics([twice], coco, [1])["AP50"] == pytest.approx(1.0)


def test_detections_of_a_difficult_object_count_neither_way():
    # Two detections lead on the difficult B; without them the only object, A, is found at once.
    objects = truth([A, B], difficult=[False, True])
    detections = found([B, B, A], [0.9, 0.8, 0.7])
    result = voc_ap([detections], [objects], ["thing"])
    assert result.mean["AP50_area"] == 1.0
    assert result.matches.objects.tolist() == [[1]]
    assert result.matches.true_positive[0].tolist() == [False, False, True]
    assert result.matches.false_positive[0].tolist() == [False, False, False]


def test_a_difficult_object_below_the_threshold_forgives_nothing():
    # Half of B's width: IoU exactly 1/2 is ignored at 0.5 but false at 0.55.
    objects = truth([A, B], difficult=[False, True])
    result = match([found([[20, 0, 25, 10], A], [0.9, 0.8])], [objects], ["thing"], (0.5, 0.55))
    np.testing.assert_allclose(average_precisions(result).area[:, 0], [1.0, 0.5])


def test_a_class_without_objects_is_nan_and_left_out_of_the_mean():
    result = voc_ap(
        [found([A, B, C], [0.9, 0.8, 0.7], [1, 2, 3])],
        [truth([A, B], [1, 3], [False, True])],
        ["found", "absent", "only difficult"],
    )
    for name, values in result.per_class.items():
        np.testing.assert_array_equal(values, [1.0, np.nan, np.nan], err_msg=name)
        assert result.mean[name] == 1.0


def test_labels_and_images_are_kept_apart():
    # Right place with the wrong label, right place in the wrong image: nothing is found.
    detections = [found([A], [0.9], [2]), found([A], [0.8], [1])]
    result = voc_ap(detections, [truth([A], [1]), truth([B], [2])], ["cat", "dog"])
    assert result.per_class["AP50_area"].tolist() == [0.0, 0.0]
    assert result.matches.class_starts.tolist() == [0, 1, 2]
    assert result.matches.image.tolist() == [1, 0]


@pytest.mark.parametrize(("first", "second", "expected"), [(A, NOWHERE, 1.0), (NOWHERE, A, 0.5)])
def test_tied_scores_keep_the_given_order(first, second, expected):
    assert ap50([found([first, second], [0.5, 0.5])], [truth([A])])[1] == expected
    two_images = [found([first], [0.5]), found([second], [0.5])]
    objects = [truth([A] if place == A else []) for place in (first, second)]
    assert ap50(two_images, objects)[1] == expected


def test_overlap_equal_to_the_threshold_is_enough():
    # IoU 6/10 at the threshold 0.6, which is 0.6000000000000001 in np.arange.
    for thresholds in (IOU_THRESHOLDS, np.arange(0.5, 0.96, 0.05)):
        matches = match([found([[0, 0, 6, 10]], [0.9])], [truth([A])], ["thing"], thresholds)
        assert average_precisions(matches).area[:, 0].tolist() == [1.0] * 3 + [0.0] * 7


def test_only_the_very_box_reaches_a_threshold_of_one():
    matches = match([found([A, [20, 0, 29, 10]], [0.9, 0.8])], [truth([A, B])], ["thing"], (1,))
    assert matches.true_positive.tolist() == [[True, False]]


def test_recall_on_one_of_the_eleven_levels_reaches_it():
    # 3 of 10 objects and nothing false: the levels 0, 0.1, 0.2, 0.3 are reached. In floats 3 / 10
    # would miss np.arange(0, 1.1, 0.1)[3] = 0.30000000000000004.
    objects = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    eleven, area = ap50([found(objects[:3], [0.9, 0.8, 0.7])], [truth(objects)])
    assert eleven == pytest.approx(4 / 11)
    assert area == pytest.approx(3 / 10)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    assert ap50([found([], [])], [truth([A])]) == (0.0, 0.0)
    assert np.isnan(ap50([found([A], [0.9])], [truth([])])).all()
    assert np.isnan(ap50([], [])).all()
    point = [5, 5, 5, 5]  # no area, no overlap, and no division by zero
    assert ap50([found([point], [0.9])], [truth([point])]) == (0.0, 0.0)


def test_cpu_tensors_are_taken():
    torch = pytest.importorskip("torch")
    detections = Detections(torch.tensor([A]), torch.tensor([1]), torch.tensor([0.5]))
    assert ap50([detections], [truth([A])]) == (1.0, 1.0)


# ---- the development kit, ported line by line


def devkit_ap(detections, ground_truths, label, threshold):
    """VOCevaldet.m, loops and all; boxes turned into inclusive corners with + 1."""
    rows = [
        (-score, i, box - [0, 0, 1, 1])
        for i, d in enumerate(detections)
        for box, score, its in zip(d.boxes, d.scores, d.labels, strict=True)
        if its == label
    ]
    objects = [g.boxes[g.labels == label] - [0, 0, 1, 1] for g in ground_truths]
    difficult = [g.difficult[g.labels == label] for g in ground_truths]
    taken = [np.zeros(len(boxes), bool) for boxes in objects]
    npos = sum(int((~d).sum()) for d in difficult)
    if npos == 0:
        return np.nan, np.nan
    tp, fp = [], []
    for _, i, bb in sorted(rows, key=lambda row: row[0]):  # sorted() is stable
        ovmax, jmax = -np.inf, None
        for j, gt in enumerate(objects[i]):
            iw = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1
            ih = min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if iw > 0 and ih > 0:
                union = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                union += (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1) - iw * ih
                if iw * ih / union > ovmax:
                    ovmax, jmax = iw * ih / union, j
        hit = ovmax >= threshold
        fresh = hit and not difficult[i][jmax] and not taken[i][jmax]
        tp.append(int(fresh))
        fp.append(int(not hit or (not difficult[i][jmax] and not fresh)))
        if fresh:
            taken[i][jmax] = True
    return devkit_curve_to_ap(np.cumsum(tp), np.cumsum(fp), npos)


def devkit_curve_to_ap(tp, fp, npos):
    """The 11 points of the 2007 kit, then VOCap.m of the later ones."""
    prec = tp / np.maximum(tp + fp, 1)
    # rec >= k / 10 without float rounding, which differs between MATLAB and numpy
    reach = [prec[10 * tp >= k * npos] for k in range(11)]
    eleven = sum(p.max() if len(p) else 0.0 for p in reach) / 11
    mrec, mpre = np.concatenate([[0], tp / npos, [1]]), np.concatenate([[0], prec, [0]])
    for k in range(len(mpre) - 2, -1, -1):
        mpre[k] = max(mpre[k], mpre[k + 1])
    steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return eleven, float(np.sum((mrec[steps] - mrec[steps - 1]) * mpre[steps]))


def random_case(seed, tied=True, n_classes=3, n_images=12):
    """Crowded images in whole pixels: objects that coincide, near misses, duplicates, wrong labels,
    images without objects or detections; with `tied`, equal scores abound.
    """
    rng = np.random.default_rng(seed)
    detections, ground_truths = [], []
    for _ in range(n_images):
        n, k = rng.integers(0, 7), rng.integers(0, 25)
        corner = rng.integers(0, 30, (n, 2))
        boxes = np.concatenate([corner, corner + rng.integers(5, 20, (n, 2))], axis=1)
        boxes[n // 2 : n // 2 + 1] = boxes[:1]  # now and then two objects in one place
        labels = rng.integers(1, n_classes + 1, n)
        ground_truths.append(GroundTruth(boxes, labels, rng.random(n) < 0.25))
        source = rng.integers(0, n, k) if n else np.zeros(k, int)
        origin = boxes[source] if n else np.tile([[5, 5, 15, 15]], (k, 1))
        kept = labels[source] if n else np.ones(k, int)
        guess = np.where(rng.random(k) < 0.8, kept, rng.integers(1, n_classes + 1, k))
        scores = rng.integers(0, 10, k) / 10 if tied else rng.random(k)
        detections.append(Detections(origin + rng.integers(-2, 3, (k, 4)), guess, scores))
    return detections, ground_truths


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_development_kit(seed):
    detections, ground_truths = random_case(seed)
    matches = match(detections, ground_truths, "abcd")  # no object of class d
    ap = average_precisions(matches)
    for t, threshold in enumerate(IOU_THRESHOLDS):
        expected = [devkit_ap(detections, ground_truths, k, threshold) for k in range(1, 5)]
        got = np.stack([ap.eleven_point[t], ap.area[t]], axis=1)
        np.testing.assert_allclose(got, expected, atol=1e-9, rtol=0)
    assert (~(matches.true_positive | matches.false_positive))[0].any() and matches.true_positive[
        0
    ].sum() >= 8  # a case worth testing
    assert 0.1 < class_mean(ap.area)[0] < 0.9


# ---- resampling


@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_repeated_images(seed):
    detections, ground_truths = random_case(seed, tied=False)
    weights = np.random.default_rng(seed + 100).integers(0, 4, len(detections))
    matches = match(detections, ground_truths, "abc")
    weighted = average_precisions(matches, weights)
    chosen = np.repeat(np.arange(len(weights)), weights)
    repeated = match([detections[i] for i in chosen], [ground_truths[i] for i in chosen], "abc")
    expected = average_precisions(repeated)
    np.testing.assert_allclose(weighted.area, expected.area, atol=1e-12)
    np.testing.assert_allclose(weighted.eleven_point, expected.eleven_point, atol=1e-12)
    assert not np.allclose(weighted.area, average_precisions(matches).area)


def test_a_class_that_no_drawn_image_holds_is_nan():
    detections = [found([A], [0.9], [1]), found([B], [0.8], [2])]
    matches = match(detections, [truth([A], [1]), truth([B], [2])], ["cat", "dog"], (0.5,))
    area = average_precisions(matches, np.array([2, 0])).area
    np.testing.assert_array_equal(area, [[1.0, np.nan]])
    assert class_mean(area).tolist() == [1.0]


# ---- bad input


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: voc_ap([], [truth([A])], ["thing"]), "same order"),
        (lambda: voc_ap([found([], [])], [truth([A], [2])], ["thing"]), "Image 0 .* label 2"),
        (lambda: voc_ap([found([A], [1.0], [0])], [truth([A])], ["thing"]), "Image 0 .* label 0"),
        (lambda: match([], [], ["thing"], (50,)), "thresholds"),
        (lambda: found([A], [np.nan]), "NaN"),
        (lambda: found([A], [0.9, 0.8]), "shapes"),
        (lambda: found([[0, 0, 10]], [0.9]), "shapes"),
        (lambda: truth([[10, 0, 0, 10]]), "ends before it starts"),
        (lambda: truth([[0, 0, np.inf, 10]]), "not finite"),
    ],
)
def test_bad_input_is_said_in_a_sentence(call, says):
    with pytest.raises(InputError, match=says):
        call()
