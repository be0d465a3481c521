"""Exported files beside eager PyTorch: seconds a detection, and how far their results differ."""

import tempfile
import time
from pathlib import Path

import torch

from als.export import FORMATS, export, photographs, runner
from benchmarks.networks import build_side
from benchmarks.recording import Setting, quick_options, save_of_machine
from benchmarks.timing import in_turns

ROUNDS = 7


@torch.no_grad()
def measure(formats: list[str], setting: Setting) -> dict:
    """Every file on the photographs of its check, in turns with the detector itself."""
    detector = build_side("compact", "als", setting)
    size = (detector.config.min_size, detector.config.max_size)
    images = photographs(size)
    sides = {"eager": lambda: [detector([image]) for image in images]}
    files = {name: {} for name in formats}
    with tempfile.TemporaryDirectory() as folder:
        for name, facts in files.items():
            path = Path(folder) / name
            started = time.perf_counter()
            facts["largest_difference"] = export(detector, path, name, size)
            facts["export_seconds"] = time.perf_counter() - started
            facts["megabytes"] = path.stat().st_size / 1e6
            run = runner(path, name)
            sides[name] = lambda run=run: [run(image) for image in images]
        turns = in_turns(sides, setting.few(ROUNDS))
    for name, facts in files.items():
        ratio = turns.ratio(name, "eager")
        facts |= {"vs_eager": ratio.median, "vs_eager_spread": [ratio.low, ratio.high]}
    seconds = {side: turns.seconds(side).median / len(images) for side in sides}
    return {"files": files, "seconds_a_detection": seconds, "size": size, "images": len(images)}


def export_speed(arguments: list[str]) -> None:
    """The exported files of `animals` beside PyTorch; needs the extra `export`."""
    parser = quick_options(export_speed)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    given = parser.parse_args(arguments)
    setting = Setting(quick=given.quick)  # exported files run on the CPU
    record = measure(given.formats, setting)
    for name, facts in record["files"].items():
        low, high = facts["vs_eager_spread"]
        print(
            f"{name:12} {facts['vs_eager']:.2f} x eager's time ({low:.2f} to {high:.2f}), differs "
            f"by {facts['largest_difference']:.1g}, {facts['megabytes']:.1f} MB, exported in "
            f"{facts['export_seconds']:.0f} s"
        )
    save_of_machine(record, setting, given.out, "export-")
