"""Maps from the conv4 grid to the pixels of an image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.models.detection.image_list import ImageList

from als.model.grid import grids_to_image, map_to_image


@pytest.mark.parametrize("index", [0, 1])
def test_maps_are_resized_to_the_padded_image_cut_and_resized_again(index):
    """As torch resizes: the second image ends within a cell, and its original is smaller."""
    images = ImageList(torch.zeros(2, 3, 64, 96), [(64, 91), (50, 96)])
    sizes = [(130, 200), (31, 60)]
    encoding = SimpleNamespace(images=images, original_sizes=sizes)
    grids = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    height, width = images.image_sizes[index]
    fine = interpolate(grids, (64, 96), mode="bilinear")[..., :height, :width]
    expected = interpolate(fine, sizes[index], mode="bilinear")[:, 0].numpy()
    made = grids_to_image(grids, encoding, index)
    assert made.dtype == np.float32 and made.shape == (3, *sizes[index])
    np.testing.assert_allclose(made, expected, atol=1e-6)
    batch = grids[:2]
    np.testing.assert_allclose(map_to_image(batch, encoding, index), expected[index], atol=1e-6)


def test_a_map_of_a_longest_side_is_that_of_the_smaller_photo():
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 91)])
    grid = torch.rand(1, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    large, small = (
        SimpleNamespace(images=images, original_sizes=[s]) for s in ((640, 910), (64, 91))
    )
    made = map_to_image(grid, large, longest=91)
    np.testing.assert_array_equal(made, map_to_image(grid, small))
    np.testing.assert_array_equal(made, map_to_image(grid, small, longest=92))  # never enlarged
    # Smooth: nearly what the nearest pixels of the whole map are.
    np.testing.assert_allclose(made, map_to_image(grid, large)[5::10, 5::10], atol=0.01)


def test_a_constant_map_stays_what_it_is():
    images = ImageList(torch.zeros(1, 3, 32, 32), [(20, 32)])
    encoding = SimpleNamespace(images=images, original_sizes=[(500, 800)])
    made = map_to_image(torch.full((1, 1, 2, 2), 0.7), encoding)
    np.testing.assert_allclose(made, np.full((500, 800), 0.7, np.float32), rtol=1e-6)
    assert map_to_image(None, encoding) is None
