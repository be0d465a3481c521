"""What kills and many epochs do to a training: the same end, and memory that stays flat."""

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import LambdaCallback

from als.checkpoint import load_checkpoint
from als.data.toy import write_toy
from als.errors import InputError
from als.machine import keep_freed_memory
from als.training import train as training
from als.training.saving import LAST
from benchmarks.networks import QUIET, SMALL, small_training
from benchmarks.recording import options, save
from benchmarks.timing import resident_megabytes

IMAGES = 48  # half of them train, two a step: 12 steps an epoch
SAVE_EVERY = 5  # steps, so that most saves lie within an epoch
SEED = 0  # of the steps at which it is killed
WHILE_SAVING = 4  # every so many kills waits for a checkpoint being written
LONGEST = 300  # seconds that one step may take to come
SIZES = tuple(range(64, 225, 16))  # shorter sides in pixels, of the run that shows its memory
EPOCHS = 30
GROWTH = 0.05  # share of the memory by which it may rise over as many epochs
# At 96 pixels, with a validation every epoch.
NETWORK = SMALL | {"pool_size": 3, "min_size": 96, "max_size": 128, "rois_per_image": 16}
DATA = {"val": "VOC2012:val", "min_sizes": (64, 80, 96), "max_size": 128, "jitter": True}


def start(root: Path, out: Path, epochs: int) -> subprocess.Popen:
    """The run in a process of its own: it goes on where the folder stands."""
    command = [sys.executable, "-m", "benchmarks", "kill_resume", "--epochs", str(epochs)]
    with open(out.with_suffix(".log"), "a") as log:
        return subprocess.Popen([*command, "--run", str(root), str(out)], stdout=log, stderr=log)


def finish(run: subprocess.Popen, out: Path) -> None:
    if run.wait() != 0:
        log = out.with_suffix(".log").read_text()
        raise InputError(f"The training failed with status {run.returncode}:\n{log[-2000:]}")


def progress(out: Path) -> tuple[int, int]:
    """Steps of the run so far, and when the last was logged (until that changes, they are those
    of the run killed before). The file is renamed into place, so it is whole whenever read."""
    try:
        with open(out / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
            return int(rows[-1]["step"]) + 1 if rows else 0, os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0, 0


def wait_until(condition, run: subprocess.Popen) -> None:
    started = time.monotonic()
    while not condition():
        if run.poll() is not None or time.monotonic() - started > LONGEST:
            raise InputError(f"The training ended or hangs (status {run.poll()}); see its log.")
        time.sleep(0.0005)


def kill_at(run: subprocess.Popen, step: int, while_saving: bool, out: Path, pause: float) -> dict:
    """Kill the run after `step`; returns where and how it was killed."""
    _, before = progress(out)

    def reached() -> bool:
        done, logged = progress(out)
        return logged != before and done >= step

    def parts() -> set[Path]:
        return set((out / "checkpoints").glob(".als-*.part"))

    left = parts()  # by kills before this one
    try:
        wait_until(reached, run)
        if while_saving:
            wait_until(lambda: parts() - left, run)
        else:
            time.sleep(pause)
        moment, _ = progress(out)
    finally:
        run.kill()
        run.wait()
    return {"step": moment, "checkpoint_half_written": bool(parts() - left)}


def differences(one: Path, two: Path) -> list[str]:
    """What is not equal bit for bit between two finished runs; empty if everything is."""
    found = []
    for name in ("model.safetensors", "best.safetensors"):
        if not _equal(*(load_checkpoint(run / name)[0].state_dict() for run in (one, two))):
            found.append(name)
    states = [torch.load(run / "checkpoints" / LAST, weights_only=True) for run in (one, two)]
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        if not _equal(*(state[name] for state in states)):
            found.append(f"{LAST}: {name}")
    if (one / "metrics.csv").read_text() != (two / "metrics.csv").read_text():
        found.append("metrics.csv")
    return found


def _equal(one, two) -> bool:
    if isinstance(one, torch.Tensor):
        return one.equal(two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    return one == two


def compare_killed(folder: Path, kills: int, epochs: int) -> dict:
    """Run once undisturbed, once with kills, and compare."""
    root, whole, killed = folder / "toy", folder / "whole", folder / "killed"
    write_toy(root, IMAGES)
    started = time.monotonic()
    finish(start(root, whole, epochs), whole)
    total, _ = progress(whole)
    print(f"undisturbed run: {total} steps, {time.monotonic() - started:.0f} s", flush=True)
    rng = random.Random(SEED)
    # The last steps are left out, so that a run waiting for a save does not end before it.
    steps = sorted(rng.sample(range(1, total - 2 * SAVE_EVERY), kills))
    moments = []
    for number, step in enumerate(steps, 1):
        run, while_saving = start(root, killed, epochs), number % WHILE_SAVING == 0
        moments.append(kill_at(run, step, while_saving, killed, rng.uniform(0, 0.2)))
        print(f"kill {number}: {moments[-1]}", flush=True)
    finish(start(root, killed, epochs), killed)
    unequal = differences(whole, killed)
    return {
        "kills": len(moments),
        "bit_equal": not unequal,
        "unequal": unequal,
        "compared": "weights (last, best), optimiser, schedule, step, epoch, every logged figure",
        "steps": total,
        "save_every_steps": SAVE_EVERY,
        "moments": moments,
        "seed": SEED,
        "seconds": time.monotonic() - started,
    }


def kill_resume(arguments: list[str]) -> None:
    """Does a training that is killed again and again end where an uninterrupted one does?

    A small training on drawn images runs once undisturbed. Then it runs anew, is killed with
    SIGKILL at random steps (every fourth time while it writes a checkpoint), and is resumed each
    time. Status 1 if weights, optimiser, schedule, counters or a logged figure differ by a bit.
    """
    parser = options(kill_resume, "results/reliability/kill_resume.json")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=34)
    parser.add_argument(
        "--run", type=Path, nargs=2, help="the training alone: its data, its folder"
    )
    given = parser.parse_args(arguments)
    if given.run:
        training.SAVE_EVERY_STEPS = SAVE_EVERY
        config = small_training(*given.run, given.epochs, NETWORK, DATA)
        training.train(config, resume=True, log_every_n_steps=1, **QUIET)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the runs: more is slower at this size
    with tempfile.TemporaryDirectory() as folder:
        record = compare_killed(Path(folder), given.kills, given.epochs)
    print(f"{record['kills']} kills, bit_equal {record['bit_equal']} {record['unequal']}")
    save(given.out, record)
    sys.exit(not record["bit_equal"])


def judge(megabytes: list[float]) -> dict[str, float | bool]:
    """Whether the memory of a run, epoch by epoch, is flat, and by how much it grows."""
    epochs, total = len(megabytes), np.array(megabytes)
    late = np.arange(epochs // 2, epochs)
    slope = float(np.polyfit(late, total[late], 1)[0]) if len(late) > 1 else 0.0
    growth = slope * epochs / float(total[late].mean())
    return {"flat": growth < GROWTH, "growth": growth, "megabytes_an_epoch": slope}


def memory_flat(arguments: list[str]) -> None:
    """Does a training's host memory stay flat over 30 epochs of varied image sizes?

    Trains a small network on drawn images and reads the memory of the process and of its worker
    after every epoch. It is flat if the straight line through the second half of the epochs rises
    by less than a twentieth of the memory over all epochs; else the status is 1.
    """
    given = options(memory_flat, "results/reliability/memory.json").parse_args(arguments)
    keep_freed_memory()  # as `als train` does
    epochs: list[dict[str, float]] = []

    def note(trainer: L.Trainer, module) -> None:
        """Resident megabytes after an epoch, once its checkpoint is saved."""
        tasks = Path("/proc/self/task").glob("*/children")
        workers = sum(resident_megabytes(pid) for file in tasks for pid in file.read_text().split())
        epochs.append({"training": resident_megabytes(), "workers": workers})

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "toy"
        write_toy(root, IMAGES, size=(180, 240))
        varied = DATA | {"min_sizes": SIZES, "max_size": 320, "val": None}
        config = small_training(root, Path(folder) / "run", EPOCHS, NETWORK, varied)
        training.train(config, callbacks=[LambdaCallback(on_train_epoch_end=note)], **QUIET)
    judged = judge([sum(epoch.values()) for epoch in epochs])
    print(f"flat {judged['flat']}: {judged['megabytes_an_epoch']:+.2f} MB an epoch at the end")
    save(given.out, {"epochs": EPOCHS, **judged, "megabytes": epochs, "sizes": SIZES})
    axes = pd.DataFrame(epochs).add_suffix(" process").plot(figsize=(6, 3.5))
    axes.set(xlabel="epoch", ylabel="resident memory (MB)", ylim=(0, None))
    axes.figure.savefig(given.out.with_suffix(".png"), dpi=150, bbox_inches="tight")
    sys.exit(not judged["flat"])
