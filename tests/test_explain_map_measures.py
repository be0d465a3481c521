import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from als.errors import InputError
from als.explain import map_measures
from als.explain.map_measures import (
    best_mask_iou,
    box_region,
    energy,
    leakage,
    mask_iou,
    odi,
    pointing_game,
)

MAP = np.array([[0.0, 1, 0, 0], [0, 2, 4, 0], [-9, 0, 1, 0]])
OBJECT = np.zeros((3, 4), dtype=bool)
OBJECT[:2, 1:3] = True


def test_box_region_by_hand():
    assert box_region((1, 0, 3, 2), (3, 4)).tolist() == OBJECT.tolist()
    assert box_region((0.6, 0, 2.4, 1), (1, 4)).tolist() == [[False, True, False, False]]
    # Half-open: a centre on the left edge is inside, one on the right edge is not.
    assert np.argwhere(box_region((0.5, 0.5, 1.5, 1.5), (3, 3))).tolist() == [[0, 0]]


def test_pointing_game_by_hand():
    map = np.zeros((40, 60))
    map[20, 30] = 1
    assert pointing_game(map, box_region((30, 20, 40, 30), map.shape), margin=0) == 1
    near = box_region((45, 20, 55, 30), map.shape)  # 15 pixels to the right
    assert pointing_game(map, near) == 1 and pointing_game(map, near, margin=0) == 0
    assert pointing_game(map, np.roll(near, 1, axis=1)) == 0
    diagonal = np.zeros_like(near)
    diagonal[32, 42] = True  # 12 down, 12 right: 17 pixels away
    assert pointing_game(map, diagonal) == 0


def test_only_what_is_near_a_peak_is_looked_at():
    """The same as the distance of every pixel of the image from the region."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        map = rng.integers(0, 1000, size=(50, 60)).astype(float)  # few equal peaks
        region = np.roll(box_region((0, 0, 9, 7), map.shape), rng.integers(0, 50, 2), (0, 1))
        for margin in (0, 1, 4.5, 15):
            near = distance_transform_edt(~region) <= margin
            expected = near[map == map.max()].mean()
            assert pointing_game(map, region, margin) == pytest.approx(expected)


def test_equal_peaks_count_by_their_share():
    assert pointing_game(np.ones((3, 4)), OBJECT, margin=0) == pytest.approx(4 / 12)
    two = np.zeros((3, 4))
    two[0, 1] = two[2, 3] = 5
    assert pointing_game(two, OBJECT, margin=0) == 0.5


def test_energy_by_hand():
    assert energy(MAP, OBJECT) == pytest.approx(7 / 8)  # -9 counts as 0
    known = np.ones((3, 4), dtype=bool)
    known[2] = False
    assert energy(MAP[known], OBJECT[known]) == 1
    assert energy(np.ones((3, 4)), OBJECT) == pytest.approx(4 / 12)


def test_mask_iou_by_hand():
    assert mask_iou(MAP, OBJECT) == pytest.approx(2 / 4)  # 2 and 4
    assert mask_iou(MAP, OBJECT, threshold=0.25) == pytest.approx(3 / 5)
    assert mask_iou(OBJECT.astype(float), OBJECT) == 1
    assert mask_iou(~OBJECT * 1.0, OBJECT) == 0


def test_best_mask_iou_by_hand():
    # At 4: 1/4, from 2: 2/4, from 1: 3/5, all twelve: 4/12.
    assert best_mask_iou(MAP, OBJECT) == pytest.approx((3 / 5, 1 / 4))
    assert best_mask_iou(np.ones((3, 4)), OBJECT) == pytest.approx((4 / 12, 1))


def test_best_mask_iou_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        map = rng.integers(0, 6, size=(6, 7)).astype(float)
        mask = rng.random((6, 7)) < 0.4
        iou, threshold = best_mask_iou(map, mask)
        all_of_them = [mask_iou(map, mask, t) for t in np.unique(map) / map.max()]
        assert iou == pytest.approx(max(all_of_them))
        assert mask_iou(map, mask, threshold) == pytest.approx(iou)
        assert best_mask_iou(7.5 * map, mask)[0] == pytest.approx(iou)


def test_leakage_by_hand():
    others = np.zeros((3, 4), dtype=bool)
    others[1:, 2] = True  # (1, 2) is the object's own, (2, 2) has 1
    assert leakage(MAP, OBJECT, others) == pytest.approx(1 / 8)
    assert np.isnan(leakage(MAP, OBJECT, np.zeros_like(OBJECT)))
    assert np.isnan(leakage(MAP * 0, OBJECT, others))


def test_odi_by_hand():
    others = np.zeros((3, 4), dtype=bool)
    others[1:, 2] = True  # (1, 2) is of both objects and has 4, (2, 2) has 1
    assert odi(MAP, OBJECT | others, others) == pytest.approx(5 / 8)
    apart = others & ~OBJECT
    assert odi(MAP, OBJECT | apart, apart) == pytest.approx(leakage(MAP, OBJECT, apart))
    assert np.isnan(odi(MAP, OBJECT, np.zeros_like(OBJECT)))
    assert np.isnan(odi(MAP * 0, OBJECT | others, others))


@pytest.mark.parametrize("empty", [np.zeros((3, 4)), -np.ones((3, 4)), np.full((3, 4), np.nan)])
def test_an_empty_map_misses(empty):
    assert pointing_game(empty, OBJECT) == 0
    assert energy(empty, OBJECT) == 0
    assert mask_iou(empty, OBJECT) == 0 and best_mask_iou(empty, OBJECT) == (0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_empties_the_map(value):
    broken = MAP.copy()
    broken[0, 0] = value
    assert pointing_game(broken, OBJECT) == energy(broken, OBJECT) == mask_iou(broken, OBJECT) == 0
    assert best_mask_iou(broken, OBJECT) == (0, 0)
    assert np.isnan(leakage(broken, OBJECT, ~OBJECT))


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_quantus(seed):
    """Relevance mass accuracy is `energy`, its pointing game is the one without a margin."""
    quantus = pytest.importorskip("quantus", reason="needs the package quantus")
    rng = np.random.default_rng(seed)
    maps, regions = rng.random((4, 8, 9)), rng.random((4, 8, 9)) < 0.4
    images = rng.random((4, 3, 8, 9)).astype(np.float32)
    options = {
        "abs": False,
        "normalise": False,
        "disable_warnings": True,
        "display_progressbar": False,
    }
    given = {
        "model": None,
        "x_batch": images,
        "y_batch": np.zeros(4, dtype=int),
        "a_batch": maps[:, None],
        "s_batch": regions[:, None],
    }
    mass = quantus.RelevanceMassAccuracy(**options)(**given)
    pairs = list(zip(maps, regions, strict=True))
    assert mass == pytest.approx([energy(m, r) for m, r in pairs])
    pointed = quantus.PointingGame(**options)(**given)
    assert [float(p) for p in pointed] == [pointing_game(m, r, margin=0) for m, r in pairs]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize(
    ("measure", "regions"),
    [
        *((name, 1) for name in ("pointing_game", "energy", "mask_iou", "best_mask_iou")),
        *((name, 1) for name in ("coverage", "entropy", "gini")),
        *((name, 2) for name in ("odi", "head_focus", "peak_on_head")),
    ],
)
def test_a_region_of_numbers_is_refused(measure, regions, kind):
    """As numpy has it, 0 and 1 are rows: energy was 5 of 1, and the IoU that of bits."""
    heat, mask = np.random.default_rng(0).random((6, 8)), np.zeros((6, 8), bool)
    mask[2:4, 3:6] = True
    function = getattr(map_measures, measure)
    assert np.isfinite(function(heat, *[mask] * regions)).all()
    with pytest.raises(InputError, match="boolean"):
        function(heat, *[mask.astype(kind)] * regions)
