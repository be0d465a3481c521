"""What a training logs of the maps, and that it warns of a flat one."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_toys import QUIET, config_of

from als.training.module import map_statistics
from als.training.train import train

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_map_statistics_against_numpy():
    generator = torch.Generator().manual_seed(0)
    a_loc, a_cls = torch.rand(2, 3, 1, 5, 7, generator=generator)
    a_cls[1] = 0.4  # a constant map: no spread, no correlation
    found = map_statistics(a_loc, a_cls, [(80, 112)] * 3)
    loc, cls = a_loc.numpy().reshape(3, -1), a_cls.numpy().reshape(3, -1)
    spreads = {
        name: np.mean(np.percentile(x, 95, axis=1) - np.percentile(x, 5, axis=1))
        for name, x in {"loc": loc, "cls": cls}.items()
    }
    correlation = (np.corrcoef(loc[0], cls[0])[0, 1] + np.corrcoef(loc[2], cls[2])[0, 1]) / 3
    assert found["map_loc_mean"].item() == pytest.approx(loc.mean(), abs=1e-6)
    assert found["map_cls_mean"].item() == pytest.approx(cls.mean(), abs=1e-6)
    assert found["map_loc_spread"].item() == pytest.approx(spreads["loc"], abs=1e-6)
    assert found["map_cls_spread"].item() == pytest.approx(spreads["cls"], abs=1e-6)
    assert found["map_correlation"].item() == pytest.approx(correlation, abs=1e-5)


def test_the_padding_of_a_batch_does_not_count():
    """Images of 64 x 96 and 60 x 40 pixels: 4 x 6 cells, and 4 x 3 of which the last is partial."""
    generator = torch.Generator().manual_seed(0)
    a_loc, a_cls = torch.rand(2, 2, 1, 4, 6, generator=generator)
    a_loc[1, :, :, 3:] = 0.0
    a_cls[1, :, :, :3] = 0.9  # constant on the image, not beside it
    found = map_statistics(a_loc, a_cls, [(64, 96), (60, 40)])
    parts = [
        map_statistics(a_loc[:1], a_cls[:1], [(64, 96)]),
        map_statistics(a_loc[1:, :, :, :3], a_cls[1:, :, :, :3], [(64, 48)]),
    ]
    assert parts[1]["map_cls_spread"] == 0
    assert parts[1]["map_correlation"] == 0
    for name, value in found.items():
        assert value.item() == pytest.approx((parts[0][name] + parts[1][name]).item() / 2), name


def test_rounding_is_no_correlation():
    """Maps that are constant but for the last bit of float32."""
    generator = torch.Generator().manual_seed(0)
    a_loc = 0.95 + 6e-8 * torch.randint(0, 2, (1, 1, 4, 6), generator=generator)
    found = map_statistics(a_loc, a_loc.clone(), [(64, 96)])
    assert found["map_correlation"] == 0
    varied = a_loc + 1e-3 * torch.rand(1, 1, 4, 6, generator=generator)
    assert map_statistics(varied, varied, [(64, 96)])["map_correlation"].item() > 0.999


def test_every_row_of_the_log_has_the_figures_of_the_maps(toy, tmp_path):
    train(config_of(toy, tmp_path / "run", epochs=2), log_every_n_steps=2, **QUIET)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    for row in rows:
        for name in ("loc_mean", "loc_spread", "cls_mean", "cls_spread"):
            assert 0 <= float(row[f"map_{name}"]) <= 1
        assert -1 <= float(row["map_correlation"]) <= 1


def test_flat_maps_are_told(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", epochs=2)
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-6, warmup_steps=1))
    with pytest.warns(UserWarning, match="cls map is flat"):
        train(config, log_every_n_steps=1, **QUIET)
