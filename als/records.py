"""Records: one JSON a run, with what is needed to make the same figures again."""

import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision

from als.errors import InputError
from als.whole import whole_file


def machine() -> dict[str, Any]:
    """Processor, threads, accelerator and versions that a figure was made with."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [x for x in information.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(": ", 1)[1] if names else cpu
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def revision() -> str | None:
    """The commit of the code, with "+changes" for an uncommitted tree; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # Installed into a folder of somebody's own repository the package is no part of that.
        known = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(known, capture_output=True, check=True)
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if dirty else "")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record whole or not at all; NaN becomes null, since JSON has no NaN."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(_plain(record), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A record. Raises InputError if it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a record ({error}).") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
