"""Downloads the paper's data sets and unpacks them where `load_records` looks for them."""

import gzip
import hashlib
import shutil
import ssl
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
from torchvision.datasets.sbd import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from tqdm import tqdm

from als.data.check import check_folder
from als.errors import InputError

ARCHIVES = "archives"
"""Folder below the data root for what was downloaded. It may be deleted afterwards."""
TIMEOUT = 60.0  # seconds without a byte
NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


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

    def is_right(self, path: Path) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.digest


@dataclass(frozen=True)
class Part:
    """A folder of a data set and what it is unpacked from.

    target: the folder, below the data root.
    inner: the folder within the archives that becomes it.
    archives: all are unpacked into one another (VOC2007 comes as two).
    only: names below `inner` that are kept; empty keeps all.
    needs: a folder below the data root that must be there first.
    """

    target: str
    inner: str
    archives: tuple[Archive, ...]
    only: tuple[str, ...] = ()
    needs: str = ""


def _voc(key: str, size: int) -> Archive:
    """An archive of VOC as torchvision knows it. A tar is not compressed: unpacked it is as big."""
    known = DATASET_YEAR_DICT[key]
    return Archive(known["url"], "md5", known["md5"], size, size)


def _coco(
    archive: str, inner: str, sha256: str, size: int, unpacked: int, only: tuple[str, ...] = ()
) -> Part:
    """torchvision knows no checksums of COCO; these are those of TensorFlow Datasets."""
    url = f"http://images.cocodataset.org/{archive}"
    archives = (Archive(url, "sha256", sha256, size, unpacked),)
    return Part(f"coco2017/{inner}", inner, archives, only)


_TRAIN = "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"
_VAL = "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"
_INSTANCES = "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"
_LABELS = "annotations/annotations_trainval2017.zip"
_KEPT = ("instances_train2017.json", "instances_val2017.json")
_VOC2007 = (_voc("2007", 460_032_000), _voc("2007-test", 451_020_800))
# Sizes rounded up.
_SBD = Archive(SBDataset.url, "md5", SBDataset.md5, 1_500_000_000, 1_000_000_000)

SETS: Mapping[str, tuple[Part, ...]] = {
    "voc07+12": (
        Part("VOC2007", "VOCdevkit/VOC2007", _VOC2007),
        Part("VOC2012", "VOCdevkit/VOC2012", (_voc("2012", 1_999_639_040),)),
    ),
    # SBD's images are VOC2012's.
    "sbd": (Part("VOC2012/SBD", "benchmark_RELEASE/dataset", (_SBD,), ("cls", "inst"), "VOC2012"),),
    "coco2017": (
        _coco(_LABELS, "annotations", _INSTANCES, 252_907_541, 500_000_000, _KEPT),
        _coco("zips/val2017.zip", "val2017", _VAL, 815_585_330, 850_000_000),
        _coco("zips/train2017.zip", "train2017", _TRAIN, 19_336_861_798, 19_800_000_000),
    ),
}
"""What can be prepared, by name. Sizes in bytes."""


def prepare(
    name: str,
    root: Path,
    sets: Mapping[str, tuple[Part, ...]] = SETS,
    tell: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Download, check and unpack a data set below `root`, then look through its files.

    Folders and archives that are there are left as they are, the others appear whole or not at
    all. The archives stay in ROOT/archives.

    name: a key of `sets`. tell: called with each sentence about what is done.

    Returns the table of `als.data.check.check_folder`. Raises InputError when the disk is too
    small or cannot be written, when a server cannot be reached (it says what to download by hand
    and where to put it), when a checksum is wrong, and when another data set must come first.
    """
    if name not in sets:
        raise InputError(f"'{name}' is no data set that can be prepared; {', '.join(sets)} are.")
    root, parts = Path(root), sets[name]
    lacking = [part for part in parts if not (root / part.target).exists()]
    for part in lacking:
        if part.needs and not (root / part.needs).is_dir():
            raise InputError(f"{root / part.needs}: '{name}' belongs in it; prepare that first.")
    try:
        _bring(name, root, lacking, tell)
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: cannot be written ({error.strerror}); make room or choose "
            "another folder, and give the command again."
        ) from error
    folders = dict.fromkeys(part.target.partition("/")[0] for part in parts)
    return pd.concat(
        [check_folder(root / folder, tell=tell) for folder in folders], ignore_index=True
    )


def _bring(name: str, root: Path, parts: list[Part], tell: Callable[[str], None]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in parts:  # what a call left that was killed
        shutil.rmtree(_aside(part, root), ignore_errors=True)
        for archive in part.archives:
            _arriving(root / ARCHIVES / archive.name).unlink(missing_ok=True)
    _check_disk(name, root, parts, tell)
    for part in parts:
        _unpack(part, [_fetch(archive, root, parts) for archive in part.archives], root)
        tell(f"{root / part.target}: unpacked")
    if parts:
        tell(f"{root / ARCHIVES}: no longer needed, may be deleted")


def _check_disk(name: str, root: Path, parts: Iterable[Part], tell: Callable[[str], None]) -> None:
    """Tell what will be downloaded, and raise InputError if the disk cannot hold it."""
    needed = 0
    for part in parts:
        load = sum(a.size for a in part.archives if not (root / ARCHIVES / a.name).is_file())
        unpacked = sum(archive.unpacked for archive in part.archives)
        tell(f"{root / part.target}: {_told(load)} to download, {_told(unpacked)} unpacked")
        needed += load + unpacked
    free = shutil.disk_usage(root).free
    if needed > free:
        raise InputError(
            f"{root}: '{name}' needs {_told(needed)} here but {_told(free)} are free; make room or "
            "choose another folder."
        )


def _fetch(archive: Archive, root: Path, parts: Iterable[Part]) -> Path:
    """The archive as a whole file of the right checksum, downloaded unless it is there."""
    folder = root / ARCHIVES
    path = folder / archive.name
    if path.is_file():
        if not archive.is_right(path):
            raise InputError(
                f"{path}: its {archive.algorithm} is not {archive.digest}; remove it and give the "
                "command again."
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for _ in range(2):  # a connection may break, or a proxy may spoil what it keeps
            if _download(archive, path):
                return path
    except NETWORK as error:
        urls = [a.url for part in parts for a in part.archives if not (folder / a.name).is_file()]
        raise InputError(
            f"{archive.url}: it cannot be downloaded ({error}); give the command again later, or "
            f"download {' and '.join(urls)} by hand into {folder} and give it then."
        ) from error
    raise InputError(
        f"{archive.url}: the {archive.algorithm} of what it gives is not {archive.digest}, twice; "
        "the connection breaks, the file was changed, or something on the way changes it."
    )


def _download(archive: Archive, path: Path) -> bool:
    """Whether what came is right, and so is at `path` now."""
    aside = _arriving(path)
    try:
        with urlopen(archive.url, timeout=TIMEOUT) as answer, aside.open("wb") as file:
            length = int(answer.headers.get("Content-Length", 0)) or None
            bar = {"desc": path.name, "total": length, "disable": None}
            with tqdm.wrapattr(answer, "read", **bar) as source:
                shutil.copyfileobj(source, file)
        if is_right := archive.is_right(aside):
            aside.replace(path)
        return is_right
    finally:
        aside.unlink(missing_ok=True)


def _arriving(path: Path) -> Path:
    """Where a file is written while it comes; always this name, so that a later call finds it."""
    return path.with_name(f"{path.name}.part")


def _unpack(part: Part, archives: Iterable[Path], root: Path) -> None:
    """Unpack aside, then rename, so that `part.target` is never there in part."""
    target, aside = root / part.target, _aside(part, root)
    try:
        for path in archives:
            _extract(path, part, aside)
            if not (aside / part.inner).is_dir():
                raise InputError(f"{path}: there is no {part.inner} in it; is it the right file?")
        target.parent.mkdir(parents=True, exist_ok=True)
        (aside / part.inner).rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(part: Part, root: Path) -> Path:
    """Where a part is unpacked; it always has this name, so that a later call finds its rest."""
    return root / f".unpacking-{part.target.replace('/', '-')}"


def _extract(path: Path, part: Part, out: Path) -> None:
    """Extract what is kept. Both formats refuse names that lead out of `out`."""

    def is_kept(name: str) -> bool:
        inner, below = f"{part.inner}/", name.removeprefix(f"{part.inner}/")
        return name.startswith(inner) and (not part.only or below.split("/")[0] in part.only)

    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                file.extractall(out, [name for name in file.namelist() if is_kept(name)])
        else:
            with tarfile.open(path) as file:
                kept = (member for member in file if is_kept(member.name))
                file.extractall(out, kept, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{path}: it cannot be unpacked ({error}); remove it and give the command again."
        ) from error


def _told(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
