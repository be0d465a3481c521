"""Fetches a large file over HTTP: it goes on where it broke off, and counts only when it is whole.

torchvision's own download starts anew after each break, which for the 19 GB of COCO's images means
that a slow line never ends.
"""

import errno
import hashlib
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from tqdm import tqdm

from als.errors import InputError

CHUNK = 1 << 18  # bytes read at once
TIMEOUT = 60.0  # seconds without a byte
PATIENCE = 3  # tries in a row that bring nothing, once something has come
PAUSE = 5.0  # seconds before such a try
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}


class Unreachable(InputError):
    """A server does not answer, or not with the file."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    url: where it lies; the last part of it is the file's name.
    algorithm, digest: its checksum, by a name that hashlib knows, in hex digits.
    size: bytes. unpacked: bytes that what is kept of it takes. Both are for planning and may be
        rounded up; the checksum is what decides.
    """

    url: str
    algorithm: str
    digest: str
    size: int
    unpacked: int

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive as a whole file in `folder`, downloaded unless it is there.

    What has arrived lies beside it as NAME.part until its checksum is right; another call goes on
    from there. A file of a wrong checksum is downloaded once more from its start.

    Raises Unreachable when the server cannot be reached or refuses, InputError when the checksum is
    wrong a second time, or that of a file which was put there by hand, OSError when `folder` cannot
    be written.
    """
    path = folder / archive.name
    if path.is_file():
        if _digest(path, archive.algorithm) != archive.digest:
            raise InputError(
                f"{path}: its {archive.algorithm} is not {archive.digest}; remove it and give the "
                "command again."
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"
    for _ in range(2):
        _download(archive.url, part)
        if _digest(part, archive.algorithm) == archive.digest:
            part.replace(path)
            return path
        part.unlink()
    raise InputError(
        f"{archive.url}: the {archive.algorithm} of what it gives is not {archive.digest}, twice; "
        "the file was changed, or something on the way changes it."
    )


def arrived(archive: Archive, folder: Path) -> int:
    """Bytes of an archive that are in `folder` already."""
    path = folder / archive.name
    return _size(path) if path.is_file() else _size(folder / f"{archive.name}.part")


def _download(url: str, part: Path) -> None:
    """Complete `part`, again and again as long as something comes."""
    patience = 0  # a server that gives nothing at all is not waited for
    while True:
        before = _size(part)
        try:
            return _continue(url, part)
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in UNWRITABLE:  # the disk's, not the server's
                raise
            code = error.code if isinstance(error, HTTPError) else None
            if code == 416 and before:  # nothing lies beyond what is there; the checksum judges it
                return None
            has_come = _size(part) > before
            patience = PATIENCE if has_come else patience - 1
            if patience < 0 or (code is not None and code < 500):
                raise Unreachable(f"{url}: it cannot be downloaded ({error}).") from error
            if not has_come:
                time.sleep(PAUSE)


def _continue(url: str, part: Path) -> None:
    """One request for what is lacking. Raises OSError when the connection ends early."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "als"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        # A server that knows no ranges sends the whole file, with status 200.
        span = response.headers.get("Content-Range", "")
        start = start if response.status == 206 and span.startswith(f"bytes {start}-") else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        progress = tqdm(
            desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None
        )
        with part.open("ab" if start else "wb") as file, progress:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection ended after {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
