"""What goes wrong during a training: it stops with a sentence, and resumes to the same result."""

import errno
import os
import resource
import signal
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
import training_toys
from training_toys import QUIET, at_step, break_image, power_cut

from als.checkpoint import load_checkpoint
from als.config import TrainConfig
from als.data.dataset import DetectionDataset
from als.data.toy import write_toy
from als.errors import InputError
from als.training import train as training
from als.training.saving import newest_checkpoint
from als.training.train import train

STEPS = 6  # of a run: 3 an epoch
OPTIONS = QUIET | {"log_every_n_steps": 1}

pytestmark = pytest.mark.usefixtures("no_warnings")

config_of = partial(training_toys.config_of, epochs=2)


def judge(found, records, classes) -> dict[str, float]:
    return {"AP50": float(sum(one["scores"].sum() for one in found.values()))}


def stopped_run(config: TrainConfig, step: int, monkeypatch, save_every: int = 1) -> Path:
    """A run that ends before its step `step` as a kill would end it; its checkpoints' folder."""
    with power_cut(step, monkeypatch, save_every):
        train(config, judge=judge, **OPTIONS)
    return Path(config.out) / "checkpoints"


def assert_same_run(one: Path, two: Path) -> None:
    """The same weights, last and best, and the same figures logged."""
    for name in ("model.safetensors", "best.safetensors"):
        if (one / name).exists() or (two / name).exists():
            first, second = (load_checkpoint(x / name)[0].state_dict() for x in (one, two))
            assert all(torch.equal(first[key], second[key]) for key in first), name
    assert (one / "metrics.csv").read_text() == (two / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory) -> Path:
    """An uninterrupted run with a validation an epoch."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(config_of(toy, out, val="VOC2012:val"), judge=judge, **OPTIONS)
    return out


# Within an epoch, after an epoch's last step, and with a step that was logged but not saved.
@pytest.mark.parametrize(("stop_at", "save_every"), [(1, 1), (3, 1), (5, 2)])
def test_log_and_best_are_those_of_the_uninterrupted_run(
    toy, whole, tmp_path, monkeypatch, stop_at, save_every
):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    stopped_run(config, stop_at, monkeypatch, save_every)
    train(config, resume=True, judge=judge, **OPTIONS)
    assert_same_run(tmp_path / "run", whole)
    rows = (whole / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + STEPS + 2 and "val_AP50" in rows[0]


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGINT, 1)]
)
def test_a_signal_finishes_the_step_saves_and_leaves(
    toy, whole, tmp_path, monkeypatch, capsys, number, workers
):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val", workers=workers)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def send():  # as a terminal does, to the processes that load images too
        for process in (os.getpid(), *(child.pid for child in active_children())):
            os.kill(process, number)

    with monkeypatch.context() as patch:
        at_step(4, send, patch)
        with pytest.raises(SystemExit) as stopped:
            train(config, judge=judge, **OPTIONS)
    assert stopped.value.code == 128 + number
    assert "last.ckpt holds step 5; --resume" in capsys.readouterr().out
    assert {one: signal.getsignal(one) for one in before} == before
    train(config, resume=True, judge=judge, **OPTIONS)
    assert_same_run(tmp_path / "run", whole)


def test_validations_within_an_epoch(toy, tmp_path):
    """By a share of the epoch, or so many batches; not more than it has."""
    config = config_of(toy, tmp_path / "run", epochs=1, val="VOC2012:val")
    with pytest.raises(InputError, match="val_check_interval 4: an epoch has 3 batches"):
        train(config, judge=judge, val_check_interval=4, **OPTIONS)
    train(config, judge=judge, val_check_interval=1, **OPTIONS)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + STEPS // 2 + 3


def test_a_checkpoint_cut_in_half_gives_way_to_the_one_before(
    toy, whole, tmp_path, monkeypatch, capsys
):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    folder = stopped_run(config, 5, monkeypatch)
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert newest_checkpoint(folder) == (previous, 4)
    assert f"{last}: the checkpoint is cut off or damaged" in capsys.readouterr().out
    train(config, resume=True, judge=judge, **OPTIONS)
    assert_same_run(tmp_path / "run", whole)

    for path in (last, previous):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoints: no checkpoint here is whole"):
        train(config, resume=True, judge=judge, **OPTIONS)


def test_killed_between_the_two_names_of_a_save(toy, whole, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    folder = stopped_run(config, 5, monkeypatch)
    (folder / "last.ckpt").rename(folder / "previous.ckpt")
    with pytest.raises(InputError, match="holds a run already"):
        train(config, judge=judge, **OPTIONS)
    train(config, resume=True, judge=judge, **OPTIONS)
    assert_same_run(tmp_path / "run", whole)


def test_full_disk_is_told_and_leaves_the_checkpoints(toy, whole, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    folder = stopped_run(config, 2, monkeypatch)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond half a checkpoint: writing one stops in its middle.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["last.ckpt"]) // 2, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            train(config, resume=True, judge=judge, **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (File too large)" in str(error.value)
    assert f"{folder / 'last.ckpt'} is as it was; --resume" in str(error.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    train(config, resume=True, judge=judge, **OPTIONS)
    assert_same_run(tmp_path / "run", whole)


def test_a_folder_that_cannot_be_written_is_told(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written .*No checkpoint was saved yet"):
        train(config_of(toy, tmp_path / "file" / "run"), **OPTIONS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_is_told(toy, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written .Permission denied"):
        train(config_of(toy, tmp_path / "shut" / "run"), **OPTIONS)


def test_an_image_deleted_during_the_epoch_stops_with_its_name(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_toy(root, images=12, seed=3, size=(64, 80))

    def delete():
        for path in root.rglob("*.jpg"):
            path.unlink()

    at_step(1, delete, monkeypatch)
    with pytest.raises(InputError, match=r"toy_\d+\.jpg: no such file") as error:
        train(config_of(root, tmp_path / "run"), **OPTIONS)
    assert "\n" not in str(error.value)


def test_a_worker_that_dies_is_told_with_its_cause(toy, tmp_path, monkeypatch):
    def killed(self, item):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(DetectionDataset, "__getitem__", killed)
    # Which of the two is told is a race within torch.
    with pytest.raises(
        InputError, match=r"worker .*(killed by signal: Killed|exited unexpectedly).*no memory"
    ) as error:
        train(config_of(toy, tmp_path / "run", workers=1), **OPTIONS)
    assert "\n" not in str(error.value) and "No checkpoint was saved yet" in str(error.value)


def test_skipped_samples_are_counted_across_a_kill(tmp_path, monkeypatch, capsys):
    root = tmp_path / "data"
    write_toy(root, images=12, seed=3, size=(64, 80))
    for place in (0, 1):
        break_image(root, place)
    config = config_of(root, tmp_path / "run", skip_broken=True, batch_size=3)
    stopped_run(config, 3, monkeypatch)
    train(config, resume=True, **OPTIONS)
    assert "4 samples could not be read and were skipped" in capsys.readouterr().out


def test_compiling_keeps_the_names_of_the_tensors(toy, tmp_path):
    """Run uncompiled, which the option allows at any time; benchmarks/gpu_check.py compiles."""
    config = replace(config_of(toy, tmp_path / "compiled"), compile=True)
    plain = config_of(toy, tmp_path / "plain")
    with torch.compiler.set_stance("force_eager"):
        train(config, **OPTIONS)
    train(plain, **OPTIONS)
    assert_same_run(tmp_path / "compiled", tmp_path / "plain")


def test_bf16_trains_to_a_float32_checkpoint(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    path = train(config, judge=judge, precision="bf16-mixed", **OPTIONS)
    state = load_checkpoint(path)[0].state_dict()
    assert all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    detector = training._start(config).train()
    images = [torch.rand(3, 64, 96)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (proposals,) = detector.eval().propose(detector.encode(images))
    # Boxes in bfloat16 would lie on whole pixels beyond 128, and on every fourth beyond 512.
    assert proposals.dtype == torch.float32


def test_what_may_not_be_read_is_not_told_as_unwritable(toy, tmp_path, monkeypatch):
    mask = tmp_path / "data" / "mask.png"

    def shut(self, item):
        raise PermissionError(errno.EACCES, "Permission denied", str(mask))

    monkeypatch.setattr(DetectionDataset, "__getitem__", shut)
    with pytest.raises(InputError, match=r"mask\.png: cannot be used .Permission denied") as told:
        train(config_of(toy, tmp_path / "run"), **QUIET)
    assert "--out" not in str(told.value) and "No checkpoint was saved yet" in str(told.value)


def test_a_gpu_without_memory_left_is_told_in_a_sentence(toy, tmp_path, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2.00 GiB.")

    at_step(1, full, monkeypatch)
    with pytest.raises(InputError, match=r"CUDA out of memory.*lower data\.batch_size") as told:
        train(config_of(toy, tmp_path / "run"), **QUIET)
    assert "\n" not in str(told.value)
