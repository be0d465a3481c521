import numpy as np
import pytest
import torch
from explain_toys import encoded, tiny_detector

from als.explain import trivial
from als.model.grid import map_to_image


def test_gaussians_by_hand():
    heat = trivial.box_gaussian((9, 12), (2, 1, 7, 8))  # centre 4.5, 4.5: pixel 4, 4
    assert heat.shape == (9, 12) and heat.dtype == np.float32
    assert np.unravel_index(heat.argmax(), heat.shape) == (4, 4) and heat.max() == 1
    # sigma is a quarter of the side: 5 / 4 = 1.25 pixels in x, 7 / 4 = 1.75 in y
    assert heat[4, 6] == pytest.approx(np.exp(-0.5 * (2 / 1.25) ** 2))
    assert heat[7, 4] == pytest.approx(np.exp(-0.5 * (3 / 1.75) ** 2))
    whole = trivial.box_gaussian((9, 13), (0, 0, 13, 9))
    assert np.unravel_index(whole.argmax(), whole.shape) == (4, 6)
    np.testing.assert_allclose(whole, whole[::-1, ::-1])


def test_random():
    heat = trivial.random((70, 90), seed=3)
    assert heat.shape == (70, 90) and heat.min() >= 0 and heat.max() <= 1 and heat.std() > 0.1
    np.testing.assert_array_equal(heat, trivial.random((70, 90), seed=3))
    assert np.abs(heat - trivial.random((70, 90), seed=4)).max() > 0.1
    # As coarse as the model's maps: neighbours differ by less than a cell's difference.
    assert np.abs(np.diff(heat, axis=1)).max() < 0.1


def test_objectness_is_the_best_anchors_score():
    detector = tiny_detector()
    encoding, _, _ = encoded(detector)
    heat = trivial.objectness(detector, encoding)
    with torch.no_grad():
        (logits,), _ = detector.rpn.head([encoding.f_loc])
    best = logits.sigmoid().amax(1, keepdim=True)
    assert best.min() < best.max()
    np.testing.assert_allclose(heat, map_to_image(best, encoding), atol=1e-6)
