"""D-RISE, insertion and deletion, on detectors whose answer is known, and on the real one."""

import numpy as np
import pytest
import torch
from explain_toys import tiny_detector
from torchvision.transforms.v2.functional import gaussian_blur

from als.explain.blackbox import (
    GRID,
    black_box,
    detection_score,
    drise,
    estimate_seconds,
    greedy_patches,
    random_masks,
)
from als.explain.faithfulness import Curve, blurred, change_curves, pixel_ranks, plain

BOX = np.array([4.0, 4, 12, 12])


def found(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def brightness_of(region):
    """A detector of BOX, class 1, whose score is the mean brightness of a region."""

    def detect(images):
        return [found([BOX.tolist()], [1], [float(i[:, region].mean())]) for i in images]

    return detect


def change_curve(detect, start, end, heat, box, label, **options) -> Curve:
    return change_curves(detect, start, end, heat, [(box, label)], **options)[0]


def insertion(detect, image, heat, **options) -> Curve:
    return change_curve(detect, blurred(image), image, heat, **options)


def deletion(detect, image, heat, **options) -> Curve:
    return change_curve(detect, image, plain(image), heat, **options)


@pytest.fixture
def corner():
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[2:8, 20:28] = True
    return region


def test_detection_score_by_hand():
    boxes = [[4, 4, 12, 12], [4, 4, 12, 8], [4, 4, 12, 12]]
    detections = found(boxes, [2, 1, 1], [0.9, 0.8, 0.3])
    assert detection_score(detections, BOX, 1) == pytest.approx(0.4)  # 0.5 x 0.8 over 1 x 0.3
    assert detection_score(detections, BOX, 2) == pytest.approx(0.9)
    assert detection_score(detections, BOX, 3) == 0
    assert detection_score(found([], [], []), BOX, 1) == 0
    assert detection_score(detections, BOX + 100, 1) == 0


def test_drise_finds_what_the_detector_looks_at():
    spot = torch.zeros(32, 32, dtype=torch.bool)
    spot[4:6, 22:24] = True  # the size of a cell of the masks
    map, other = drise(brightness_of(spot), torch.ones(3, 32, 32), [(BOX, 1), (BOX, 2)], masks=300)
    assert map.shape == (32, 32) and map.dtype == np.float32
    assert map[spot.numpy()].mean() > 1.15 * map[~spot.numpy()].mean()
    peak = np.unravel_index(map.argmax(), map.shape)
    assert 3 <= peak[0] < 7 and 21 <= peak[1] < 25
    assert other.max() == 0  # nothing of class 2 is ever found


def test_greedy_patches_come_in_the_order_in_which_the_detection_needs_them():
    """A score that is the brightness of two patches: the one of more pixels goes first."""
    image, box = torch.ones(3, 40, 40), np.array([10.0, 10, 30, 30])  # patches of 5 x 5 pixels
    spot = torch.zeros(40, 40, dtype=torch.bool)
    spot[5:10, 20:25] = True
    spot[30:34, 15:20] = True
    passes = []

    def detect(images):
        passes.append(len(images))
        return [found([box.tolist()], [1], [float(i[:, spot].mean())]) for i in images]

    heat = greedy_patches(detect, image, box, 1, steps=4, batch_size=10)
    expected = np.zeros((40, 40), np.float32)
    expected[5:10, 20:25], expected[30:35, 15:20] = 1, 0.75
    np.testing.assert_array_equal(heat, expected)  # gone after two, so that the others are 0
    assert sum(passes) == 64 + 63


def test_greedy_patches_of_what_is_not_there_are_none():
    heat = greedy_patches(lambda x: [found([], [], [])] * len(x), torch.ones(3, 40, 40), BOX, 1)
    assert heat.max() == 0


def test_greedy_patches_fill_twice_the_box_within_the_photograph():
    image, box = torch.ones(3, 20, 30), np.array([0.0, 6, 4, 14])
    seen = torch.zeros(20, 30, dtype=torch.bool)

    def detect(images):
        for one in images:
            seen.logical_or_(one[0] == 0)
        return [found([box.tolist()], [1], [float(i.mean())]) for i in images]

    greedy_patches(detect, image, box, 1, steps=1)
    expected = np.zeros((20, 30), bool)
    expected[2:18, 0:6] = True
    np.testing.assert_array_equal(seen.numpy(), expected)


def test_drise_does_not_depend_on_the_batch_size(corner):
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = [
        drise(brightness_of(corner), image, [(BOX, 1)], masks=21, batch_size=size)
        for size in (1, 8, 21)
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5)
    np.testing.assert_allclose(maps[0], maps[2], rtol=1e-5)
    other = drise(brightness_of(corner), image, [(BOX, 1)], masks=21, seed=1)
    assert np.abs(other - maps[0]).max() > 0.01


def test_a_score_that_never_changes_gives_a_flat_map():
    """The expectation of sum M / (n p) is 1 everywhere."""
    map = drise(
        lambda images: [found([BOX.tolist()], [1], [1.0])] * len(images),
        torch.ones(3, 40, 33),
        [(BOX, 1)],
        masks=400,
    )[0]
    assert map.mean() == pytest.approx(1, abs=0.02) and map.std() < 0.1


def test_masks_are_half_visible_and_smooth():
    batches = list(random_masks((50, 70), masks=10, batch_size=4, seed=0))
    assert [len(b) for b in batches] == [4, 4, 2]
    masks = torch.cat(batches)
    assert masks.shape == (10, 50, 70) and masks.min() >= 0 and masks.max() <= 1
    assert masks.mean().item() == pytest.approx(0.5, abs=0.05)
    cell = -(-70 // GRID)
    assert masks.diff(dim=2).abs().max() <= 1.01 / cell * (GRID / (GRID + 1)) + 0.05


def test_cells_of_masks_begin_anywhere():
    """Without an offset the first half cell of every mask, 5 and 10 pixels, would be even."""
    (masks,) = random_masks((160, 320), masks=20, batch_size=20, seed=0)
    assert (masks[:, 0] != masks[:, 3]).any() and (masks[..., 0] != masks[..., 3]).any()
    # 16 cells fill the image and one cell more: from 0 to 1 in a cell of 17 x 10 / 16 pixels.
    slopes = [masks.diff(dim=dim).abs().max().item() for dim in (1, 2)]
    assert slopes == pytest.approx([16 / 170, 16 / 340], rel=1e-3)


def test_estimate(corner):
    calls = []

    def detect(images):
        calls.append(len(images))
        return brightness_of(corner)(images)

    image = torch.ones(3, 32, 32)
    assert estimate_seconds(detect, image, passes=100, batch_size=4) > 0
    assert calls == [4, 4]
    drise(detect, image, [(BOX, 1)], masks=10, batch_size=4)
    assert calls[2:] == [4, 4, 2]


def test_insertion_and_deletion_by_hand():
    """Four pixels that the score is the mean of, inserted in the order of the map."""
    start, end = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    image = end.clone()
    image[:, 1] = 0  # the score is the brightness of the first row

    def detect(images):
        return [found([[0, 0, 2, 2]], [1], [float(i[:, 0].mean())]) for i in images]

    box = [0, 0, 2, 2]
    first_row = np.array([[4.0, 3], [2, 1]])
    curve = change_curve(detect, start, end, first_row, box, 1, steps=4)
    np.testing.assert_allclose(curve.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.scores, [0, 0.5, 1, 1, 1])
    assert curve.auc == pytest.approx(0.75)  # (0.25 + 0.75 + 1 + 1) / 4
    last_row = change_curve(detect, start, end, first_row[::-1].copy(), box, 1, steps=4)
    np.testing.assert_allclose(last_row.scores, [0, 0, 0, 0.5, 1])
    assert last_row.auc == pytest.approx(0.25)
    for size in (1, 3):
        again = change_curve(detect, start, end, first_row, box, 1, steps=4, batch_size=size)
        np.testing.assert_allclose(again.scores, curve.scores)
    two = [(box, 1), ([0, 0, 1, 2], 1)]  # the second overlaps what is found by a half
    ends = [detect(one[None])[0] for one in (start, end)]
    for known in (None, ends):
        same, half = change_curves(detect, start, end, first_row, two, steps=4, ends=known)
        np.testing.assert_allclose(same.scores, curve.scores)
        np.testing.assert_allclose(half.scores, curve.scores / 2)


def test_a_true_map_beats_a_false_one(corner):
    image = torch.where(corner, 1.0, 0.2).repeat(3, 1, 1)
    detect = brightness_of(corner)
    true, false = corner.numpy().astype(float), 1.0 - corner.numpy()
    args = {"box": BOX, "label": 1, "steps": 10}
    assert insertion(detect, image, true, **args).auc > insertion(detect, image, false, **args).auc
    assert deletion(detect, image, true, **args).auc < deletion(detect, image, false, **args).auc
    start, end = insertion(detect, image, true, **args).scores[[0, -1]]
    assert end == pytest.approx(1) and start < 0.5  # from the blurred image to the whole one


def test_equal_values_change_in_random_order():
    ranks = pixel_ranks(np.array([[1.0, 5.0], [1.0, 1.0]]), seed=0)
    assert ranks[0, 1] == 0 and sorted(ranks.ravel()) == [0, 1, 2, 3]
    flat = pixel_ranks(np.zeros((20, 20)), seed=0)
    assert abs(np.corrcoef(flat.ravel(), np.arange(400))[0, 1]) < 0.2
    np.testing.assert_array_equal(flat, pixel_ranks(np.zeros((20, 20)), seed=0))


def test_the_base_images():
    image = torch.rand(3, 30, 44, generator=torch.Generator().manual_seed(0))
    soft = blurred(image)
    # One side after the other is the Gaussian of both.
    torch.testing.assert_close(soft, gaussian_blur(image, [41, 41], [10.0, 10.0]))
    assert soft.shape == image.shape and soft.std() < 0.1 * image.std()
    torch.testing.assert_close(soft.mean((1, 2)), image.mean((1, 2)), atol=0.05, rtol=0)
    assert plain(image).shape == image.shape
    np.testing.assert_allclose(plain(image)[:, 3, 4], [0.485, 0.456, 0.406])


def test_the_detector_as_a_black_box():
    """Images in a batch are detected as each alone, without gradients."""
    detector = tiny_detector(detections_per_image=3)
    images = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    detect = black_box(detector)
    together = detect(images)
    alone = detect(images[1:])[0]
    assert len(together) == 2 and not together[0]["scores"].requires_grad
    torch.testing.assert_close(together[1]["boxes"], alone["boxes"], atol=0.05, rtol=0)
    target = (alone["boxes"][0].numpy(), int(alone["labels"][0]))
    score = detection_score(alone, *target)
    assert score == pytest.approx(float(alone["scores"][0]), rel=1e-4)
    box, label = target
    curve = deletion(detect, images[1], np.ones((70, 90)), box=box, label=label, steps=2)
    assert curve.scores[0] == pytest.approx(score, rel=1e-3)
    assert drise(detect, images[1], [target], masks=2).shape == (1, 70, 90)


def test_classes_that_nobody_asks_about_change_nothing():
    detector = tiny_detector(detections_per_image=1000, score_threshold=0.4)
    images = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    everything = black_box(detector)(images)
    counts = []
    for label in (1, 2):
        asked = black_box(detector, labels=[label])(images)
        for some, all_of_them in zip(asked, everything, strict=True):
            for name in ("boxes", "scores"):
                wanted = all_of_them[name][all_of_them["labels"] == label]
                given = some[name][some["labels"] == label]
                torch.testing.assert_close(given, wanted, atol=1e-2, rtol=1e-3)
            counts.append(len(wanted))
    assert sum(counts) > 0


def linear_classifier():
    """An image of 4 x 5 pixels, a map of distinct values, a classifier, and it as a detector."""
    rng = np.random.default_rng(0)
    image = rng.random((1, 4, 5)).astype(np.float32)
    map = rng.permutation(20).reshape(4, 5) / 20.0
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 3)).eval()

    def detect(images):
        with torch.no_grad():
            scores = classifier(images).softmax(-1)[:, 1]
        return [found([[0, 0, 5, 4]], [1], [score]) for score in scores.tolist()]

    return image, map, classifier, detect


def test_insertion_and_deletion_agree_with_grad_cams_metrics():
    """pytorch-grad-cam removes the most or the least relevant pixels, some percent at a time."""
    pytest.importorskip("pytorch_grad_cam", reason="needs the package grad-cam")
    from pytorch_grad_cam.metrics import perturbation_confidence as theirs

    image, map, classifier, detect = linear_classifier()
    start, black = torch.from_numpy(image), torch.zeros(1, 4, 5)
    ends = {"most": (start, black), "least": (black, start)}  # deletion, insertion
    removal = {"most": theirs.RemoveMostRelevantFirst, "least": theirs.RemoveLeastRelevantFirst}
    for first, (begin, end) in ends.items():
        curve = change_curve(detect, begin, end, map, [0, 0, 5, 4], 1, steps=5)
        for share, score in zip(curve.shares[1:-1], curve.scores[1:-1], strict=True):
            kept = share if first == "least" else 1 - share
            metric = theirs.PerturbationConfidenceMetric(
                removal[first](100 * kept, lambda image, mask: image * mask)
            )
            (expected,) = metric(
                start[None],
                np.float32(map)[None],
                [lambda output: output.softmax(-1)[1]],
                classifier,
                return_diff=False,
            )
            assert score == pytest.approx(float(expected), rel=1e-5)


def test_deletion_agrees_with_quantus():
    """Its pixel flipping is the same curve, without the untouched image, on a classifier."""
    quantus = pytest.importorskip("quantus", reason="needs the package quantus")
    image, map, classifier, detect = linear_classifier()
    flipping = quantus.PixelFlipping(
        features_in_step=4, normalise=False, perturb_baseline="black", disable_warnings=True
    )
    theirs = flipping(
        model=classifier,
        x_batch=image[None],
        y_batch=np.array([1]),
        a_batch=map[None, None],
        softmax=True,
    )[0]
    start = torch.from_numpy(image)
    black = torch.full_like(start, start.min().item())  # what Quantus calls black
    ours = change_curve(detect, start, black, map, [0, 0, 5, 4], 1, steps=5)
    np.testing.assert_allclose(ours.scores[1:], theirs, rtol=1e-5)


def test_a_thin_image_is_blurred_along_its_length():
    noise = torch.rand(3, 2, 600, generator=torch.Generator().manual_seed(0))
    assert blurred(noise).std(2).mean() < 0.15 * noise.std(2).mean()


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int32, np.float32])
def test_pixels_are_ranked_by_value_whatever_its_type(kind):
    heat = np.array([[0, 1], [1, 255]]).astype(kind)
    ranks = pixel_ranks(heat, seed=0)
    assert ranks[0, 0] == 3 and sorted(ranks.ravel()) == [0, 1, 2, 3]
    assert kind is bool or ranks[1, 1] == 0
