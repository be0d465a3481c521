"""Peak memory of detection, each side in a process of its own.

python -m benchmarks.memory compact als    # prints megabytes; this is what the parent runs
"""

import argparse
import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from als.machine import keep_freed_memory
from benchmarks.goals import name_of
from benchmarks.pairs import Measured, Spread
from benchmarks.subjects import Setting, as_tensor, build_side, photographs
from benchmarks.twin import torchvision_twin

ROOT = Path(__file__).parents[1]
DETECTIONS = {"compact": 3, "resnet50": 1}  # one after another; the peak is that of the largest


def measure(name: str, setting: Setting) -> Measured:
    """Peaks of the whole process (on a GPU: of its tensors), in megabytes, of one run a side.

    The ratio is that of whole processes, of which Python and torch are a part; facts have what
    the model and its detections added to these. Runs differ: ratios of the compact model's were
    0.02 apart, ResNet-50's 0.2.
    """
    with ThreadPoolExecutor() as pool:  # together: a peak is no time
        als, frcnn = pool.map(lambda side: _run(name, side, setting), ("als", "frcnn"))
    return Measured(
        {name_of("memory_vs_frcnn", name): Spread.of([als["peak"] / frcnn["peak"]])},
        {},
        {
            f"memory {name} (MB)": {
                "als": als,
                "frcnn": frcnn,
                "added_vs_frcnn": als["added"] / frcnn["added"],
            }
        },
    )


def _run(name: str, side: str, setting: Setting) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", name, side, "--device", setting.device]
    command += ["--quick"] if setting.quick else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak(device: str) -> float:
    """The most memory held so far, megabytes: resident of the process, or tensors on the GPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux a process starts with its parent's.
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@torch.no_grad()
def main() -> None:
    """Detect on photographs with one side and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["compact", "resnet50"])
    parser.add_argument("side", choices=["als", "frcnn"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    before = peak(given.device)
    setting = Setting(given.device, given.quick)
    detector = build_side(given.name, given.side, setting)
    model = detector if given.side == "als" else torchvision_twin(detector).eval()
    size = (detector.config.min_size, detector.config.max_size)
    for photo in photographs(size, setting.few(DETECTIONS[given.name])):
        model([as_tensor(photo).to(given.device)])
    after = peak(given.device)
    print(json.dumps({"peak": after, "added": after - before}))


if __name__ == "__main__":
    main()
