"""The app's files on the disk: a private folder, swept while it is used, gone when it ends."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed app left stays
    fcntl = None

PREFIX, LOCK = "als-app-", "in-use"
SWEEP_SECONDS = 60
MAX_AGE = 3600 - SWEEP_SECONDS  # seconds, so that nothing is older than an hour
MAX_CACHE = 2 * 2**30  # bytes
FRESH = 60  # seconds in which a file or folder may be about to be used


@contextmanager
def private_cache() -> Iterator[Path]:
    """An empty folder of this process alone, deleted at the end; first those of dead ones go."""
    remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        with open(Path(folder) / LOCK, "w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it does
            cache = Path(folder) / "cache"
            cache.mkdir()
            yield cache


def remove_abandoned(folder: Path) -> None:
    """Delete the caches in `folder` whose app was killed: of this user, and locked by nobody."""
    for left in folder.glob(f"{PREFIX}*") if fcntl is not None else ():
        try:
            own = left.lstat()
            if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.getuid():
                continue
            descriptor = os.open(left / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # no lock: not made by `private_cache`
            continue
        with open(descriptor, "w") as lock:
            try:
                # One that is starting has not locked it yet.
                if time.time() - os.fstat(descriptor).st_mtime < FRESH:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # in use
                continue
            shutil.rmtree(left, ignore_errors=True)


def sweep(
    folder: Path, keep: Collection[str] = (), max_bytes: int = MAX_CACHE, max_age: float = MAX_AGE
) -> bool:
    """Delete what is older than `max_age`, whoever made it, and the oldest beyond `max_bytes`.

    keep: paths that stay. Returns whether the rest is within `max_bytes`; files of the last minute
    are not deleted for that.
    """
    files, now = [], time.time()
    for place, folders, names in os.walk(folder, topdown=False):
        for path in (os.path.join(place, name) for name in (*names, *folders)):
            with suppress(OSError):  # deleted meanwhile, or a folder that is not empty
                told = os.lstat(path)
                if not stat.S_ISDIR(told.st_mode):
                    files.append((max(told.st_mtime, told.st_ctime), told.st_size, path))
                elif now - told.st_mtime > FRESH:
                    os.rmdir(path)
    files = [one for one in files if one[2] not in keep]
    total = sum(size for _, size, _ in files)
    for born, size, path in sorted(files):
        if now - born > max_age or (total > max_bytes and now - born > FRESH):
            total -= size
            Path(path).unlink(missing_ok=True)
    return total <= max_bytes
