"""Files and folders that appear whole or not at all, and JSON records among them."""

import errno
import json
import math
import os
import re
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from als.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
PLACES = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
PLACES |= {errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ELOOP}
UNWRITABLE = FULL | PLACES
"""Of an OSError: no room for what is written, or no place where it can be."""
PART = re.compile(r"\.als-[0-9a-f]{12}\.part")  # what is being written, or was when it was killed
LONGEST_STEM = 235  # bytes; a file system takes 255, with the suffix and that of a file unfinished
OLD = 3600  # seconds without a write after which a part is left over


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """A place beside `path` to write to, which becomes `path` if the block ends well.

    Its folder is made, and freed of what killed processes left in it. A link is followed, and
    what is no regular file, as /dev/null, gets what was written. Of several that write one file
    each writes a whole one.

    durable: on the disk before it gets its name, as what a resumption counts on must be.

    Raises:
        OSError: `path` cannot be written, with its name, also where a library says so otherwise.
    """
    path = Path(path)
    if path.is_symlink() and path.is_file():
        path = path.resolve()
    if path.exists() and not path.is_file():
        with _through(path) as aside:
            yield aside
        return
    with _aside(path) as aside:
        aside.touch()
        mode = aside.stat().st_mode
        yield aside
        if aside.stat().st_mode != mode:  # that of the umask; some libraries let nobody else read
            aside.chmod(mode)
        if durable:
            with aside.open("rb+") as file:
                os.fsync(file)
        aside.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder. Raises InputError where it is not empty or cannot be replaced."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: it exists and is not empty; name a new folder.")
    if path.is_symlink():
        path = path.resolve()
    if path.is_dir() and (path.is_mount() or path.samefile(".")):  # a shell would stay in the old
        told = "it is a mount point or the working folder, which cannot be replaced"
        raise InputError(f"{path}: {told}; name a new folder in it.")
    with _aside(path) as aside:
        aside.mkdir()
        yield aside
        aside.replace(path)


def check_writable(path: Path) -> None:
    """Raise OSError where `path` cannot be written, before long work is done for it."""
    path = Path(path)
    if path.exists() and not path.is_file():
        _refuse_folder(path)
        return
    with _aside(path) as aside:
        aside.write_bytes(b"\0" * 4096)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A name for a part beside `path`; whatever is there in the end is removed."""
    aside = path.with_name(f".als-{secrets.token_hex(6)}.part")
    with _disk_errors(path, aside):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.resolve())
        try:
            yield aside
        finally:
            try:
                _remove(aside)
            except (KeyboardInterrupt, SystemExit):  # a signal came on the way to it
                _remove(aside)
                raise


@contextmanager
def _through(path: Path) -> Iterator[Path]:
    """A place to write to, whose content goes to a device or pipe in the end."""
    _refuse_folder(path)
    with tempfile.TemporaryDirectory() as folder, _disk_errors(path, Path(folder)):
        aside = Path(folder, path.name)
        yield aside
        with aside.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


@contextmanager
def _disk_errors(path: Path, aside: Path) -> Iterator[None]:
    """What says that the disk cannot be written becomes an OSError that names `path`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        code, text = getattr(error, "errno", None), str(error)
        if code not in UNWRITABLE:  # safetensors and pyarrow have it in their text
            code = next((c for c in UNWRITABLE if os.strerror(c) in text), None)
        named = getattr(error, "filename", None)
        if code is None or not (named is None or str(named).startswith(str(aside))):
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


@lru_cache(maxsize=64)
def _sweep(folder: Path) -> None:
    """Remove parts that nobody has written to for an hour; a process looks once."""
    with suppress(OSError):  # the folder of somebody else
        for part in folder.iterdir():
            if PART.fullmatch(part.name) and time.time() - _last_write(part) > OLD:
                _remove(part)


def _last_write(path: Path) -> float:
    try:
        return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:  # it goes away at this moment: it is somebody's
        return time.time()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
    """A record. Raises InputError if it is missing, no JSON or no object of JSON."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a record ({error}).") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: holds no record, which is an object of JSON.")
    return record


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
