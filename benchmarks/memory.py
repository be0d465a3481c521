"""Peak memory of detection, each side in a process of its own."""

import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from als.machine import keep_freed_memory
from benchmarks.goals import name_of
from benchmarks.networks import as_tensor, build_side, photographs
from benchmarks.recording import Setting, quick_options
from benchmarks.timing import Measured, Spread, resident_megabytes
from benchmarks.torchvision_baseline import faster_rcnn_of

ROOT = Path(__file__).parents[1]
DETECTIONS = {"compact": 3, "resnet50": 1}  # one after another; the peak is that of the largest


def compare_memory(name: str, setting: Setting) -> Measured:
    """Peaks of the whole process (on a GPU: of its tensors), in megabytes, of one run a side.

    The ratio is that of whole processes, of which Python and torch are a part; facts have what
    the model and its detections added to these. Runs differ: ratios of the compact model's were
    0.02 apart, ResNet-50's 0.2.
    """
    with ThreadPoolExecutor() as pool:  # together: a peak is no time
        als, frcnn = pool.map(lambda side: _run(name, side, setting), ("als", "frcnn"))
    facts = {"als": als, "frcnn": frcnn, "added_vs_frcnn": als["added"] / frcnn["added"]}
    ratio = Spread.of([als["peak"] / frcnn["peak"]])
    return Measured({name_of("memory_vs_frcnn", name): ratio}, {}, {f"memory {name} (MB)": facts})


def _run(name: str, side: str, setting: Setting) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "memory", name, side]
    command += ["--device", setting.device] + ["--quick"] * setting.quick
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak(device: str) -> float:
    """The most memory held so far, megabytes: resident of the process, or tensors on the GPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":  # not ru_maxrss: there a process starts with its parent's
        return resident_megabytes(peak=True) * 2**20 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


@torch.no_grad()
def memory(arguments: list[str]) -> None:
    """Detect on photographs with one side and print the peak (`compare` runs this for each)."""
    parser = quick_options(memory)
    parser.add_argument("name", choices=DETECTIONS)
    parser.add_argument("side", choices=["als", "frcnn"])
    given = parser.parse_args(arguments)
    keep_freed_memory()
    before = peak(given.device)
    setting = Setting(given.device, given.quick)
    detector = build_side(given.name, given.side, setting)
    model = detector if given.side == "als" else faster_rcnn_of(detector).eval()
    size = (detector.config.min_size, detector.config.max_size)
    for photo in photographs(size, setting.few(DETECTIONS[given.name])):
        model([as_tensor(photo).to(given.device)])
    after = peak(given.device)
    print(json.dumps({"peak": after, "added": after - before}))
