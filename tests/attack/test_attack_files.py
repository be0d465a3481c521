"""Places that cannot be written, full disks and kills: a sentence, and nothing half-written."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_config

from als.checkpoint import build_detector, save_checkpoint
from als.cli import main
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from als.files import (
    OLD,
    PART,
    atomic_folder,
    atomic_write,
    check_writable,
    read_json,
    write_json,
)
from als.study.study_rows import read_rows

LEFT = ".als-0123456789ab.part"  # the name of what a killed process left


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if PART.fullmatch(path.name)]


def refusal(capsys, *arguments: str | Path) -> str:
    """What a command says on stderr before it ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("als: ")]
    assert stop.value.code == 2 and len(lines) == 1
    return lines[0]


def test_a_device_is_written_through_and_stays_one(tmp_path):
    write_json(Path("/dev/null"), {"a": 1})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    write_json(fifo, {"a": 1})
    reader.join(5)
    assert json.loads(got[0]) == {"a": 1} and fifo.is_fifo()
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pass


def test_a_full_device_is_said():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(OSError, match="No space left.*/dev/full"):
        write_json(Path("/dev/full"), {"a": 1})


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "record.json").touch()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "record.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "real" / "record.json") == {"a": 1}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_is_followed(is_there, tmp_path):
    real = tmp_path / "real"
    if is_there:
        real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with atomic_folder(tmp_path / "link") as aside:
        (aside / "a").touch()
    assert (tmp_path / "link").is_symlink() and (real / "a").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_cannot_be_replaced_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path(), tmp_path / "here"):
        with pytest.raises(InputError, match="or the working folder"), atomic_folder(path):
            pass
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda path: True)
    with pytest.raises(InputError, match="a mount point"), atomic_folder(tmp_path / "here"):
        pass


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_files_get_the_mode_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_checkpoint(build_detector(tiny_config()), tmp_path / "model.safetensors")
        with atomic_folder(tmp_path / "folder") as aside:
            (aside / "a").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_a_start_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    old, young = tmp_path / LEFT, tmp_path / LEFT.replace("0", "f")
    folder, busy = tmp_path / LEFT.replace("1", "a"), tmp_path / LEFT.replace("2", "b")
    others = [tmp_path / name for name in (".als-notes.part", "model.part", "als-1.part")]
    for path in (folder / "VOC2012", busy):
        path.mkdir(parents=True)
    (busy / "new").touch()
    for path in (old, young, folder / "VOC2012" / "a.jpg", *others):
        path.touch()
    long_ago = time.time() - OLD - 60
    for path in (old, folder / "VOC2012" / "a.jpg", folder / "VOC2012", folder, busy, *others):
        os.utime(path, (long_ago, long_ago))
    write_json(tmp_path / "record.json", {})
    assert not old.exists() and not folder.exists()
    assert young.exists() and (busy / "new").exists() and all(path.exists() for path in others)


@pytest.mark.parametrize("signalled", [KeyboardInterrupt, SystemExit])
def test_a_signal_on_the_way_to_a_removal_leaves_nothing(signalled, tmp_path, monkeypatch):
    is_dir, came = Path.is_dir, []

    def late(path):  # a handler may raise between any two calls
        if path.suffix == ".part" and not came:
            came.append(path)
            raise signalled
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", late)
    with pytest.raises(signalled):
        check_writable(tmp_path / "a")
    assert came and not list(tmp_path.iterdir())


def test_a_name_as_long_as_can_be(tmp_path):
    write_json(tmp_path / ("a" * 250 + ".json"), {})
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    torch.manual_seed(0)
    config = tiny_config(classes=TOY_CLASSES, score_threshold=0.0, detections_per_image=5)
    save_checkpoint(build_detector(config), path)
    return path


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A folder where there is room for 64 KiB, or for files of 5 kB where nobody may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = (
        sys.platform == "linux" and not subprocess.run(command, capture_output=True).returncode
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def commands(toy, toy_model, tmp_path):
    """Name -> arguments of a command that writes to a folder."""
    data = ["--data", "VOC2012:test", "--root", toy]
    photo = next((toy / "VOC2012" / "JPEGImages").glob("*.jpg"))

    def of(name: str, out: Path) -> list[str | Path]:
        return {
            "toy": ["data", "toy", out / "toy"],
            "to-coco": [
                "data",
                "to-coco",
                toy / "VOC2012",
                "--splits",
                "train",
                "--out",
                out / "c",
            ],
            "predict": ["predict", toy_model, photo, "--out", out / "p", "--score-threshold", "0"],
            "ship": ["ship", toy_model, "--out", out / "shipped.safetensors"],
            "tables": ["tables", "table1", "--out", out / "tables"],
            "export": ["export", toy_model, "--format", "torchscript", "--out", out / "a.torch"]
            + ["--size", "64", "64"],
            "evaluate": ["evaluate", toy_model, *data, "--out", out / "r.json", "--workers", "0"],
            "study": ["study", toy_model, *data, "--out", out / "s", "--maps", "localization"],
        }[name]

    return of


@pytest.mark.parametrize("name", ["toy", "predict", "ship", "tables", "export"])
def test_a_full_disk_is_said_and_holds_nothing_half_written(name, commands, full_disk, capsys):
    if name == "tables" and os.path.ismount(full_disk):  # its files are small
        (full_disk / "filler").write_bytes(bytes(60_000))
    told = refusal(capsys, *commands(name, full_disk))
    assert str(full_disk) in told and ("No space left" in told or "File too large" in told)
    assert not parts(full_disk)
    if name in ("toy", "ship", "export"):
        assert not list(full_disk.iterdir())
    if name == "predict":  # the picture has no room, the detections have
        (found,) = (full_disk / "p").iterdir()
        assert read_json(found)["detections"]


def test_a_record_is_kept_where_there_is_room(commands, full_disk, capsys, monkeypatch):
    """The disk fills up during the evaluation."""

    def fill_up(*given):
        room = os.statvfs(full_disk)
        (full_disk / "full").write_bytes(b"\0" * room.f_bavail * room.f_frsize)
        return "a table"

    if not os.path.ismount(full_disk):
        pytest.skip("needs a mount")
    monkeypatch.setattr("als.evaluation.evaluate.table", fill_up)
    told = refusal(capsys, *commands("evaluate", full_disk))
    assert "No space left" in told
    kept = Path(told.rpartition("the record is ")[2].removesuffix(" instead."))
    assert read_json(kept)["metrics"] and not (full_disk / "r.json").exists()
    kept.unlink()
    kept.parent.rmdir()


@pytest.mark.parametrize(
    "name", ["toy", "to-coco", "predict", "ship", "tables", "export", "evaluate", "study"]
)
def test_a_read_only_mount_is_said(name, commands, full_disk, capsys):
    if not os.path.ismount(full_disk):
        pytest.skip("needs a mount")
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    told = refusal(capsys, *commands(name, full_disk))
    assert str(full_disk) in told and "Read-only file system" in told


def test_a_study_measures_a_cut_part_again(commands, tmp_path, capsys):
    arguments = [*map(str, commands("study", tmp_path)), "--resume"]
    main(arguments)
    rows = read_rows(tmp_path / "s")
    (part,) = (tmp_path / "s" / "parts").glob("*.parquet")
    for content in (part.read_bytes()[:-20], b"", b"PAR1" + b"\0" * 100 + b"PAR1"):
        (part,) = (tmp_path / "s" / "parts").glob("*.parquet")
        part.write_bytes(content)
        with pytest.raises(InputError, match=f"{part}: this part of a study is cut off"):
            read_rows(tmp_path / "s")
        capsys.readouterr()
        main(arguments)
        assert str(part) in capsys.readouterr().err
        pd.testing.assert_frame_equal(read_rows(tmp_path / "s"), rows)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("study", ["--seed", "-1"], "--seed -1: give at least 0"),
        ("study", ["--limit", "-1"], "--limit -1: give at least 1"),
        ("study", ["--drise-masks", "0"], "--drise-masks 0: give at least 1"),
        ("study", ["--measures", "beauty"], "measure 'beauty' is unknown"),
        ("export", ["--size", "100000", "100000"], "size 100000 100000: give sides of 32 to 192"),
        ("toy", ["--seed", "-1"], "seed -1"),
        ("evaluate", ["--workers", "-1"], "--workers -1"),
        ("predict", ["--batch-size", "0"], "batch_size 0: give at least 1"),
    ],
)
def test_numbers_out_of_bounds_are_said(name, options, says, commands, tmp_path, capsys):
    assert says in refusal(capsys, *commands(name, tmp_path), *options)


RECORD = {"metrics": {"AP": 0.5}, "per_class": {"cat": {"AP50_11point": 0.5}}}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ([], "holds no record"),
        ({}, "its metrics is missing"),
        (RECORD | {"metrics": []}, "its metrics is"),
        (RECORD | {"metrics": {"AP": "x"}}, "its metrics.AP is"),
        (RECORD | {"per_class": {"cat": 3}}, "its per_class.cat is"),
        (RECORD | {"per_class": {"cat": {}}}, "its per_class.cat.AP50_11point is"),
        (RECORD | {"maps": 3}, "its maps is"),
        (RECORD | {"changed_options": [3]}, "its changed_options is"),
        (RECORD | {"maps": None}, None),
    ],
)
def test_a_record_of_another_shape_is_named(record, says, tmp_path, capsys):
    path = tmp_path / "table2-compact" / "proposed-seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    arguments = ["tables", "table2", "--results", str(tmp_path)]
    if says is None:
        main(arguments)
    else:
        told = refusal(capsys, *arguments)
        assert str(path) in told and says in told


def test_a_bootstrap_of_another_shape_is_named(tmp_path, capsys):
    path = tmp_path / "table2-compact" / "bootstrap.json"
    path.parent.mkdir()
    for content in ('{"steps": 3}', '{"steps": [{"first": "a", "second": "b"}]}'):
        path.write_text(content)
        told = refusal(capsys, "tables", "table2", "--results", tmp_path)
        assert str(path) in told and "its steps" in told


def als(*arguments: str | Path) -> subprocess.Popen:
    """The command line, as a shell runs it; a job in the background would not know Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen([sys.executable, "-m", "als.cli", *map(str, arguments)], **pipes)
    finally:
        signal.signal(signal.SIGINT, before)


def until(condition, process: subprocess.Popen) -> None:
    started = time.monotonic()
    while not condition():
        assert process.poll() is None and time.monotonic() - started < 60
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("toy", signal.SIGTERM), ("toy", signal.SIGINT), ("export", signal.SIGTERM)]
    + [("predict", signal.SIGTERM), ("to-coco", signal.SIGTERM), ("study", signal.SIGTERM)],
)
def test_a_signal_leaves_nothing_half_written(name, number, commands, tmp_path, toy):
    more = {"toy": ["--images", "5000"], "study": ["--gallery"]}.get(name, [])
    arguments = commands(name, tmp_path / "out")
    if name == "predict":
        arguments[2] = toy / "VOC2012" / "JPEGImages"
    if name == "to-coco":  # many images, so that it is still at work
        write_toy(tmp_path / "many", images=400, seed=0, size=(64, 80))
        arguments[2] = tmp_path / "many" / "VOC2012"
    run = als(*arguments, *more)
    gallery = tmp_path / "out" / "s" / "gallery"
    until(gallery.exists if name == "study" else lambda: parts(tmp_path / "out"), run)
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    said = [line for line in error.splitlines() if line and "image/s" not in line]
    assert len(said) <= 1 and "Traceback" not in error
    assert not parts(tmp_path)
    for path in (tmp_path / "out").rglob("*.json"):
        read_json(path)
