"""Does a training that is killed again and again end where an uninterrupted one does?

    python -m benchmarks.kill_resume [--kills 20] [--out results/reliability/kill_resume.json]

A small training on drawn images runs once undisturbed. Then it runs anew, is killed with SIGKILL
at random steps (every fourth time while it writes a checkpoint), and is resumed each time. At the
end weights, optimiser, schedule, counters and logged figures must be equal bit for bit.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from als.checkpoint import load_checkpoint
from als.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.data.toy import TOY_CLASSES, write_toy
from als.files import write_json
from als.machine import machine, revision
from als.training.saving import LAST

IMAGES = 48  # half of them train, two a step: 12 steps an epoch
SAVE_EVERY = 5  # steps, so that most saves lie within an epoch
WHILE_SAVING = 4  # every so many kills waits for a checkpoint being written
LONGEST = 300  # seconds that one step may take to come


def config_of(root: Path, out: Path, epochs: int) -> TrainConfig:
    """MobileNetV2 with attention at 96 pixels, random weights, a validation every epoch."""
    model = ModelConfig(
        classes=TOY_CLASSES,
        backbone="mobilenet_v2",
        weights=None,
        attention_width=16,
        pool_size=3,
        min_size=96,
        max_size=128,
        anchor_sizes=(16, 32, 64),
        rpn_pre_nms_train=200,
        rpn_post_nms_train=50,
        rpn_post_nms_test=50,
        rois_per_image=16,
    )
    data = DataConfig(
        root=str(root),
        train="VOC2012:train",
        val="VOC2012:val",
        batch_size=2,
        min_sizes=(64, 80, 96),
        max_size=128,
        jitter=True,
        workers=1,
    )
    optimizer = OptimizerConfig(lr=0.005, warmup_steps=10, schedule="cosine")
    return TrainConfig(out=str(out), epochs=epochs, model=model, data=data, optimizer=optimizer)


def train_here(root: Path, out: Path, epochs: int) -> None:
    """The run itself, in a process of its own: it goes on where the folder stands."""
    from als.training import train as training

    training.SAVE_EVERY_STEPS = SAVE_EVERY
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    training.train(config_of(root, out, epochs), True, log_every_n_steps=1, **quiet)


def start(root: Path, out: Path, epochs: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.kill_resume", "--epochs", str(epochs)]
    command += ["--run", str(root), str(out)]
    with open(out.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def finish(run: subprocess.Popen, out: Path) -> None:
    if run.wait() != 0:
        log = out.with_suffix(".log").read_text()
        raise SystemExit(f"the training failed with status {run.returncode}:\n{log[-2000:]}")


def steps_logged(out: Path) -> int:
    """Steps of the run so far. Its file is renamed into place, so it is whole whenever read."""
    path = out / "metrics.csv"
    if not path.exists():
        return 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return int(rows[-1]["step"]) + 1 if rows else 0


def last_change(out: Path) -> int:
    """When a step was last logged; until then the rows are those of the run killed before."""
    path = out / "metrics.csv"
    return path.stat().st_mtime_ns if path.exists() else 0


def wait_until(condition, run: subprocess.Popen) -> None:
    started = time.monotonic()
    while not condition():
        if run.poll() is not None or time.monotonic() - started > LONGEST:
            raise SystemExit(f"the training ended or hangs (status {run.poll()}); see its log")
        time.sleep(0.0005)


def kill_at(run: subprocess.Popen, step: int, while_saving: bool, out: Path, pause: float) -> dict:
    """Kill the run after `step`; returns where and how it was killed."""
    before = last_change(out)
    try:
        wait_until(lambda: last_change(out) != before and steps_logged(out) >= step, run)
        aside = out / "checkpoints" / (LAST + ".part")
        if while_saving:
            wait_until(aside.exists, run)
        else:
            time.sleep(pause)
        moment = steps_logged(out)
    finally:
        run.kill()
        run.wait()
    return {"step": moment, "checkpoint_half_written": aside.exists()}


def differences(one: Path, two: Path) -> list[str]:
    """What is not equal bit for bit between two finished runs; empty if everything is."""
    found = []
    for name in ("model.safetensors", "best.safetensors"):
        first, second = (load_checkpoint(folder / name)[0].state_dict() for folder in (one, two))
        if first.keys() != second.keys() or any(not first[k].equal(second[k]) for k in first):
            found.append(name)
    states = [
        torch.load(folder / "checkpoints" / LAST, weights_only=True, map_location="cpu")
        for folder in (one, two)
    ]
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        if not _equal(states[0][name], states[1][name]):
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


def measure(folder: Path, kills: int, epochs: int, seed: int) -> dict:
    """Run once undisturbed, once with kills, and compare."""
    root, whole, killed = folder / "toy", folder / "whole", folder / "killed"
    write_toy(root, IMAGES)
    started = time.monotonic()
    finish(start(root, whole, epochs), whole)
    print(
        f"undisturbed run: {steps_logged(whole)} steps, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    rng = random.Random(seed)
    # The last steps are left out, so that a run waiting for a save does not end before it.
    steps = sorted(rng.sample(range(1, steps_logged(whole) - 2 * SAVE_EVERY), kills))
    moments = []
    for number, step in enumerate(steps):
        while_saving = number % WHILE_SAVING == WHILE_SAVING - 1
        pause = rng.uniform(0, 0.2)
        moments.append(kill_at(start(root, killed, epochs), step, while_saving, killed, pause))
        print(f"kill {number + 1}: {moments[-1]}", flush=True)
    finish(start(root, killed, epochs), killed)
    unequal = differences(whole, killed)
    return {
        "kills": len(moments),
        "bit_equal": not unequal,
        "unequal": unequal,
        "compared": "weights (last, best), optimiser, schedule, step, epoch, every logged figure",
        "steps": steps_logged(whole),
        "save_every_steps": SAVE_EVERY,
        "moments": moments,
        "seed": seed,
        "seconds": time.monotonic() - started,
        "revision": revision(),
        "machine": machine(),
    }


def main() -> None:
    """Kill and resume, print the outcome and write the record; status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=34)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the JSON record goes")
    parser.add_argument("--run", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        train_here(*given.run, given.epochs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the runs: more is slower at this size
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), given.kills, given.epochs, given.seed)
    print(f"{record['kills']} kills, bit_equal {record['bit_equal']} {record['unequal']}")
    if given.out is not None:
        write_json(given.out, record)
    sys.exit(not record["bit_equal"])


if __name__ == "__main__":
    main()
