"""Figures of attention maps, by hand."""

import numpy as np
import pytest

from als.evaluation.evaluate import _mean_maps, correlation, object_iou, spread


def test_iou_of_a_map_with_a_mask():
    # Over 0.5 are cells 0, 1 and 4; the object is cells 1, 2 and 4; cell 4 is void in the mask.
    attention = np.array([[0.9, 0.6, 0.5], [0.1, 0.8, 0.0]])
    object_map = np.array([[0, 1, 1], [0, 255, 0]], np.uint8)
    assert object_iou(attention, object_map) == pytest.approx(1 / 3)
    assert object_iou(attention, object_map, threshold=0.4) == pytest.approx(2 / 3)
    object_map[1, 1] = 1
    assert object_iou(attention, object_map) == pytest.approx(2 / 4)


def test_iou_of_extremes():
    ones = np.ones((2, 2), np.uint8)
    assert object_iou(np.full((2, 2), 0.7), ones) == 1.0
    assert object_iou(np.full((2, 2), 0.3), ones) == 0.0
    assert object_iou(np.full((2, 2), 0.7), 0 * ones) == 0.0, "no object, but the map shows one"
    assert np.isnan(object_iou(np.full((2, 2), 0.3), 0 * ones)), "neither has a pixel"
    assert np.isnan(object_iou(np.full((2, 2), 0.7), 255 * ones)), "nothing is known"


def test_spread_leaves_out_the_extreme_twentieths():
    steps = np.arange(101.0).reshape(1, 101) / 100  # percentile p is p / 100
    assert spread(steps) == pytest.approx(0.9)
    lonely = np.zeros((10, 10))
    lonely[0, :4] = 1.0
    assert spread(lonely) == 0.0, "four of a hundred pixels are no spread"


def test_correlation_is_pearsons():
    one = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert correlation(one, 5 - one) == pytest.approx(-1.0)
    # Deviations -1.5 -.5 .5 1.5 and 1 -1 -1 1: their products sum to 0.
    assert correlation(one, np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.0)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.953])
def test_a_constant_map_has_no_correlation(value):
    """Also where its mean in float32 is off by a rounding error."""
    constant = np.full((97, 131), value, np.float32)
    other = np.random.default_rng(0).random((97, 131), dtype=np.float32)
    assert correlation(constant, other) == correlation(other, constant) == 0.0
    assert correlation(constant, constant) == 0.0


@pytest.mark.filterwarnings("error")
def test_images_without_a_mask_do_not_count():
    maps = [{"iou": np.nan, "mean": 0.2}, {"iou": 0.6, "mean": 0.4}]
    assert _mean_maps(maps) == pytest.approx({"iou": 0.6, "mean": 0.3})
    alone = _mean_maps(maps[:1])
    assert np.isnan(alone["iou"]) and alone["mean"] == 0.2
    assert _mean_maps([]) is None
