"""Peak memory of detection, each side in a process of its own."""

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

from als.machine import keep_freed_memory
from benchmarks.goals import name_of
from benchmarks.networks import as_tensor, build_side, photographs
from benchmarks.recording import Setting
from benchmarks.timing import Measured, Spread, resident_megabytes
from benchmarks.torchvision_baseline import faster_rcnn_of

DETECTIONS = {"compact": 3, "resnet50": 1}  # one after another; the peak is that of the largest


def compare_memory(name: str, setting: Setting) -> Measured:
    """Peaks of the whole process (on a GPU: of its tensors), in megabytes, of one run a side.

    The ratio is that of whole processes, of which Python and torch are a part; facts have what
    the model and its detections added to these. Runs differ: ratios of the compact model's were
    0.02 apart, ResNet-50's 0.2.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, fresh, max_tasks_per_child=1) as pool:  # a peak is no time
        als, frcnn = pool.map(partial(detect_alone, name, setting=setting), ("als", "frcnn"))
    facts = {"als": als, "frcnn": frcnn, "added_vs_frcnn": als["added"] / frcnn["added"]}
    ratio = Spread.of([als["peak"] / frcnn["peak"]])
    return Measured({name_of("memory_vs_frcnn", name): ratio}, {}, {f"memory {name} (MB)": facts})


def peak(device: str) -> float:
    """The most memory held so far, megabytes: resident of the process, or tensors on the GPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":  # not ru_maxrss: there a process starts with its parent's
        return resident_megabytes(peak=True) * 2**20 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


@torch.no_grad()
def detect_alone(name: str, side: str, setting: Setting) -> dict[str, float]:
    """The peak of this process after detecting on photographs, and what that added to it."""
    keep_freed_memory()
    before = peak(setting.device)
    detector = build_side(name, side, setting)
    model = detector if side == "als" else faster_rcnn_of(detector).eval()
    size = (detector.config.min_size, detector.config.max_size)
    for photo in photographs(size, setting.few(DETECTIONS[name])):
        model([as_tensor(photo).to(setting.device)])
    after = peak(setting.device)
    return {"peak": after, "added": after - before}
