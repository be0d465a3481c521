"""Every kind of broken file is found, told by its name, and nothing else is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from als.data.check import check_folder
from als.data.dataset import DetectionDataset
from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES
from als.errors import InputError


@pytest.fixture
def toy(toy_root, tmp_path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(toy_root, tmp_path / "toy") / "VOC2012"


def problems(folder: Path, **more) -> dict[str, str]:
    """File name -> problems of it."""
    table = check_folder(folder, **more)
    assert list(table.columns) == ["file", "problem"]
    return {Path(file).name: "; ".join(rows["problem"]) for file, rows in table.groupby("file")}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_sound_folder_gives_an_empty_table(toy_root):
    assert problems(toy_root) == {}
    assert problems(toy_root / "VOC2012") == {}


def test_each_kind_of_broken_file_is_found(toy):
    xml, jpg, png = toy / "Annotations", toy / "JPEGImages", toy / "SegmentationClass"
    cut = jpg / "toy_000000.jpg"
    cut.write_bytes(cut.read_bytes()[:3000])
    (jpg / "toy_000001.jpg").write_bytes(b"no image")
    edit(xml / "toy_000002.xml", "</annotation>", "")
    edit(xml / "toy_000003.xml", "<name>circle</name>", "<name>hexagon</name>")
    edit(xml / "toy_000005.xml", "<xmax>", "<xmax>9")
    edit(xml / "toy_000006.xml", "<xmin>", "<xmin>9")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(png / "toy_000007.png")
    (png / "toy_000008.png").write_bytes(b"no mask")
    edit(xml / "toy_000009.xml", "<width>160</width>", "<width>161</width>")
    (jpg / "toy_000010.jpg").unlink()
    (xml / "toy_000011.xml").unlink()
    found = problems(toy)
    for name, words in {
        "toy_000000.jpg": "damaged or cut short",
        "toy_000001.jpg": "not an image that can be read",
        "toy_000002.xml": "XML cannot be read",
        "toy_000003.xml": "class 'hexagon' is not known",
        "toy_000005.xml": "outside the image",
        "toy_000006.xml": "no area",
        "toy_000007.png": "9x9 pixels but the image is 160x120",
        "toy_000008.png": "mask cannot be read",
        "toy_000009.jpg": "160x120 pixels but its annotation says 161x120",
        "toy_000009.png": "160x120 pixels but the image is 161x120",
        "toy_000010.jpg": "there is no such image",
        "toy_000011.xml": "there is no such annotation",
    }.items():
        assert words in found.pop(name)
    assert found == {}


def test_classes_may_be_given(toy_root):
    assert problems(toy_root, classes=("circle",)) == {}
    assert "nothing to train on" in problems(toy_root, classes=("hexagon",))["train.txt"]


def test_an_empty_split_is_told_and_a_folder_of_another_kind_refused(toy, tmp_path):
    (toy / "ImageSets" / "Main" / "extra.txt").write_text("")
    assert problems(toy) == {"extra.txt": "the split lists no image"}
    with pytest.raises(InputError, match="JPEGImages"):
        check_folder(tmp_path)


def turn(image: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(image) as stored:
        stored.save(image, exif=exif, quality=95)


def test_photographs_turned_by_exif_are_counted_and_the_stored_size_explained(toy):
    """A 180 degree turn keeps the size: it can be told, but whether the boxes fit cannot be."""
    told = []
    check_folder(toy, tell=told.append)
    assert told == []
    turn(toy / "JPEGImages" / "toy_000000.jpg", 3)
    assert len(check_folder(toy, tell=told.append)) == 0
    assert len(told) == 1 and "photographs that EXIF turns: 1; " in told[0]
    turn(toy / "JPEGImages" / "toy_000001.jpg", 6)
    (problem,) = problems(toy).values()
    assert "EXIF turns it to 120x160 pixels but its annotation says 160x120, as it is" in problem
    assert "annotate it as viewers show it, or remove the orientation" in problem
    records = load_records("VOC2012:trainval", toy.parent, TOY_CLASSES)
    with pytest.raises(InputError, match=r"toy_000001\.jpg: EXIF turns it to 120x160"):
        DetectionDataset(records, TOY_CLASSES)[1]
