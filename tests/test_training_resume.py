"""Order and augmentation of every step are fixed, and a resumed run ends bit for bit the same."""

import os
import shutil
import signal
from dataclasses import replace
from time import sleep

import pandas as pd
import pytest
import torch
from tiny import Payload
from training_toys import (
    QUIET,
    assert_same_tensors,
    at_step,
    break_image,
    config_of,
    power_cut,
    tensors_of,
)

from als.checkpoint import load_checkpoint
from als.data.toy import write_toy
from als.errors import InputError
from als.files import read_json
from als.training.module import DetectorModule
from als.training.train import train

pytestmark = pytest.mark.usefixtures("no_warnings")


def record_batches(monkeypatch) -> list[tuple[int, list[str], list[tuple[int, ...]]]]:
    """Every step that runs from now on: (step, image ids, image shapes)."""
    seen = []
    whole_step = DetectorModule.training_step

    def training_step(self, batch, batch_idx):
        images, targets = batch
        ids = [target["image_id"] for target in targets]
        seen.append((self.global_step, ids, [round(i.sum().item(), 2) for i in images]))
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(DetectorModule, "training_step", training_step)
    return seen


def test_each_epoch_has_its_own_order_and_augmentation(toy, tmp_path, monkeypatch):
    seen = record_batches(monkeypatch)
    train(config_of(toy, tmp_path / "run"), **QUIET)
    epochs = [seen[0:3], seen[3:6], seen[6:9]]
    ids = [[name for _, names, _ in epoch for name in names] for epoch in epochs]
    assert all(len(set(names)) == 6 for names in ids), "an epoch shows every image once"
    assert ids[0] != ids[1] and ids[1] != ids[2]
    pixels = [
        {
            name: value
            for _, names, values in epoch
            for name, value in zip(names, values, strict=True)
        }
        for epoch in epochs
    ]
    assert pixels[0] != pixels[1] and pixels[1] != pixels[2]


@pytest.fixture(scope="module")
def whole_run(toy, tmp_path_factory):
    """An uninterrupted run of 9 steps: its checkpoint and the batches that it saw."""
    with pytest.MonkeyPatch.context() as patch:
        seen = record_batches(patch)
        path = train(config_of(toy, tmp_path_factory.mktemp("runs") / "whole"), **QUIET)
    return path, seen


# With 3 steps an epoch: in the first epoch, at its end (saved by step, saved by epoch), and in
# the middle of a later epoch with a step to do again.
@pytest.mark.parametrize(("save_every", "stop_at"), [(1, 2), (1, 3), (100, 4), (2, 5)])
def test_resumed_run_equals_the_uninterrupted(
    toy, tmp_path, monkeypatch, whole_run, save_every, stop_at
):
    whole, seen_whole = whole_run
    config = config_of(toy, tmp_path / "run")
    with power_cut(stop_at, monkeypatch, save_every):
        train(config, **QUIET)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    saved_at = max(stop_at // save_every * save_every, stop_at // 3 * 3)
    seen = record_batches(monkeypatch)
    path = train(config, resume=True, **QUIET)
    assert seen == seen_whole[saved_at:]
    assert_same_tensors(path, whole)


@pytest.mark.parametrize(
    ("limit", "accumulated"),
    [
        ({"max_steps": 2}, 1),
        ({"max_steps": 5}, 2),
        *(({"max_time": "00:00:00:01"}, k) for k in (1, 2)),
    ],
    ids=str,
)
def test_a_run_that_ended_within_an_epoch_goes_on_there(
    toy, tmp_path, monkeypatch, limit, accumulated
):
    options = QUIET | {"accumulate_grad_batches": accumulated}
    with pytest.MonkeyPatch.context() as patch:
        whole_seen = record_batches(patch)
        whole = train(config_of(toy, tmp_path / "whole"), **options)
    config, seen = config_of(toy, tmp_path / "run"), record_batches(monkeypatch)
    if "max_time" in limit:
        at_step(2, lambda: sleep(1.1), monkeypatch)
    first = train(config, **options, **limit)
    assert 0 < len(seen) < 9 and 0 < load_checkpoint(first)[1]["epochs"] < 3
    path = train(config, resume=True, **options)
    assert seen == whole_seen
    assert_same_tensors(path, whole)


def test_a_place_that_another_batch_counts_is_refused(toy, tmp_path, monkeypatch):
    with power_cut(2, monkeypatch):
        train(config_of(toy, tmp_path / "run"), **QUIET)
    told = (
        "last.ckpt: was saved by a run of 3 batches an epoch, now 6, 9 steps in all, now 18; resume"
    )
    with pytest.raises(InputError, match=told):
        train(config_of(toy, tmp_path / "run", batch_size=1), resume=True, **QUIET)
    with pytest.raises(InputError, match="9 steps in all, now 6; resume"):
        train(config_of(toy, tmp_path / "run"), resume=True, accumulate_grad_batches=2, **QUIET)


def test_a_validation_is_not_left_out_where_a_run_was_stopped(toy, tmp_path, monkeypatch):
    options = QUIET | {"val_check_interval": 2, "judge": lambda *given: {"AP50": 0.5}}
    configs = [config_of(toy, tmp_path / n, epochs=2, val="VOC2012:val") for n in ("whole", "run")]
    train(configs[0], **options)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        train(configs[1], **options)
    train(configs[1], resume=True, **options)
    whole, run = (
        pd.read_csv(tmp_path / name / "metrics.csv").dropna(subset="val_AP50")["step"].tolist()
        for name in ("whole", "run")
    )
    assert run == whole and len(whole) == 2


def test_twice_interrupted_run_in_a_moved_folder(toy, tmp_path, monkeypatch, whole_run):
    folders = [tmp_path / "here", tmp_path / "there"]
    for stop_at, folder in zip((2, 7), folders, strict=True):
        with power_cut(stop_at, monkeypatch):
            train(config_of(toy, folder), resume=True, **QUIET)
        if folder is folders[0]:
            folder.rename(folders[1])
    path = train(config_of(toy, folders[1]), resume=True, **QUIET)
    assert_same_tensors(path, whole_run[0])
    kept = {file.name for file in (folders[1] / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "previous.ckpt"}


@pytest.mark.parametrize(
    ("optimizer", "data"),
    [
        ({"schedule": "step", "milestones": (0.5,)}, {}),
        ({"name": "adamw"}, {"augmentation": "crop", "jitter": True}),  # of the model that ships
    ],
)
def test_other_recipes_resume_too(toy, tmp_path, monkeypatch, optimizer, data):
    def config(name):
        config = config_of(toy, tmp_path / name, epochs=2, **data)
        return replace(config, optimizer=replace(config.optimizer, **optimizer))

    whole = train(config("whole"), **QUIET)
    with power_cut(2, monkeypatch):
        train(config("broken"), **QUIET)
    assert_same_tensors(train(config("broken"), resume=True, **QUIET), whole)


def test_a_resumed_run_needs_nothing_that_it_started_from(toy, tmp_path, monkeypatch):
    start = train(config_of(toy, tmp_path / "stage1", epochs=1), **QUIET)
    config = replace(config_of(toy, tmp_path / "run", epochs=1), start_from=str(start))
    with power_cut(2, monkeypatch):
        train(config, **QUIET)
    start.unlink()
    assert train(config, resume=True, **QUIET).exists()


def test_a_finished_run_is_not_overwritten_and_resumes_to_the_same_file(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", epochs=1)
    path = train(config, **QUIET)
    before = tensors_of(path)
    with pytest.raises(InputError, match="--resume"):
        train(config, **QUIET)
    train(config, resume=True, **QUIET)
    assert all(torch.equal(before[name], value) for name, value in tensors_of(path).items())


def test_skipped_batches_do_not_shift_a_resumed_run(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_toy(root, images=12, size=(64, 80))
    break_image(root, 1)

    def config(name):
        config = config_of(root, tmp_path / name, epochs=2)
        return replace(config, data=replace(config.data, batch_size=1, skip_broken=True))

    whole = train(config("whole"), **QUIET)
    with power_cut(8, monkeypatch):  # in the second epoch: 6 batches an epoch, one of them skipped
        train(config("broken"), **QUIET)
    assert_same_tensors(train(config("broken"), resume=True, **QUIET), whole)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(toy, tmp_path):
    config = config_of(toy, tmp_path / "run", epochs=1)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({"global_step": 1, "state_dict": Payload(tmp_path / "executed")}, last)
    with pytest.raises(InputError, match="no checkpoint here is whole"):
        train(config, resume=True, **QUIET)
    assert not (tmp_path / "executed").exists()
    torch.load(last, weights_only=False)
    assert (tmp_path / "executed").exists(), "the file is one that would have run"


def test_a_run_does_not_go_on_with_another_config(toy, tmp_path):
    """Rates and schedule come from the checkpoint: the new ones would have no effect."""
    train(config_of(toy, tmp_path / "run", epochs=1), **QUIET)
    config = replace(config_of(toy, tmp_path / "run", epochs=2), seed=3)
    with pytest.raises(InputError, match="run: was begun with other epochs, seed; resume with the"):
        train(config, resume=True, **QUIET)
    assert read_json(tmp_path / "run" / "config.json")["epochs"] == 1
    skipping = config_of(toy, tmp_path / "run", epochs=1, skip_broken=True)
    train(skipping, resume=True, **QUIET)  # makes no other network


def test_the_best_is_chosen_on_one_validation_set(toy, tmp_path, monkeypatch):
    """0.9 on one set is not better than 0.5 on another; a validation may begin later, though."""

    def validated(val):
        config = config_of(toy, tmp_path / "run", epochs=2)
        return replace(config, data=replace(config.data, val=val))

    def judge(found, records, classes):
        return {"AP50": 0.5}

    with power_cut(4, monkeypatch):
        train(validated("VOC2012:val"), judge=judge, **QUIET)
    with pytest.raises(InputError, match="begun with other data.val"):
        train(validated("VOC2012:test"), resume=True, judge=judge, **QUIET)
    train(validated(None), resume=True, **QUIET)
    train(validated("VOC2012:test"), resume=True, judge=judge, **QUIET)


def judge_of(*figures: float):
    """A judge that gives these AP50, one a validation."""
    left = list(figures)
    return lambda *given: {"AP50": left.pop(0)}


def best_epochs(run) -> float:
    return load_checkpoint(run / "best.safetensors")[1]["epochs"]


def test_a_moved_run_remembers_its_best(toy, tmp_path, monkeypatch):
    judge = judge_of(0.9, 0.5, 0.4)
    with power_cut(4, monkeypatch):  # in the second epoch
        train(config_of(toy, tmp_path / "here", val="VOC2012:val"), judge=judge, **QUIET)
    (tmp_path / "here").rename(tmp_path / "there")
    config = config_of(toy, tmp_path / "there", val="VOC2012:val")
    train(config, resume=True, judge=judge, **QUIET)
    assert best_epochs(tmp_path / "there") == 1


def test_a_best_checkpoint_that_is_cut_off_is_one_sentence(toy, tmp_path, monkeypatch):
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    with power_cut(4, monkeypatch):
        train(config, judge=judge_of(0.9), **QUIET)
    best = tmp_path / "run/checkpoints/best.ckpt"
    best.write_bytes(best.read_bytes()[:999])
    with pytest.raises(InputError, match="best.ckpt: is cut off or damaged"):
        train(config, resume=True, **QUIET)


def test_a_run_whose_time_was_over_remembers_its_best(toy, tmp_path, monkeypatch):
    """Where the time is over lightning validates once more, after the last checkpoint."""
    judge = judge_of(0.9, 0.5, 0.4, 0.3)
    config = config_of(toy, tmp_path / "run", val="VOC2012:val")
    with monkeypatch.context() as patch:
        at_step(1, lambda: sleep(1.1), patch)
        train(config, judge=judge, max_time="00:00:00:01", **QUIET)
    first = best_epochs(tmp_path / "run")
    assert first < 1
    train(config, resume=True, judge=judge, **QUIET)
    assert best_epochs(tmp_path / "run") == first


def test_another_batch_is_refused_though_it_makes_as_many_steps(toy, tmp_path, monkeypatch):
    """6 images make one batch of 4, and one of 6."""
    with power_cut(1, monkeypatch):
        train(config_of(toy, tmp_path / "run", batch_size=4), **QUIET)
    with pytest.raises(InputError, match="by a run of 4 images a batch, now 6; resume with"):
        train(config_of(toy, tmp_path / "run", batch_size=6), resume=True, **QUIET)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_checkpoints_is_not_written_over(toy, tmp_path, resume):
    """They are large, and removed once the model is there."""
    config = config_of(toy, tmp_path / "run", epochs=1)
    path = train(config, **QUIET)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = path.read_bytes()
    with pytest.raises(InputError, match="run: holds the model of a finished run; choose another"):
        train(config, resume=resume, **QUIET)
    assert path.read_bytes() == before


def test_a_run_that_is_refused_keeps_its_config(toy, tmp_path):
    """Else it would say of the finished model that it was trained with another batch."""
    train(config_of(toy, tmp_path / "run", epochs=1), **QUIET)
    before = read_json(tmp_path / "run" / "config.json")
    with pytest.raises(InputError, match="was saved by a run of 3 batches an epoch, now 2"):
        train(config_of(toy, tmp_path / "run", epochs=1, batch_size=3), resume=True, **QUIET)
    assert read_json(tmp_path / "run" / "config.json") == before
