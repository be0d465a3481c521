"""Does a training's host memory stay flat over 30 epochs of varied image sizes?

    python -m benchmarks.memory_flat [--epochs 30] [--out results/reliability/memory.json]

Trains a small network on drawn images, each batch at one of many sizes, and reads the resident
memory of the process and of its worker after every epoch. It is flat if the straight line through
the second half of the epochs rises by less than GROWTH of the memory over all epochs. Beside the
record a plot of the same name is written.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import lightning as L
import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from als.data.toy import write_toy
from als.files import write_json
from als.machine import keep_freed_memory, machine, revision
from als.training.train import train
from benchmarks.kill_resume import config_of

matplotlib.use("agg")

IMAGES = 48
SIZES = tuple(range(64, 225, 16))  # shorter sides in pixels
GROWTH = 0.05  # share of the memory by which it may rise over as many epochs


class ReadMemory(L.Callback):
    """Notes resident megabytes after every epoch, once its checkpoint is saved."""

    def __init__(self):
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module) -> None:
        tasks = Path("/proc/self/task").glob("*/children")
        children = [int(pid) for file in tasks for pid in file.read_text().split()]
        workers = sum(resident(child) for child in children)
        self.epochs.append({"training": resident("self"), "workers": workers})


def resident(process: int | str) -> float:
    """Resident memory of a process in megabytes; 0 if it ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def measure(folder: Path, epochs: int) -> dict:
    """Train, and judge the memory of each epoch."""
    write_toy(folder / "toy", IMAGES, size=(180, 240))
    config = config_of(folder / "toy", folder / "run", epochs)
    data = replace(config.data, min_sizes=SIZES, max_size=320, val=None)
    config = replace(config, data=data)
    memory = ReadMemory()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    train(config, callbacks=[memory], **quiet)
    return {
        "epochs": epochs,
        **judge([epoch["training"] + epoch["workers"] for epoch in memory.epochs]),
        "megabytes": memory.epochs,
        "sizes": SIZES,
        "revision": revision(),
        "machine": machine(),
    }


def judge(megabytes: list[float]) -> dict[str, float | bool]:
    """Whether the memory of a run, epoch by epoch, is flat, and by how much it grows."""
    epochs, total = len(megabytes), np.array(megabytes)
    late = np.arange(epochs // 2, epochs)
    slope = float(np.polyfit(late, total[late], 1)[0]) if len(late) > 1 else 0.0
    growth = slope * epochs / float(total[late].mean())
    return {"flat": growth < GROWTH, "growth": growth, "megabytes_an_epoch": slope}


def plot(record: dict, path: Path) -> None:
    """Resident memory over epochs, process and worker."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name in ("training", "workers"):
        axes.plot([epoch[name] for epoch in record["megabytes"]], label=f"{name} process")
    axes.set(xlabel="epoch", ylabel="resident memory (MB)", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, print the outcome, write record and plot; status 1 if the memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="where the JSON record goes")
    given = parser.parse_args()
    keep_freed_memory()  # as `als train` does
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), given.epochs)
    first, last = record["megabytes"][0], record["megabytes"][-1]
    print(f"flat {record['flat']}: {record['megabytes_an_epoch']:+.2f} MB an epoch at the end")
    for name in first:
        print(f"{name}: {first[name]:.0f} MB after the first epoch, {last[name]:.0f} at the end")
    if given.out is not None:
        write_json(given.out, record)
        plot(record, given.out.with_suffix(".png"))
    sys.exit(not record["flat"])


if __name__ == "__main__":
    main()
