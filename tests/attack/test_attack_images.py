"""Images that are made to be opened: other formats, one row of millions, 40 megapixels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from als.cli import main
from als.data.masks import read_class_map
from als.data.record import MaskSource, Record
from als.errors import InputError
from als.files import printable
from als.images import MAX_SIDE, as_rgb, exif_orientation, image_size, painted

TESTS = Path(__file__).parents[1]
GIGABYTE = 10**9
OTHERS = ("EPS", "PPM", "TGA", "PCX", "ICO", "SGI", "DDS", "PDF", "IM", "SPIDER", "MSP", "XBM")


def written(folder: Path, kind: str) -> Path:
    path = folder / "a.png"
    mode = {"SPIDER": "F", "MSP": "1", "XBM": "1"}.get(kind, "RGB")
    # SPIDER's writer makes the ending its own for the whole process.
    Image.new(mode, (16, 16)).save(path.with_suffix(f".{kind.lower()}"), kind)
    return path.with_suffix(f".{kind.lower()}").rename(path)


@pytest.mark.parametrize("kind", OTHERS)
def test_no_reader_opens_another_format(tmp_path, kind):
    """A photo, a layer, a mask, a head: Pillow is told the formats in one place."""
    path = written(tmp_path, kind)
    nothing = np.zeros((0, 4))
    mask = MaskSource("png", path, ("cat",))
    record = Record("a", path, (16, 16), nothing, np.zeros(0, int), np.zeros(0, bool), mask)
    readers = (
        lambda: as_rgb(path),
        lambda: image_size(path),
        lambda: painted(path),
        lambda: painted(path.read_bytes()),
        lambda: read_class_map(record, ("cat",)),
    )
    for read in readers:
        with pytest.raises(InputError) as error:
            read()
        assert "\n" not in str(error.value)
    assert exif_orientation(path) == 1


def test_ghostscript_is_never_started(tmp_path, monkeypatch):
    def started(*arguments, **options):
        raise AssertionError(f"{arguments} was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(subprocess, "check_call", started)
    with pytest.raises(InputError, match="not an image"):
        as_rgb(written(tmp_path, "EPS"))


@pytest.mark.parametrize("size", [(39_999_999, 1), (1, 39_999_999), (MAX_SIDE + 1, 2)])
def test_a_row_of_millions_is_refused_from_its_head(tmp_path, size):
    path = tmp_path / "row.png"
    Image.new("L", size).save(path)
    for read in (as_rgb, image_size):
        with pytest.raises(InputError, match=f"row.png: {size[0]} x {size[1]} .* 65,535; .*first"):
            read(path)


LARGE = f"""
import re, resource, sys
from pathlib import Path
sys.path[:0] = [{str(TESTS)!r}]
import gradio  # what the app has in memory anyway
from app_server import tiny_predictor
from als.errors import InputError
from als.ui import what_if
from als.views.photo_study import Settings, study_photo
from als.ui.takeaway import write_files

predictor = tiny_predictor()
predictor.predict(sys.argv[1])
taken = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[2]),) * 2)
for path in map(Path, sys.argv[3:]):
    try:
        study = study_photo(predictor, path, path.name)
        what_if.with_changed_maps(study, what_if.NEUTRAL, what_if.INSIDE, None)
        write_files(study, Settings())
        print("done", study.prediction.size, study.bytes())
    except InputError as error:
        print(error)
    study = None
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limits and /proc")
def test_the_largest_photos_take_about_a_gigabyte(tmp_path):
    """Detect, replace maps, export everything, at either end of what is taken."""
    sizes = [(8000, 5000), (65_535, 610), (610, 65_535), (39_999_999, 1), (1, 39_999_999)]
    paths = [tmp_path / f"{width}.png" for width, _ in sizes]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("L", size).save(path, compress_level=1)
    Image.new("RGB", (64, 48)).save(tmp_path / "small.png")
    given = [tmp_path / "small.png", int(1.2 * GIGABYTE), *paths]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", LARGE, *map(str, given)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=TESTS.parent,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["done"] * 3 + ["39999999.png:", "1.png:"]


NAMES = [
    b"n" * 246 + b".png",
    b"n" * 251 + b".png",
    b"\xff\xfe.png",
    b"\x1b[2Jred\x1b[0m.png",
    b"two\nlines.png",
    "ÿ\u202e\u3042.png".encode(),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_predict_writes_beside_any_name_and_shows_it_safely(tmp_path, capsys, name):
    from app_server import scene, tiny_predictor

    from als.checkpoint import save_checkpoint

    save_checkpoint(tiny_predictor().detector, tmp_path / "tiny.safetensors", {})
    photo = os.fsencode(tmp_path) + b"/" + name
    scene(1, (64, 48)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", photo)
    out = tmp_path / "out"
    main(["predict", str(tmp_path / "tiny.safetensors"), os.fsdecode(photo), "--out", str(out)])
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".png"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "\x1b" not in said and "\u202e" not in said
    said.encode()  # no lone surrogate
    with open(photo, "wb") as file:
        file.write(b"no photo")
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "tiny.safetensors"), os.fsdecode(photo), "--out", str(out)])
    said = capsys.readouterr().err
    assert "\x1b" not in said and "not an image" in said
    said.encode()


def test_what_is_printable_stays():
    assert printable("Grüße 写真\u202f12.jpg") == "Grüße 写真\u202f12.jpg"
    assert printable("\x1b[0m\n\udcff\u202e") == "\\x1b[0m\\n\\udcff\\u202e"
