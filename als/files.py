"""Files that appear whole or not at all, and JSON records among them."""

import json
import math
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from als.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, which becomes `path` if the block ends well.

    Its folder is made. The place is this process's own: of several that write one file each
    writes a whole one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def printable(text: str) -> str:
    """A name from outside as it can be shown: what is no text or moves the cursor is escaped."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text
    )


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record; NaN becomes null, since JSON has no NaN."""
    with atomic_write(path) as aside:
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
