"""Two processes on one global batch do what one process does; accumulated steps are counted."""

import csv
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import ddp_run
import numpy as np
import pytest
import torch
from training_toys import QUIET

from als.checkpoint import load_checkpoint
from als.data.layouts import load_records
from als.data.sampler import AspectBatchSampler
from als.data.toy import TOY_CLASSES
from als.training import train as training

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "noise"
    ddp_run.write_data(root)
    return root


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_train_like_one(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ddp_run.main(data, one, 1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    program = [str(ROOT / "tests" / "ddp_run.py"), str(data), str(two), "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        torchrun + program,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,  # processes that wait for each other would wait for ever
    )
    assert done.returncode == 0, done.stderr[-3000:]

    # Losses, learning rates and validation figures of every step.
    rows_one, rows_two = rows_of(one), rows_of(two)
    assert len(rows_one) == len(rows_two) == 3 * (10 // 4) + 3
    for row_one, row_two in zip(rows_one, rows_two, strict=True):
        values = [[float(v) for v in row.values() if v] for row in (row_one, row_two)]
        assert row_one.keys() == row_two.keys() and "loss_att" in row_one
        np.testing.assert_allclose(*values, rtol=0, atol=1e-5)

    start = training._start(ddp_run.config_of(data, one, 4)).state_dict()
    after_one = load_checkpoint(one / "model.safetensors")[0].state_dict()
    after_two = load_checkpoint(two / "model.safetensors")[0].state_dict()
    moved = max((after_one[name] - start[name]).abs().max() for name in start)
    assert moved > 1e-3, "nothing was trained"
    for name, tensor in after_one.items():
        torch.testing.assert_close(after_two[name], tensor, rtol=0, atol=1e-5)

    # Both processes judged the same detections, those of the one process.
    judged = [json.loads(path.read_text()) for path in sorted(two.glob("judged-*.json"))]
    expected = json.loads((one / "judged-0.json").read_text())
    assert len(judged) == 2 and judged[0] == judged[1] and len(expected) == 5
    for image_id, found in expected.items():
        assert len(found["scores"]) > 0
        np.testing.assert_allclose(judged[0][image_id]["scores"], found["scores"], atol=1e-4)


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_out_the_batches_of_one(data, drop_last):
    """Each image once, in the batch and with the seed that one process would draw."""
    records = load_records("VOC2012:train", data, TOY_CLASSES)
    whole = list(AspectBatchSampler(records, 6, 0, True, 1, 0, drop_last))
    parts = [list(AspectBatchSampler(records, 2, 0, True, 3, r, drop_last)) for r in range(3)]
    assert [sum(split, []) for split in zip(*parts, strict=True)] == whole
    if not drop_last:
        indices = sorted(index for batch in whole for index, _ in batch)
        assert indices == list(range(len(records)))


def test_accumulated_batches_make_one_step(data, tmp_path):
    """10 images by 2 are 5 batches, by 2 again 3 steps an epoch; the rates follow these."""
    config = ddp_run.config_of(data, tmp_path / "run", batch_size=2)
    config = replace(config, data=replace(config.data, val=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training.train(config, accumulate_grad_batches=2, log_every_n_steps=1, **QUIET)
    rows = rows_of(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == list(range(9))
    rates = [float(row["lr"]) for row in rows]
    # Warm-up from a thousandth over 2 steps, then a cosine that ends after the ninth step.
    expected = [1e-5, 0.01 * (1e-3 + 0.999 / 2)]
    expected += [0.005 * (1 + np.cos(np.pi * step / 7)) for step in range(7)]
    assert rates == pytest.approx(expected)
