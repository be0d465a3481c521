"""Which cells a RoI reads: by hand, and against the network itself."""

import pytest
import torch
from app_server import scene, tiny_predictor

from als.explain.reading import cell_shares


@pytest.fixture(params=["align", "max"])
def read(request):
    predictor = tiny_predictor(pool=request.param)
    return predictor.detector, predictor.analyse(scene(3)).encoding


def test_shares_lie_where_the_roi_lies_and_sum_to_one(read):
    detector, encoding = read
    rois = torch.tensor([[16.0, 16, 64, 48], [0, 0, 32, 64]])  # 3 x 2 and 2 x 4 cells of 16 pixels
    shares = cell_shares(detector, encoding, rois)
    assert shares.shape == (2, *encoding.f.shape[-2:]) and (shares >= 0).all()
    assert shares.sum((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-4)
    near = torch.zeros_like(shares, dtype=torch.bool)  # bilinear samples reach one cell further
    near[0, 0:4, 0:5] = near[1, 0:5, 0:3] = True
    assert not shares[~near].any()
    assert shares[0, 1:3, 1:4].sum() > 0.5


def test_with_roi_align_a_bin_has_the_same_weight_everywhere():
    predictor = tiny_predictor()
    encoding = predictor.analyse(scene(3)).encoding
    (shares,) = cell_shares(predictor.detector, encoding, torch.tensor([[16.0, 0, 64, 48]]))
    # Three bins of a cell each, samples at 1/4 and 3/4: along a side a bin gives its own cell 3/4
    # and each neighbour 1/8. Over the upper edge there is none, and the edge gets its share.
    across, down = torch.tensor([1.0, 7, 8, 7, 1]) / 24, torch.tensor([8.0, 8, 7, 1]) / 24
    assert torch.allclose(shares[:4, :5], torch.outer(down, across))


def test_gradients_and_modes_are_as_before(read):
    detector, encoding = read
    before = [p.requires_grad for p in detector.parameters()]
    with torch.inference_mode():
        cell_shares(detector, encoding, torch.tensor([[16.0, 16, 64, 48]]))
    assert [p.requires_grad for p in detector.parameters()] == before
    assert all(p.grad is None for p in detector.parameters()) and not encoding.f_cls.requires_grad
