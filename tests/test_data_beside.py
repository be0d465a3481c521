"""Annotations beside photographs, VOC's and COCO's: by hand, and files that are broken."""

import json

import pytest
from PIL import Image

from als.data.beside import MAX_BYTES, records_beside
from als.errors import InputError

CLASSES = ("cat", "dog")
XML = """<annotation><size><width>60</width><height>40</height></size>{}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin>
<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def photos(tmp_path):
    """Two photographs under names of an upload, which are not those that their owner knows."""
    files = {}
    for name in ("one.jpg", "two.png"):
        files[name] = tmp_path / f"stored-{name}"
        Image.new("RGB", (60, 40)).save(files[name])
    return files


def written(tmp_path, name: str, text: str) -> dict:
    (tmp_path / f"stored-{name}").write_text(text)
    return {name: tmp_path / f"stored-{name}"}


def coco(**changes) -> str:
    content = {
        "images": [
            {"id": 7, "file_name": "train/two.png", "width": 60, "height": 40},
            {"id": 8, "file_name": "elsewhere.png", "width": 9, "height": 9},
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "zebra"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 5, "bbox": [3, 3, 5, 5], "iscrowd": 0},
        ],
    }
    return json.dumps(content | changes)


def test_voc_and_coco_together(photos, tmp_path):
    text = XML.format(OBJECT.format("dog", 0, 1, 1, 10, 20) + OBJECT.format("cat", 1, 5, 6, 60, 40)
                      + OBJECT.format("sheep", 0, 1, 1, 2, 2))  # fmt: skip
    files = written(tmp_path, "one.xml", text) | written(tmp_path, "all.json", coco())
    files |= written(tmp_path, "other.xml", XML.format(""))
    records, told = records_beside(photos, files, CLASSES)
    one, two = records["one.jpg"], records["two.png"]
    assert one.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 60, 40]]
    assert (one.labels.tolist(), one.difficult.tolist()) == ([2, 1], [False, True])
    assert two.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 60, 40]]
    assert (two.labels.tolist(), two.difficult.tolist()) == ([2, 2], [False, True])
    assert told == [
        "2 annotated images are not among these photographs.",
        "Objects of classes that this model does not know are left out: sheep, zebra.",
    ]


def test_an_annotation_without_an_object_is_one(photos, tmp_path):
    records, told = records_beside(photos, written(tmp_path, "one.xml", XML.format("")), CLASSES)
    assert list(records) == ["one.jpg"] and records["one.jpg"].boxes.shape == (0, 4) and not told


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("one.xml", "<annotation>", "the XML cannot be read"),
        ("one.xml", XML.format(OBJECT.format("dog", 0, 1, 1, 99, 20)), "lies outside"),
        ("one.xml", XML.format("").replace("60", "61"), "60x40 pixels but its annotation says"),
        ("a.json", "{", "the JSON cannot be read"),
        ("a.json", "[]", "it has no 'images'"),
        ("a.json", coco(images=[{"id": 7, "file_name": "two.png", "width": 9, "height": 9}],
                        annotations=[]), "its annotation says"),
        ("a.json", " " * (MAX_BYTES + 1), "over the limit of 8 MB"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_by_the_name_that_it_was_given(photos, tmp_path, name, text, says):
    with pytest.raises(InputError) as error:
        records_beside(photos, written(tmp_path, name, text), CLASSES)
    assert str(error.value).startswith(f"{name}: ") and says in str(error.value)
    assert "stored" not in str(error.value)


def test_an_annotation_that_fits_two_photographs_is_refused(photos, tmp_path):
    photos["one.png"] = photos["two.png"]
    with pytest.raises(InputError, match="one.xml: it fits one.jpg and one.png"):
        records_beside(photos, written(tmp_path, "one.xml", XML.format("")), CLASSES)


@pytest.mark.parametrize("first", ["all.json", "two.xml"])
def test_a_photograph_that_is_annotated_twice_is_refused(photos, tmp_path, first):
    """As 0001.jpg of two cameras' folders would be: only one of the two can be meant."""
    entries = [
        {"id": number, "file_name": f"cam{number}/two.png", "width": 60, "height": 40}
        for number in (1, 2)[: 1 + (first == "all.json")]
    ]
    files = written(tmp_path, "all.json", coco(images=entries, annotations=[]))
    if first == "two.xml":
        files = written(tmp_path, first, XML.format("")) | files
    with pytest.raises(InputError, match="all.json: two.png is annotated a second time here"):
        records_beside(photos, files, CLASSES)
