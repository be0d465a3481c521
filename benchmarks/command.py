"""What the measuring commands share: their options, and how a record is written."""

import argparse
from collections.abc import Callable
from pathlib import Path

from als.files import atomic_write, write_json
from als.machine import machine, revision
from benchmarks.goals import machine_name
from benchmarks.subjects import Setting


def options(description: str) -> argparse.ArgumentParser:
    """A parser with --out and --quick."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder")
    parser.add_argument("--quick", action="store_true", help="tiny, only to see that it runs")
    return parser


def options_on_devices(description: str) -> argparse.ArgumentParser:
    """The same with --device."""
    parser = options(description)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def circumstances(setting: Setting) -> dict:
    """What every record says of how it was made."""
    return {
        "device": setting.device,
        "quick": setting.quick,
        "machine": machine(),
        "revision": revision(),
    }


def write(
    record: dict, folder: Path, prefix: str = "", draw: Callable[[dict, Path], None] | None = None
) -> None:
    """`<prefix><machine>.json` in the folder, a figure of `draw` beside it, and their names told.

    Args:
        record: with `circumstances`.
        draw: writes a figure of the record to a path, as PNG whatever the path's ending.
    """
    path = folder / f"{prefix}{machine_name(record['device'])}.json"
    write_json(path, record)
    told = [str(path)]
    if draw is not None:
        picture = path.with_suffix(".png")
        with atomic_write(picture) as aside:
            draw(record, aside)
        told.append(str(picture))
    print(", ".join(told))
