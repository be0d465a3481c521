"""Exported files beside eager PyTorch: seconds a detection, and how far their results differ.

    python -m benchmarks.export_speed [--formats onnx torchscript pt2] [--out results/bench]

Of the checkpoint that ships, at its own size. Needs the packages of the extra `export`.
"""

import tempfile
import time
from pathlib import Path

import torch

from als.export import FORMATS, export, photographs, runner
from benchmarks.command import circumstances, options, write
from benchmarks.goals import described
from benchmarks.pairs import in_turns
from benchmarks.subjects import Setting, build_side

ROUNDS = 7


@torch.no_grad()
def measure(formats: list[str], setting: Setting) -> dict:
    """Every file on the photographs of its check, in turns with the detector itself."""
    detector = build_side("compact", "als", setting)
    size = (detector.config.min_size, detector.config.max_size)
    images = photographs(size)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        sides = {"eager": lambda: [detector([image]) for image in images]}
        for format in formats:
            path, started = Path(folder) / format, time.perf_counter()
            difference = export(detector, path, format, size)
            files[format] = {
                "largest_difference": difference,
                "megabytes": path.stat().st_size / 1e6,
                "export_seconds": time.perf_counter() - started,
            }
            run = runner(path, format)
            sides[format] = lambda run=run: [run(image) for image in images]
        turns = in_turns(sides, setting.few(ROUNDS))
    for format, facts in files.items():
        ratio = turns.ratio(format, "eager")
        facts["vs_eager"] = ratio.median
        facts["vs_eager_spread"] = [ratio.low, ratio.high]
    seconds = {side: turns.seconds(side).median / len(images) for side in sides}
    return {"files": files, "seconds_a_detection": seconds, "size": size, "images": len(images)}


def main(arguments: list[str] | None = None) -> None:
    """Export, measure, print and write the record."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    given = parser.parse_args(arguments)
    setting = Setting(quick=given.quick)
    record = measure(given.formats, setting) | circumstances(setting)
    print(described(record["machine"], "cpu"))
    for format, facts in record["files"].items():
        print(
            f"{format:12} {facts['vs_eager']:.2f} x eager's time "
            f"({facts['vs_eager_spread'][0]:.2f} to {facts['vs_eager_spread'][1]:.2f}), differs by "
            f"{facts['largest_difference']:.1g}, {facts['megabytes']:.1f} MB, exported in "
            f"{facts['export_seconds']:.0f} s"
        )
    write(record, given.out, "export-")


if __name__ == "__main__":
    main()
