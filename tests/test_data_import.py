"""Exports of labelling tools, imitated from their documented formats, come in with every label."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from als.cli import main
from als.data.check import check_folder
from als.data.exports import read_export
from als.data.importing import import_export, summary
from als.data.layouts import load_records
from als.data.masks import palette, read_class_map, read_object_map
from als.data.rle import VOID
from als.errors import InputError
from als.training.options import read_options

WIDTH, HEIGHT = 40, 20


def photo(path: Path, seed: int = 0, orientation: int = 1) -> bytes:
    """Write 40 x 20 pixels (as stored) and return the file's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path.read_bytes()


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def coco(path: Path, images: list, annotations: list, categories: list, **more) -> None:
    content = {"images": images, "annotations": annotations, "categories": categories}
    text(path, json.dumps(content | more))


def entry(number: int, name: str, **more) -> dict:
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} | more


def marked(number: int, image: int, category: int, bbox: list, **more) -> dict:
    base = {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0}
    return base | {"area": bbox[2] * bbox[3], "segmentation": []} | more


def xml(path: Path, filename: str, *objects: str, size=(WIDTH, HEIGHT), more: str = "") -> None:
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    text(
        path,
        f"<annotation><folder/><filename>{filename}</filename>{more}{told}{''.join(objects)}",
        "</annotation>",
    )


def thing(name: str, x1, y1, x2, y2, difficult: int = 0, more: str = "") -> str:
    corners = f"<xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin><ymax>{y2}</ymax>"
    return (
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox>{corners}</bndbox>{more}</object>"
    )


def imported(source: Path, classes=("cat", "dog"), **options) -> dict:
    """Import beside the source, check, and load all of it: image id -> (split, record)."""
    out = source.parent / "new set"
    done = import_export(source, out, **options)
    assert check_folder(out).empty
    assert done.classes[: len(classes)] == tuple(classes), done.classes
    assert summary(done)
    records = {}
    for split in done.table.index:
        try:
            found = load_records(f"new set:{split}", source.parent, classes)
        except InputError as error:  # a split of photographs that show nothing
            assert "holds no object" in str(error)
            continue
        records |= {record.image_id: (split, record) for record in found}
    return records


def boxes(record) -> list:
    named = zip(record.labels.tolist(), record.boxes.tolist(), strict=True)
    return sorted([label, *(round(v, 2) for v in box)] for label, box in named)


def left_out(source: Path) -> list[str]:
    record = json.loads((source.parent / "new set" / "import.json").read_text())
    return [f"{one['what']} {Path(one['file']).name}: {one['why']}" for one in record["left_out"]]


# YOLO


def test_yolo_of_roboflow(tmp_path):
    """Its data.yaml says ../train/images, from the folder itself; lines are boxes or polygons."""
    source = tmp_path / "export"
    names = "names: ['cat', 'dog']"
    text(source / "data.yaml", "train: ../train/images", "val: ../valid/images", names, "nc: 2")
    kept = photo(source / "train/images/a b_jpg.rf.1.jpg", orientation=6)  # stands upright: 20 x 40
    text(source / "train/labels/a b_jpg.rf.1.txt", "1 0.5 0.5 0.2 0.4", "0 0 0 0.5 0 0.5 0.25")
    photo(source / "valid/images/b.jpg")
    text(source / "valid/labels/b.txt", "0 0.25 0.5 0.5 1")
    photo(source / "valid/images/empty.jpg")
    text(source / "valid/labels/empty.txt")
    found = imported(source)
    split, first = found["a b_jpg.rf.1"]
    assert split == "train" and first.path.read_bytes() == kept and first.size == (40, 20)
    assert boxes(first) == [[1, 0, 0, 10, 10], [2, 8, 12, 12, 28]]
    labels = read_class_map(first, ["cat", "dog"])
    assert 45 <= (labels == 1).sum() <= 60  # the triangle, half of 10 x 10
    assert (labels[12:28, 8:12] == VOID).all()  # the dog has a box alone
    split, second = found["b"]
    assert split == "val" and boxes(second) == [[1, 0, 0, 20, 20]] and second.mask is None
    assert len(found["empty"][1].labels) == 0
    assert left_out(source) == []


def test_yolo_of_ultralytics_with_lists_and_odd_names(tmp_path):
    """Names by number, a path, lists of files; [yes, 1] are words; same stems in two folders."""
    source = tmp_path / "export"
    text(source / "data.yaml", "path: .", "train: train.txt", "test: images/test", "names:")
    with (source / "data.yaml").open("a") as file:
        file.write("  0: yes\n  1: 1\n")
    text(source / "train.txt", "data/images/train/cam1/1.jpg", "./images/train/cam2/1.jpg", "x.jpg")
    for camera in ("cam1", "cam2"):
        photo(source / f"images/train/{camera}/1.jpg")
        text(source / f"labels/train/{camera}/1.txt", f"{int(camera[-1]) - 1} 0.5 0.5 0.5 0.5")
    photo(source / "images/test/t.png")
    text(source / "labels/test/t.txt", "0 0.5 0.5 0.5 0.5")
    found = imported(source, classes=("yes", "1"))
    assert {name: split for name, (split, _) in found.items()} == {
        "images-train-cam1-1": "train",
        "images-train-cam2-1": "train",
        "t": "test",
    }
    assert boxes(found["images-train-cam2-1"][1]) == [[2, 10, 5, 30, 15]]
    assert left_out(source) == ["photograph train.txt: x.jpg: there is no such image"]


def test_yolo_of_label_studio_gets_seeded_splits(tmp_path):
    source = tmp_path / "export"
    text(source / "classes.txt", "cat", "dog")
    text(source / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}]}))
    for number in range(10):
        photo(source / f"images/{number}.jpg", number)
        text(source / f"labels/{number}.txt", f"{number % 2} 0.5 0.5 0.5 0.5")
    found = imported(source, test=0.1, seed=3)
    splits = [split for split, _ in found.values()]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (7, 2, 1)
    shutil.rmtree(tmp_path / "new set")
    again = imported(source, test=0.1, seed=3)
    assert {k: s for k, (s, _) in again.items()} == {k: s for k, (s, _) in found.items()}


def test_bad_lines_of_yolo_are_named_and_their_photograph_left_out(tmp_path):
    source = tmp_path / "export"
    text(source / "data.yaml", "train: images", "val: nowhere", "names: [cat, dog]")
    bad = {
        "over": "0 0.5 0.5 1.5 0.5",
        "class": "2 0.5 0.5 0.5 0.5",
        "half": "0.5 0.5 0.5 0.5 0.5",
        "nan": "0 nan 0.5 0.5 0.5",
        "word": "cat 0.5 0.5 0.5 0.5",
        "score": "0 0.5 0.5 0.5 0.5 0.9",
    }
    for name, line in bad.items():
        photo(source / f"images/{name}.jpg")
        text(source / f"labels/{name}.txt", "0 0.5 0.5 0.5 0.5", line)
    photo(source / "images/edge.jpg")
    text(source / "labels/edge.txt", *["0 0.9 0.5 0.4 0.5"] * 2, "1 0.5 0.5 0 0.5")
    text(source / "labels/alone.txt", "0 0.5 0.5 0.5 0.5")
    (source / "images/broken.jpg").write_bytes(b"no image")
    (source / "images/cut.jpg").write_bytes(photo(source / "images/cut.jpg")[:-90])
    found = imported(source, val=0.0)
    assert list(found) == ["edge"]
    assert boxes(found["edge"][1]) == [[1, 28, 5, 40, 15]]  # clipped, once, without the flat one
    assert sorted(left_out(source)) == [
        "label file alone.txt: there is no photograph for it",
        "object edge.jpg: cat 28, 5, 44, 15: it stands there twice",
        "object edge.jpg: dog 20, 5, 20, 15: its box has no area in the photograph",
        "photograph broken.jpg: not an image that can be read; give a JPEG, PNG, WebP, GIF, BMP "
        "or TIFF file",
        "photograph class.jpg: class.txt: line 2: class 2 is none of the 2 names, from 0",
        "photograph cut.jpg: the file is damaged or cut short (image file is truncated (36 bytes "
        "not processed)); copy or upload it again",
        "photograph half.jpg: half.txt: line 2: class 0.5 is none of the 2 names, from 0",
        "photograph nan.jpg: nan.txt: line 2: a value is 'nan'; write a number",
        "photograph over.jpg: over.txt: line 2: a coordinate lies outside 0 to 1; are they pixels?",
        "photograph score.jpg: score.txt: line 2: 6 values are neither a box nor a polygon",
        "photograph word.jpg: word.txt: line 2: a value is 'cat'; write a number",
        "split data.yaml: its 'val', nowhere, is not there",
    ]
    record = json.loads((tmp_path / "new set/import.json").read_text())
    assert "1 boxes lay over an edge of their photograph: clipped" in record["notes"]


def test_keypoints_of_yolo_are_left_out_and_told(tmp_path):
    source = tmp_path / "export"
    text(source / "data.yaml", "train: images", "names: {0: cat}", "kpt_shape: [2, 3]")
    photo(source / "images/a.jpg")
    text(source / "labels/a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2")
    found = imported(source, classes=("cat",))
    assert boxes(found["a"][1]) == [[1, 10, 5, 30, 15]] and found["a"][1].mask is None
    assert "keypoints" in (tmp_path / "new set/import.json").read_text()


# COCO


def test_coco_of_roboflow(tmp_path):
    """A file beside the photographs of each split; a root category; several polygons."""
    source = tmp_path / "export"
    names = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "dog", "supercategory": "animals"},
    ]
    two = [[0, 0, 4, 0, 4, 4, 0, 4], [6, 0, 10, 0, 10, 4, 6, 4]]
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 20, 780]}  # the first column
    crowd = marked(2, 0, 2, [0, 0, 1, 20], segmentation=runs, iscrowd=1)
    told = [marked(0, 0, 1, [0.5, 0, 9.5, 4], segmentation=two), crowd]
    coco(source / "train/_annotations.coco.json", [entry(0, "a.jpg")], told, names)
    coco(
        source / "valid/_annotations.coco.json",
        [entry(0, "a.jpg"), entry(1, "gone.jpg")],
        [marked(0, 0, 2, [3, 3, 5, 5]), marked(0, 7, 2, [3, 3, 5, 5])],
        names,
    )
    photo(source / "train/a.jpg", 1)
    photo(source / "valid/a.jpg", 2)
    photo(source / "valid/unlisted.jpg")
    found = imported(source)
    split, first = found["train-a"]
    assert split == "train" and first.path.read_bytes() == (source / "train/a.jpg").read_bytes()
    assert boxes(first) == [[1, 0.5, 0, 10, 4], [2, 0, 0, 1, 20]]
    assert first.difficult.tolist() == [False, True]
    drawn = read_class_map(first, ["cat", "dog"])
    assert (drawn[:4, :4] == 1).all() and (drawn[:4, 6:10] == 1).all()
    assert (drawn[:4, 4:6] == 0).all() and (drawn[4:, 0] == VOID).all()
    split, second = found["valid-a"]
    assert split == "valid" and boxes(second) == [[2, 3, 3, 8, 8]]
    assert sorted(left_out(source)) == [
        "object _annotations.coco.json: annotation 0: the file lists no image 7",
        "photograph _annotations.coco.json: image 1, gone.jpg: there is no such image",
        "photograph unlisted.jpg: it stands alone: no label file names it",
    ]


def test_coco_of_label_studio(tmp_path):
    """result.json, ids from 0, file names of the server's folders."""
    source = tmp_path / "export"
    names = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    photos = [entry(0, "images\\ab12-x y.jpg"), entry(1, "/data/media/upload/1/cd34-z.png")]
    things = [
        marked(0, 0, 0, [1, 2, 10, 10], ignore=0, attributes=1),
        marked(1, 1, 1, [0, 0, 40, 20], ignore=0, segmentation=[[0, 0, 40, 0, 40, 20]]),
    ]
    coco(source / "result.json", photos, things, names)
    photo(source / "images/ab12-x y.jpg")
    photo(source / "images/cd34-z.png")
    found = imported(source, val=0.0)
    assert boxes(found["ab12-x y"][1]) == [[1, 1, 2, 11, 12]]
    assert boxes(found["cd34-z"][1]) == [[2, 0, 0, 40, 20]]
    assert 0.45 < read_object_map(found["cd34-z"][1], ["dog"]).mean() < 0.55


def test_coco_of_cvat(tmp_path):
    """annotations/instances_default.json, images/ with folders; the brush's objects as crowds."""
    source = tmp_path / "export"
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 20, 780]}
    own = {"attributes": {"occluded": False}}
    things = [
        marked(1, 1, 1, [0, 0, 1, 20], segmentation=runs, iscrowd=1, **own),
        marked(2, 2, 2, [4.5, 5.25, 10, 10], attributes={"occluded": False, "rotation": 0.0}),
        marked(3, 3, 2, [0, 0, 1, float("nan")]),
        marked(4, 4, 9, [0, 0, 1, 1]),
        marked(5, 5, 1, [0, 0, 9, 9]),
        marked(6, 6, 1, [0, 0, 9, 9], iscrowd=float("inf")),
    ]
    photos = [entry(k, f"cam{k}/0001.jpg") for k in (1, 2, 3, 4)] + [entry(5, "5.jpg", width=41)]
    photos.append(entry(6, "6.jpg"))
    coco(
        source / "annotations/instances_default.json",
        photos,
        things,
        [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog"}],
        licenses=[{"name": "", "id": 0, "url": ""}],
    )
    for k in (1, 2, 3, 4):
        photo(source / f"images/cam{k}/0001.jpg", k)
    photo(source / "images/5.jpg")
    photo(source / "images/6.jpg")
    found = imported(source, val=0.0)
    brushed, boxed = (found[f"images-cam{k}-0001"][1] for k in (1, 2))
    assert boxes(brushed) == [[1, 0, 0, 1, 20]] and not brushed.difficult.any()
    assert read_object_map(brushed, ["cat"]).sum() == 20
    assert boxes(boxed) == [[2, 4.5, 5.25, 14.5, 15.25]]
    told = " ".join(left_out(source))
    assert "annotation 3: a value is " in told
    assert "annotation 4: the file has no category 9" in told
    assert "annotation 6: iscrowd is inf; write 0 or 1" in told
    assert "5.jpg: the image is 40x20 pixels but its annotation says 41x20" in told


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [([1, 2, 10, 2, 10, 9], "is no list of polygons"), ([[5]], "it has no bbox")],
)
def test_an_outline_that_is_none_is_told_in_words(tmp_path, segmentation, told):
    source = tmp_path / "export"
    bad = marked(1, 1, 1, [0, 0, 0, 0], segmentation=segmentation) | {"bbox": []}
    things = [bad, marked(2, 2, 1, [1, 2, 9, 9])]
    photos = [entry(1, "a.jpg"), entry(2, "b.jpg")]
    coco(source / "annotations/instances_default.json", photos, things, [{"id": 1, "name": "cat"}])
    for one in photos:
        photo(source / "images" / one["file_name"])
    imported(source, classes=("cat",), val=0.0)
    (left,) = left_out(source)
    assert "annotation 1: " in left and told in left


def test_coco_of_cvat_with_a_folder_of_its_split(tmp_path):
    """images/default/, as CVAT writes it since 2024."""
    source = tmp_path / "export"
    photo(source / "images/default/a.jpg")
    things, labels = [marked(1, 1, 1, [1, 2, 10, 10])], [{"id": 1, "name": "cat"}]
    coco(source / "annotations/instances_default.json", [entry(1, "a.jpg")], things, labels)
    assert boxes(imported(source, classes=("cat",), val=0.0)["a"][1]) == [[1, 1, 2, 11, 12]]


# VOC


def test_voc_of_roboflow(tmp_path):
    """XML beside the photographs of each split, with polygons."""
    source = tmp_path / "export"
    outline = "".join(f"<x{k}>{x}</x{k}><y{k}>{y}</y{k}>" for k, x, y in
                      ((1, 1, 1), (2, 11, 1), (3, 11, 11), (4, 1, 11)))  # fmt: skip
    polygon = f"<polygon>{outline}</polygon>"
    roots = {"train": ("cat", 1, 1, 10, 10, 0, polygon), "valid": ("dog", 3, 3, 8, 8, 1)}
    for split, values in roots.items():
        photo(source / split / f"{split}.v1.jpg")
        xml(source / split / f"{split}.v1.xml", f"{split}.v1.jpg", thing(*values))
    photo(source / "valid/easy.jpg")
    xml(source / "valid/easy.xml", "easy.jpg", thing("dog", 1, 1, 9, 9))
    xml(source / "train/gone.xml", "gone.jpg", thing("cat", 1, 1, 9, 9))
    text(source / "train/broken.xml", "<annotation>")
    photo(source / "train/bare.jpg")
    found = imported(source)
    assert boxes(found["train.v1"][1]) == [[1, 0, 0, 10, 10]]  # VOC's corners: from 1, both inside
    assert read_object_map(found["train.v1"][1], ["cat"]).sum() == 100
    split, hard = found["valid.v1"]
    assert split == "valid" and boxes(hard) == [[2, 2, 2, 8, 8]] and hard.difficult.all()
    told = " ".join(left_out(source))
    assert "gone.xml: there is no such image" in told and "broken.xml: the XML cannot be" in told
    assert "bare.jpg: it stands alone: no label file names it" in told


def test_voc_whose_corners_begin_at_0(tmp_path):
    source = tmp_path / "export"
    photo(source / "train/a.jpg")
    xml(source / "train/a.xml", "a.jpg", thing("cat", 0, 3, 10, 10), thing("dog", 2, 2, 9, 9))
    found = imported(source, val=0.0)
    assert boxes(found["a"][1]) == [[1, 0, 3, 10, 10], [2, 2, 2, 9, 9]]


def test_photographs_of_the_export_beside_this_one_are_not_taken(tmp_path):
    """Roboflow writes ../train/images for its own folder, and another export may lie above."""
    for folder, name in ((tmp_path, "other"), (tmp_path / "export", "mine")):
        photo(folder / f"train/images/{name}.jpg")
        text(folder / f"train/labels/{name}.txt", "0 0.5 0.5 0.5 0.5")
    text(tmp_path / "export/data.yaml", "train: ../train/images", "names: [cat]")
    assert list(imported(tmp_path / "export", classes=("cat",), val=0.0)) == ["mine"]


def test_a_folder_of_photographs_is_listed_once(tmp_path, monkeypatch):
    """Once for each XML file an export of 4,000 photographs took most of a minute."""
    source, listed = tmp_path / "export", []
    for name in "abcde":
        photo(source / f"train/{name}.jpg")
        xml(source / f"train/{name}.xml", f"{name}.jpg", thing("cat", 1, 1, 9, 9))
    whole = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or whole(folder))
    assert len(read_export(source, print).photos) == 5
    assert listed.count(source / "train") == 1


def test_voc_of_label_studio(tmp_path):
    """Corners from 0, a filename without an ending."""
    source = tmp_path / "export"
    owner = "<owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
    things = (thing("cat", 4, 5, 14, 15), thing("dog", 1, 1, 3, 3, difficult=1))
    photo(source / "images/a 1.JPG")
    xml(source / "Annotations/a 1.xml", "a 1", *things, more=owner)
    found = imported(source, val=0.0)
    record = found["a 1"][1]
    assert boxes(record) == [[1, 4, 5, 14, 15], [2, 1, 1, 3, 3]]
    assert record.difficult.tolist() == [False, True] and record.path.suffix == ".JPG"


def test_voc_of_cvat_with_masks_in_colours(tmp_path):
    """labelmap.txt, corners from 0 with decimals; objects are numbered in CVAT's own order."""
    source = tmp_path / "export"
    head = "# label:color_rgb:parts:actions"
    text(source / "labelmap.txt", head, "background:0,0,0::", "cat:10,20,30::", "dog:40,50,60::")
    text(source / "ImageSets/Main/default.txt", "cam1/a", '"b c"', "plain", "gone")
    text(source / "ImageSets/Main/cat_default.txt", "cam1/a 1", "plain -1")
    for name in ("cam1/a", "b c", "plain"):
        photo(source / f"JPEGImages/{name}.jpg")
    things = thing("cat", 0.0, 0.0, 10.5, 10.0), thing("dog", 20.0, 0.0, 30.0, 10.0)
    xml(source / "Annotations/cam1/a.xml", "cam1/a.jpg", *things)
    xml(source / "Annotations/b c.xml", "b c.jpg", thing("dog", 1, 1, 9, 9))
    labels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    numbers = labels.copy()
    labels[0:10, 20:30], numbers[0:10, 20:30] = (40, 50, 60), (128, 0, 0)  # object 1: the dog
    labels[2:10, 0:10], numbers[2:10, 0:10] = (10, 20, 30), (0, 128, 0)  # object 2: the cat
    labels[12:18, 5:9], numbers[12:18, 5:9] = (10, 20, 30), (128, 128, 0)  # 3: has no box
    for folder, values in (("Class", labels), ("Object", numbers)):
        path = source / f"Segmentation{folder}/cam1/a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(values).save(path)
    found = imported(source, val=0.0)
    record = found["a"][1]
    assert boxes(record) == [[1, 0, 0, 10.5, 10], [1, 5, 12, 9, 18], [2, 20, 0, 30, 10]]
    drawn = read_class_map(record, ["cat", "dog"])
    assert np.array_equal(drawn, np.select([labels[..., 0] == 10, labels[..., 0] == 40], [1, 2], 0))
    written = json.loads((tmp_path / "new set/annotations/instances_train.json").read_text())
    first = [a["area"] for a in written["annotations"] if a["image_id"] == 1]
    assert first == [80, 100, 24]
    assert boxes(found["b c"][1]) == [[2, 1, 1, 9, 9]]
    assert len(found["plain"][1].labels) == 0  # listed, without an XML: nothing is on it
    assert [line for line in left_out(source) if "gone" in line and "no such image" in line]


def test_voc_itself_keeps_masks_void_and_difficult(toy_root, tmp_path):
    source = shutil.copytree(toy_root / "VOC2012", tmp_path / "toy")
    classes = ("circle", "square", "triangle")
    found = imported(source, classes=classes)
    before = load_records("VOC2012:trainval + VOC2012:test", toy_root, classes)
    assert len(found) == len(before) == 24
    for one in before:
        split, two = found[one.image_id]
        assert boxes(one) == boxes(two) and sorted(one.difficult) == sorted(two.difficult)
        listed = (source / f"ImageSets/Main/{split}.txt").read_text().split()
        assert one.image_id in listed and split != "trainval"
        if one.mask is not None:
            assert np.array_equal(read_class_map(one, classes), read_class_map(two, classes))


def test_masks_of_voc_without_classes_txt_have_the_values_of_voc(tmp_path):
    source = tmp_path / "export"
    photo(source / "JPEGImages/a.jpg")
    xml(source / "Annotations/a.xml", "a.jpg", thing("cat", 1, 1, 10, 10))
    text(source / "ImageSets/Main/train.txt", "a")
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:8, 3:9] = 8  # VOC's number of cat
    (source / "SegmentationClass").mkdir()
    Image.fromarray(values).save(source / "SegmentationClass/a.png")
    found = imported(source, classes=("cat",))
    assert np.array_equal(read_object_map(found["a"][1], ["cat"]), values > 0)


# The command


def yolo(folder: Path) -> Path:
    text(folder / "data.yaml", "train: images", "names: [cat, dog]")
    for number in range(5):
        photo(folder / f"images/{number}.jpg", number)
        text(folder / f"labels/{number}.txt", "0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.2 0.2")
    return folder


def test_the_command_tells_counts_and_what_comes_next(tmp_path, capsys):
    source = yolo(tmp_path / "my export")
    text(source / "labels/9.txt", "0 0.5 0.5 0.5 0.5")
    main(["data", "import", str(source), str(tmp_path / "my set"), "--val", "0.4"])
    told = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[-2:] for line in told.splitlines() if line}
    assert rows["images"] == ["3", "2"] and rows["cat"] == ["3", "2"] == rows["dog"]
    assert "left out: 1 label file" in told and "9.txt: there is no photograph for it" in told
    assert f"als data check '{tmp_path}/my set'" in told
    assert "--data.train 'my set:train' --model.classes '[\"cat\", \"dog\"]'" in told
    with pytest.raises(SystemExit):
        main(["data", "import", str(source), str(tmp_path / "my set")])
    assert "it exists; name a new folder" in capsys.readouterr().err


def test_paths_as_windows_writes_them_and_folders_that_are_links(tmp_path):
    source = yolo(tmp_path / "export")
    (source / "images").rename(tmp_path / "elsewhere")
    (source / "images").mkdir()
    (source / "images/cam").symlink_to(tmp_path / "elsewhere")
    (source / "labels").rename(tmp_path / "cam")
    (source / "labels").mkdir()
    (tmp_path / "cam").rename(source / "labels/cam")
    text(source / "data.yaml", r"train: .\images", "names: ['cat ', dog]")
    photo(source / r"images/cam/a\b.jpg", 9)
    done = import_export(source, tmp_path / "set")
    assert done.table["images"].sum() == 6 and done.classes == ("cat", "dog")
    assert check_folder(tmp_path / "set").empty


def test_a_split_that_no_data_can_be_named_by_is_refused(tmp_path):
    photo(tmp_path / "export/fold+1/a.jpg")
    xml(tmp_path / "export/fold+1/a.xml", "a.jpg", thing("cat", 1, 1, 9, 9))
    with pytest.raises(InputError, match=r"its split 'fold\+1' has one of the signs"):
        import_export(tmp_path / "export", tmp_path / "new")


def test_an_id_is_the_same_as_a_whole_and_as_a_decimal_number(tmp_path):
    """pandas writes a column of ids with a gap as 1.0."""
    photo(tmp_path / "export/a.jpg")
    label = marked(1, 1.0, 2.0, [1, 1, 9, 9])
    kinds = [{"id": 2, "name": "cat"}]
    coco(tmp_path / "export/result.json", [entry(1, "a.jpg")], [label], kinds)
    _, record = imported(tmp_path / "export", ("cat",))["a"]
    assert record.labels.tolist() == [1]


def test_the_printed_options_train(tmp_path, capsys):
    """Spaces in the folder's name; YAML's own reading of the class names."""
    from jsonargparse import ArgumentParser

    from als.config import TrainConfig

    source = yolo(tmp_path / "e")
    text(source / "data.yaml", "train: images", 'names: ["yes", "1"]')
    main(["data", "import", str(source), str(tmp_path / "my set"), "--val", "0.4"])
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("als train"))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    config = parser.instantiate(parser.parse_args(shlex.split(line)[3:]))
    assert (config.data.root, config.data.train) == (str(tmp_path), "my set:train")
    assert config.model.classes == ("yes", "1")
    both = load_records(" my set:train + my set : val ", tmp_path, ["yes"])
    assert len(both) == 5
    for wrong in ("my set", "a:b:c", "../a:b", " :a", "a: "):
        with pytest.raises(InputError, match="names no data"):
            load_records(wrong, tmp_path, ["yes"])


def test_nothing_is_half_written(tmp_path):
    source = yolo(tmp_path / "export")
    with pytest.raises(InputError, match="give shares from 0, together under 1"):
        import_export(source, tmp_path / "new", val=0.5, test=0.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be read or written"):
        import_export(source, tmp_path / "file" / "new")
    for label in (source / "labels").iterdir():
        label.write_text("7 0.5 0.5 0.5 0.5\n")
    with pytest.raises(InputError, match="no object can be used: 5 files .* class 7 is none of"):
        import_export(source, tmp_path / "new")
    with pytest.raises(InputError, match="there is no export in it"):
        import_export(tmp_path / "labels", tmp_path / "new")
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it"):
        import_export(tmp_path / "export.zip", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "export.zip", "file"]


def test_splits_of_an_export_are_not_drawn_again(tmp_path):
    source = yolo(tmp_path / "export")
    text(source / "data.yaml", "train: images", "val: more/images", "names: [cat, dog]")
    photo(source / "more/images/v.jpg")
    text(source / "more/labels/v.txt", "0 0.5 0.5 0.5 0.5")
    with pytest.raises(InputError, match="has the splits train, val, which are kept"):
        import_export(source, tmp_path / "new", val=0.2)


def test_who_takes_an_export_for_a_data_set_is_told_of_the_command(tmp_path):
    yolo(tmp_path / "yolo")
    labels = [{"id": 0, "name": "cat"}]
    told = [marked(0, 0, 0, [1, 2, 10, 10])]
    coco(tmp_path / "cvat/annotations/instances_default.json", [entry(0, "a.jpg")], told, labels)
    photo(tmp_path / "cvat/images/a.jpg")
    coco(tmp_path / "robo/train/_annotations.coco.json", [entry(0, "a.jpg")], told, labels)
    photo(tmp_path / "robo/train/a.jpg")
    text(tmp_path / "voc/labelmap.txt", "# label:color_rgb:parts:actions", "ant:1,2,3::")
    text(tmp_path / "voc/ImageSets/Main/default.txt", "a")
    photo(tmp_path / "voc/JPEGImages/a.jpg")
    xml(tmp_path / "voc/Annotations/a.xml", "a.jpg", thing("ant", 1, 1, 9, 9))
    for spec in ("yolo:train", "cvat:default", "robo:train", "voc:default"):
        folder = tmp_path / spec.partition(":")[0]
        with pytest.raises(InputError, match=f"`als data import '{folder}' NEW`"):
            load_records(spec, tmp_path, ["cat"])
    with pytest.raises(InputError, match=f"`als data import '{tmp_path / 'yolo'}' NEW`"):
        check_folder(tmp_path / "yolo")


def test_a_broken_data_set_is_not_taken_for_an_export(toy_root, tmp_path):
    broken = shutil.copytree(toy_root / "VOC2012", tmp_path / "VOC2012")
    (broken / "JPEGImages/toy_000000.jpg").unlink()
    with pytest.raises(InputError) as error:
        load_records("VOC2012:train", tmp_path, ["circle"])
    assert "als data import" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "lines", "told"),
    [
        ("data.yaml", ["names: [cat]", "train: images", "kpt_shape: abc"], "cannot be read"),
        ("data.yaml", ["names: [cat]", "train: images", "path: [a]"], "cannot be read"),
        ("data.yaml", ["names: [cat]", "train: [{a: b}]"], "cannot be read"),
        ("data.yaml", ["names: [cat, '']", "train: images"], "'names' cannot be read"),
        ("data.yaml", ["names: [cat]"], "there is no photograph in it"),
        ("data.yaml", ['path: "C:\\data"', "names: [cat]"], "data.yaml: it cannot be read (while"),
        ("data.yaml", ["train: images", "nc: 1"], "data.yaml: it has no 'names'; mend it"),
        ("result.json", ["[" * 100_000], "nested too deeply"),
        ("result.json", ['{"images": [null], "annotations": [], "categories": []}'], "entry 0"),
        ("labelmap.txt", ["c\0t"], "cannot be read (a null character)"),
        ("labelmap.txt", ["cat"], "no object can be used"),
        ("labelmap.txt", ["cat:red::"], "the line 'cat:red::' is not NAME:RED,GREEN,BLUE"),
    ],
)  # fmt: skip
def test_a_broken_file_of_the_whole_export_is_one_sentence(tmp_path, name, lines, told):
    photo(tmp_path / "export" / "images" / "a.jpg")
    text(tmp_path / "export" / name, *lines)
    with pytest.raises(InputError, match=re.escape(told)):
        import_export(tmp_path / "export", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"val": float("nan")}, "give shares"),
        ({"seed": -1}, "seed -1"),
        ({"val": 0.9}, "of 1 photo"),
    ],
)
def test_shares_and_seeds_that_are_none_are_refused(tmp_path, options, told):
    text(tmp_path / "export/classes.txt", "cat")
    photo(tmp_path / "export/images/a.jpg")
    text(tmp_path / "export/labels/a.txt", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=told):
        import_export(tmp_path / "export", tmp_path / "new", **options)


def test_a_class_that_is_named_twice_is_one(tmp_path):
    """`--model.classes` of the command that is printed takes each name once."""
    text(tmp_path / "export/classes.txt", "cat", "cat", "dog")
    photo(tmp_path / "export/images/a.jpg")
    text(tmp_path / "export/labels/a.txt", "0 0.2 0.2 0.2 0.2", "1 0.5 0.5 0.2 0.2")
    done = import_export(tmp_path / "export", tmp_path / "new")
    assert done.classes == ("cat", "dog") and done.table["cat"].tolist() == [2]


def test_odd_files_cost_their_own_photograph(tmp_path):
    source = tmp_path / "export"
    for name in ("a", "b", "c"):
        photo(source / f"{name}.jpg", seed=ord(name))
    xml(source / "a.xml", "a.jpg", thing("cat", 2, 2, 20, 10))
    text(source / "b.xml", '<?xml version="1.0" encoding="foo"?><annotation/>')
    outline = "<polygon><x1/><y1>2</y1></polygon>"
    xml(source / "c.xml", "c.jpg", thing("cat", 2, 2, 20, 10, more=outline))
    assert list(imported(source, ["cat"], val=0)) == ["a"]
    assert left_out(source) == [
        "photograph b.jpg: b.xml: the XML cannot be read (unknown encoding: foo); export it again",
        "photograph c.jpg: a value of <polygon> is missing or null; write a number",
    ]


def test_a_file_name_too_long_is_no_image(tmp_path):
    photo(tmp_path / "export/a.jpg")
    entries = [entry(1, "a.jpg"), entry(2, "b" * 300 + ".jpg")]
    categories = [{"id": 1, "name": "cat"}]
    coco(tmp_path / "export/result.json", entries, [marked(1, 1, 1, [1, 1, 9, 9])], categories)
    assert list(imported(tmp_path / "export", ["cat"], val=0)) == ["a"]
    assert "there is no such image" in left_out(tmp_path / "export")[0]


def mask_of(source: Path, kind: str, colours: bytes | None, box: tuple, value: int) -> None:
    """A mask that has one value in a box."""
    x1, y1, x2, y2 = box
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[y1:y2, x1:x2] = value
    image = Image.fromarray(values)
    if colours:
        image.putpalette(colours)
    (source / kind).mkdir(parents=True)
    image.save(source / kind / "a.png")


@pytest.mark.parametrize("listed", [None, ["_background_", "cat"], ["fish"]])
def test_masks_of_voc_by_the_class_list_as_its_readers_take_it(tmp_path, listed):
    """classes.txt may begin with the background; a class outside it has no pixel of a class mask.

    Nor do numbers need VOC's colours: the mask of objects is grey here.
    """
    source, inside = tmp_path / "export", (4, 4, 16, 8)
    photo(source / "JPEGImages/a.jpg")
    xml(source / "Annotations/a.xml", "a.jpg", thing("cat", 3, 3, 20, 10))
    value = 8 if listed is None else 1  # of VOC's cat
    mask_of(source, "SegmentationClass", palette(), inside, value)
    if listed:
        text(source / "classes.txt", *listed)
    if listed is None:
        mask_of(source, "SegmentationObject", None, inside, 1)
    _, record = imported(source, ["cat"] if listed != ["fish"] else ["fish", "cat"], val=0)["a"]
    drawn = read_class_map(record, ["cat"]) if record.mask else None
    if listed == ["fish"]:
        assert drawn is None or not (drawn == 1).any()
    else:
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[4:8, 4:16] = 1
        assert np.array_equal(drawn, expected)


def test_masks_made_from_boxes_are_not_imported_as_true(tmp_path):
    pytest.importorskip("cv2", reason="needs OpenCV, the extra 'masks'")
    from als.data.derived_masks import derive_masks

    for kind in ("voc", "coco"):
        source = tmp_path / kind / "export"
        if kind == "voc":
            photo(source / "JPEGImages/a.jpg")
            xml(source / "Annotations/a.xml", "a.jpg", thing("cat", 3, 3, 30, 18))
            text(source / "ImageSets/Main/train.txt", "a")
        else:
            photo(source / "train/a.jpg")
            category = {"id": 1, "name": "cat"}
            annotation = marked(1, 1, 1, [2, 2, 28, 16])
            file = source / "annotations/instances_train.json"
            coco(file, [entry(1, "a.jpg")], [annotation], [category])
        assert derive_masks(source, tell=lambda told: None) == 1
        _, record = imported(source, ["cat"])["a"]
        assert record.mask is None and record.boxes.tolist() == [[2, 2, 30, 18]]
        notes = json.loads((source.parent / "new set/import.json").read_text())["notes"]
        assert any("1 " in note and "made from boxes" in note for note in notes)


def test_more_objects_than_a_pixel_has_values_keep_their_outlines(tmp_path):
    source = tmp_path / "export"
    photo(source / "JPEGImages/a.jpg")
    text(source / "labelmap.txt", "background:0,0,0::", "cat:128,0,0::")
    many = [thing("cat", 30, 10, 31 + k / 1000, 15) for k in range(300)]
    xml(source / "Annotations/a.xml", "a.jpg", *many, thing("cat", 2, 3, 7, 6))
    for kind in ("SegmentationClass", "SegmentationObject"):
        mask_of(source, kind, palette(), (2, 3, 7, 6), 1)
    _, record = imported(source, ["cat"], val=0)["a"]
    drawn = read_object_map(record, ["cat"])
    assert (drawn[3:6, 2:7] == 1).all() and (drawn == 1).sum() == 15


@pytest.mark.parametrize(
    "lists",
    [
        {"train": "ab", "val": "cd", "trainval": "abcd", "cat_train": ["a -1", "b  1"]},
        {"train": "abc", "val": "d", "all": "abcd"},
        {"val": "d", "trainval": "abcd"},
    ],
)
def test_voc_s_lists_of_one_class_and_of_all_images_are_no_splits(tmp_path, lists):
    """The shortest list that names an image is its split; VOC's own classes need no classes.txt."""
    source = tmp_path / "export"
    for name in "abcd":
        photo(source / f"JPEGImages/{name}.jpg")
        xml(source / f"Annotations/{name}.xml", f"{name}.jpg", thing("cat", 2, 2, 9, 9))
    for split, names in lists.items():
        text(source / f"ImageSets/Main/{split}.txt", *names)
    found = {name: split for name, (split, _) in imported(source, ["cat"]).items()}
    first = "train" if "train" in lists else "trainval"
    assert found == {name: "val" if name in lists["val"] else first for name in "abcd"}


def test_a_photograph_that_is_listed_twice_with_other_objects_is_left_out(tmp_path):
    source = tmp_path / "export"
    for name in ("a", "b"):
        photo(source / f"train/{name}.jpg")
    things = [marked(n, n, 1, [n, 2, 9, 9]) for n in (1, 2, 3)]
    images = [entry(1, "a.jpg"), entry(2, "a.jpg"), entry(3, "b.jpg")]
    coco(source / "train/_annotations.coco.json", images, things, [{"id": 1, "name": "cat"}])
    assert list(imported(source, ["cat"], val=0)) == ["b"]
    assert all("more than once" in told for told in left_out(source))


def test_voc_s_lists_of_a_class_of_one_s_own_are_no_splits(tmp_path):
    source = tmp_path / "export"
    for name, kind in {"a": "hen", "b": "cow1"}.items():
        photo(source / f"JPEGImages/{name}.jpg")
        xml(source / f"Annotations/{name}.xml", f"{name}.jpg", thing(kind, 2, 2, 9, 9))
    for split, name in {"train": "a", "val": "b"}.items():
        text(source / f"ImageSets/Main/{split}.txt", name)
        text(source / f"ImageSets/Main/cow1_{split}.txt", f"{name} -1")
    done = import_export(source, tmp_path / "new")
    assert list(done.table.index) == ["train", "val"]


def test_one_label_file_of_two_images_of_yolo_is_nobody_s(tmp_path):
    source = tmp_path / "export"
    for number, name in enumerate(("a.jpg", "a.png", "b.jpg")):
        photo(source / "images" / name, number)
    text(source / "classes.txt", "cat")
    for name in "ab":
        text(source / f"labels/{name}.txt", "0 .5 .5 .2 .2")
    assert list(imported(source, ["cat"], val=0)) == ["b"]
    assert any("that of a.jpg and a.png" in told for told in left_out(source))


def test_a_blank_line_among_yolo_s_classes_is_refused(tmp_path):
    source = tmp_path / "export"
    photo(source / "images/a.jpg")
    text(source / "classes.txt", "cat", "", "dog", "hen", "")
    text(source / "labels/a.txt", "2 .5 .5 .2 .2")
    with pytest.raises(InputError, match="a line is blank"):
        import_export(source, tmp_path / "new")


def test_lists_of_voc_with_endings(tmp_path):
    source = tmp_path / "export"
    for split, name in {"train": "a", "val": "b"}.items():
        photo(source / f"JPEGImages/{name}.jpg")
        xml(source / f"Annotations/{name}.xml", f"{name}.jpg", thing("cat", 2, 2, 9, 9))
        text(source / f"ImageSets/Main/{split}.txt", f"{name}.jpg")
    found = imported(source, ["cat"])
    assert {name: split for name, (split, _) in found.items()} == {"a": "train", "b": "val"}


def test_labels_beside_photographs_below_a_folder_called_images(tmp_path):
    source = tmp_path / "images/export"
    photo(source / "train/a.jpg")
    text(source / "train/a.txt", "0 .5 .5 .2 .2")
    text(source / "data.yaml", "names: [cat]", "train: train")
    assert boxes(imported(source, ["cat"])["a"][1]) == [[1, 16, 8, 24, 12]]


def test_class_names_of_an_export_are_printed_as_they_can_be_given(tmp_path, capsys):
    """Signs beyond 16 bits would be two escapes, which YAML does not join."""
    for folder in ("images", "labels"):
        (tmp_path / "export" / folder).mkdir(parents=True)
    (tmp_path / "export" / "data.yaml").write_text("train: images\nnames: ['𠮷', dog]", "utf-8")
    Image.new("RGB", (40, 30)).save(tmp_path / "export" / "images" / "a.jpg")
    (tmp_path / "export" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    main(["data", "import", str(tmp_path / "export"), str(tmp_path / "new")])
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("als train"))
    config, _, _ = read_options(shlex.split(line)[3:])
    assert config.model.classes == ("𠮷", "dog")
