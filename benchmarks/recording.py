"""What the commands share: their options, and how a record is written."""

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from als.files import write_json
from als.machine import machine, revision


@dataclass(frozen=True)
class Setting:
    """device: "cpu" or "cuda". quick: the smallest shapes and one round, to try the code."""

    device: str = "cpu"
    quick: bool = False

    def few(self, count: int) -> int:
        """Rounds, photographs or copies: as many as given, or one."""
        return 1 if self.quick else count


def options(command: Callable, out: str) -> ArgumentParser:
    """A parser that is described by the command's docstring, with --out."""
    parser = ArgumentParser(f"python -m benchmarks {command.__name__}", description=command.__doc__)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"default: {out}")
    return parser


def quick_options(command: Callable) -> ArgumentParser:
    """The same for records in results/bench, with --device and --quick."""
    parser = options(command, "results/bench")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="tiny, only to see that it runs")
    return parser


def made_with() -> dict:
    """What every record says of where it was made."""
    return {"machine": machine(), "revision": revision()}


def save(path: Path, record: dict) -> None:
    """The record, with where it was made."""
    write_json(path, record | made_with())
    print(path)


def save_of_machine(record: dict, setting: Setting, folder: Path, prefix: str = "") -> None:
    """`<prefix><machine>.json` in the folder."""
    name = f"{prefix}{machine_name(setting.device)}.json"
    save(folder / name, record | {"device": setting.device, "quick": setting.quick})


def machine_name(device: str) -> str:
    """The machine as a file name: processor and threads, or GPU."""
    where = machine()
    words = where["cpu"] if device == "cpu" else where["gpu"]
    plain = "".join(letter if letter.isalnum() else " " for letter in words.lower())
    parts = [word for word in plain.split() if word not in ("r", "tm", "cpu", "processor", "with")]
    return "-".join([*parts, f"{where['threads']}threads"] if device == "cpu" else parts)
