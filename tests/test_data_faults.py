"""Faults of exported data, kind by kind: what is read, or the sentence; and check says the same."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from als.data.check import check_folder
from als.data.convert import to_coco
from als.data.layouts import load_records
from als.data.masks import read_object_map
from als.data.rle import pack, read_runs
from als.errors import InputError
from als.evaluation.detections import Detections
from als.evaluation.evaluate import judge

SIZE = (40, 60)  # height, width
BOX = (10, 10, 20, 15)  # x y width height
CLASSES = ("cat", "dog")


def write_coco(root: Path, change=lambda content: None, images=("a.jpg", "b.jpg")) -> Path:
    """Two grey images with a cat each, as COCO's layout `set:val`; `change` breaks the content."""
    folder = root / "set"
    (folder / "annotations").mkdir(parents=True)
    for name in images:
        path = folder / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], "grey").save(path)
    content = {
        "images": [
            {"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for k, name in enumerate(images, start=1)
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": list(BOX), "iscrowd": 0}
            | {"area": 300, "segmentation": [[10, 10, 30, 10, 30, 25, 10, 25]]}
            for k in range(1, len(images) + 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)],
    }
    text = change(content)
    path = folder / "annotations" / "instances_val.json"
    path.write_text(text if isinstance(text, str) else json.dumps(content), encoding="utf-8")
    return folder


def an_object(name="cat", box=(11, 11, 30, 25), more="") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bndbox = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    return f"<object><name>{name}</name>{more}<bndbox>{bndbox}</bndbox></object>"


def write_voc(root: Path, listing: str, xmls: dict[str, str], images=None) -> Path:
    """VOC's layout `set:val`; xmls: of each id what stands in <annotation>. A jpg for each."""
    folder = root / "set"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "val.txt").write_text(listing, encoding="utf-8")
    for image_id, xml in xmls.items():
        path = folder / "Annotations" / f"{image_id}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(xml if xml.startswith("<?") else f"<annotation>{xml}</annotation>")
    for name in images or [f"{image_id}.jpg" for image_id in xmls]:
        path = folder / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", SIZE[::-1], "grey")
        image.save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
    return folder


def read(folder: Path):
    """(records, sentences) of a sound set; check tells the same sentences, to-coco takes it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        records = load_records("set:val", folder.parent, CLASSES)
    told: list[str] = []
    assert check_folder(folder, CLASSES, told.append).empty
    sentences = [str(warning.message) for warning in caught]
    assert set(sentences) <= set(told)
    if (folder / "JPEGImages").is_dir():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            to_coco(folder, ["val"], folder.parent / "converted")
            again = load_records("converted:val", folder.parent, ("cat",))
        assert [record.image_id for record in again] == [record.image_id for record in records]
        assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(records, again, strict=True))
    return records, " ".join(sentences)


def refused(folder: Path) -> str:
    """The sentence about a broken set; check finds its problem too."""
    with pytest.raises(InputError) as error:
        load_records("set:val", folder.parent, CLASSES)
    problems = check_folder(folder, CLASSES)
    sentence = f"{problems['file'][0]}: {problems['problem'][0]}."
    assert str(error.value).startswith(sentence) or problems["problem"][0] in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 700
    if (folder / "JPEGImages").is_dir():
        with pytest.raises(InputError):
            to_coco(folder, ["val"], folder.parent / "converted")
        assert not (folder.parent / "converted").exists()
    return str(error.value)


def perfect(records) -> dict[str, float]:
    """The figures of detections that are the objects themselves."""
    found = [Detections(r.boxes, r.labels, np.full(len(r.labels), 0.9)) for r in records]
    return judge(found, records, CLASSES)[0]


def set_ids(*ids):
    def change(content):
        for annotation, id_ in zip(content["annotations"], ids, strict=True):
            annotation["id"] = id_

    return change


def of_all(**fields):
    """Set fields of all annotations; None there is null, ... takes the field away."""

    def change(content):
        for annotation in content["annotations"]:
            annotation.update(fields)
            for name, value in fields.items():
                if value is ...:
                    del annotation[name]

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_ids(0, 1),
        set_ids(5, 5),
        set_ids("a", "b"),
        set_ids(None, "b"),
        of_all(id=...),
        of_all(area=None),
        of_all(area=..., iscrowd=...),
        of_all(area="", iscrowd=None),
        of_all(area=-1),
        of_all(area=1e12),
        of_all(bbox=["10", "10", "20", "15.0"]),
        of_all(iscrowd=False),
        of_all(segmentation=None),
        lambda content: "\ufeff" + json.dumps(content),
        lambda content: [entry.update(width=60.0, height="40") for entry in content["images"]],
        lambda content: [entry.update(width=None, height=0) for entry in content["images"]],
        lambda content: content["categories"].insert(0, {"id": 0, "name": "cat"}),
        lambda content: [entry.update(id=entry["id"] + 0.0) for entry in content["images"]],
    ],
)
def test_what_can_have_one_meaning_only_is_read_and_judged_right(tmp_path, change):
    records, _ = read(write_coco(tmp_path, change))
    assert [record.boxes.tolist() for record in records] == [[[10, 10, 30, 25]]] * 2
    metrics = perfect(records)
    assert metrics["COCO_AP"] == metrics["AP"] == metrics["COCO_APs"] == 1


def test_areas_are_derived_from_the_polygon_or_the_box_and_told(tmp_path):
    def change(content):
        of_all(area=None)(content)
        content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 10, 25]]
        content["annotations"][1]["segmentation"] = []

    records, told = read(write_coco(tmp_path, change))
    assert "2 annotations without an area that can be meant" in told
    assert records[1].coco.areas.tolist() == [300]
    assert records[0].coco.areas == pytest.approx(150, abs=15)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_all(bbox=None), r"annotation 1: bbox is missing or null; write x, y, width, height"),
        (of_all(bbox=[1, 2, 3]), r"bbox is \[1, 2, 3\]; write x, y"),
        (of_all(bbox=[1, None, 3, 4]), "y of bbox is missing or null; write a number"),
        (of_all(bbox=[1, "two", 3, 4]), "y of bbox is 'two'; write a number"),
        (of_all(bbox=[1, 2, float("inf"), 4]), "width of bbox is inf; write a number"),
        (of_all(bbox=[1, 2, 10**400, 4]), "width of bbox is 1000.*; write a number"),
        (of_all(iscrowd="no"), "iscrowd is 'no'; write 0 or 1"),
        (of_all(iscrowd=2), "iscrowd is 2; write 0 or 1"),
        (of_all(image_id=None), "image_id missing or null, which the file does not list"),
        (of_all(image_id="1"), "annotation 1 has image_id '1', which the file does not list"),
        (of_all(category_id=[1]), r"category_id \[1\], which the file does not list"),
        (of_all(segmentation="x"), "segmentation is 'x'; write polygons or an RLE"),
        (of_all(segmentation=[[1, 2, 3, float("nan"), 5, 6]]), "is nan; write a number"),
        (of_all(segmentation=[[0, 0, 4e8, 0, 4e8, 4e8]]), "more than 1,000,000 pixels"),
        (of_all(segmentation=[[0, 0, 30, 0] * 20000]), "more than 1,000,000 pixels"),
        (of_all(segmentation={"counts": [2400]}), "size of the RLE is missing or null"),
        (of_all(segmentation={"size": [40, 60], "counts": "0"}), "RLE of 0 pixels, not 40 x 60"),
        (of_all(segmentation={"size": [40, 60], "counts": "~~"}), "not COCO's code"),
        (of_all(segmentation={"size": [40, 60], "counts": "P" * 20}), "not COCO's code"),
        (of_all(segmentation={"size": [40, 60], "counts": [2400.5]}), "write whole numbers"),
        (of_all(segmentation={"size": [40, 60], "counts": [-1, 2401]}), "RLE of 2400 pixels"),
        (
            lambda c: (of_all(segmentation=[])(c), c["images"][0].update(void={"counts": [2400]})),
            "size of the RLE is missing",
        ),
        (lambda c: c["images"][0].update(width=float("inf")), "width is inf; write a number"),
        (lambda c: c["images"][0].update(width=60.5), "width is 60.5; write a whole number"),
        (lambda c: c["images"][0].update(width=9**9), "over the limit of 40 megapixels"),
        (lambda c: c["images"][0].update(id=2), "images 'a.jpg' and 'b.jpg' have one id, 2"),
        (lambda c: c["images"][0].update(id=None), r"id of image 0 \(from 0\) is missing or null"),
        (lambda c: c["images"][1].update(file_name="a.jpg"), "images 1 and 2 are both a.jpg; take"),
        (lambda c: c["images"][0].update(file_name=None), "file_name of image 0 .*write text"),
        (lambda c: c["images"][0].update(file_name="\ud800.jpg"), r"'\\ud800.jpg', which is no te"),
        (lambda c: c["images"][0].update(file_name="c" * 300), "there is no such image"),
        (lambda c: c["images"][0].update(file_name="../set/x.jpg"), "there is no such image"),
        (lambda c: c["categories"][0].update(name="\ud800"), "name of category 0 .* no text"),
        (lambda c: c["categories"][0].update(id=2), "two of its categories have the id 2"),
        (lambda c: c["images"].append(3), r"entry 2 \(from 0\) of 'images' is 3"),
        (lambda c: c.update(images={}), "it has no list of 'images'"),
        (lambda c: "[" * 100000, "nested too deeply"),
        (lambda c: c["annotations"][0].update(x=json.loads("[" * 900 + "]" * 900), bbox=0), "bbox"),
    ],
)
def test_what_cannot_be_meant_is_said_with_file_entry_and_element(tmp_path, change, says):
    sentence = refused(write_coco(tmp_path, change))
    assert "instances_val.json" in sentence and re.search(says, sentence), sentence


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 70, (40, 2)).tolist():
        inside = np.kron(rng.random((height, width)) < 0.4, np.ones((1 + width % 3, 2))) > 0
        runs = mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        given = {"size": list(inside.shape), "counts": runs["counts"].decode()}
        assert pack(given, inside.shape) == runs["counts"]
        assert np.array_equal(read_runs(runs["counts"], inside.shape), inside)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("cam1/0001.jpg", "cam2/0001.jpg"), None),
        (("cam1\\0001.jpg", "cam2\\0001.jpg"), ("cam1/0001.jpg", "cam2/0001.jpg")),
        (("a.png", "b.jpg"), ("a.JPEG", "b.JPG")),
        (("a.png", "a.jpg"), None),
        (("/home/x/data/a.jpg", "C:\\data\\b.jpg"), ("a.jpg", "b.jpg")),
        (("images/val/a.jpg", "val/cam/a.jpg"), ("a.jpg", "cam/a.jpg")),
        (("../upload/a.jpg", "data/b.jpg"), ("a.jpg", "b.jpg")),
        (("photo (1).jpg", "фото 2.jpg"), None),
    ],
)
def test_file_names_of_all_kinds_find_their_image(tmp_path, names, files):
    files = files or names

    def change(content):
        for entry, name in zip(content["images"], names, strict=True):
            entry["file_name"] = name

    records, told = read(write_coco(tmp_path, change, images=files))
    assert [r.path.relative_to(tmp_path / "set" / "val").as_posix() for r in records] == list(files)
    assert len({record.image_id for record in records}) == 2
    assert ("name another folder" in told) == names[0].startswith(("/", "images", ".."))
    assert perfect(records)["COCO_AP"] == perfect(records)["AP50_area"] == 1


def test_a_name_is_not_found_where_it_may_be_another_photograph(tmp_path):
    names = ("cam1/a.jpg", "a.jpg")
    folder = write_coco(tmp_path, images=names)
    (folder / "val" / "cam1" / "a.jpg").unlink()
    assert "cam1/a.jpg: there is no such image, which instances_val.json calls" in refused(folder)


def test_boxes_clipped_to_nothing_are_no_object_in_either_layout(tmp_path):
    def change(content):
        more = [{"bbox": box} for box in ([60, 5, 0.8, 9], [5, 40.2, 9, 0.5], [1e8, 1, 1e-9, 2])]
        content["annotations"] += [{"image_id": 1, "category_id": 1} | one for one in more[:2]]

    records, told = read(write_coco(tmp_path / "coco", change))
    assert "2 objects have a box of no area inside their image" in told
    assert records[0].boxes.tolist() == [[10, 10, 30, 25]] and perfect(records)["COCO_AP"] == 1
    xml = an_object() + an_object(box=(61, 5, 61, 9)) + an_object(box=(5, 41, 9, 41))
    records, told = read(write_voc(tmp_path / "voc", "a\n", {"a": xml}))
    assert "2 objects have a box of no area" in told and "object 2 of a, object 3 of a" in told
    assert records[0].boxes.tolist() == [[10, 10, 30, 25]] and perfect(records)["AP"] == 1


@pytest.mark.parametrize(
    ("listing", "images", "ids"),
    [
        ("photo (1)\n", ["photo (1).jpg", "photo.jpg"], ["photo (1)"]),
        ("photo 1\nphoto 2", ["photo 1.jpg", "photo 2.jpg"], ["photo 1", "photo 2"]),
        ("my photo -1\nphoto  1\n", ["my photo.jpg", "photo.jpg"], ["my photo", "photo"]),
        ("cam1/0001\ncam2/0001", ["cam1/0001.jpg", "cam2/0001.jpg"], ["cam1/0001", "cam2/0001"]),
        ("cam1\\0001 1", ["cam1/0001.jpg"], ["cam1/0001"]),
        ("a\nb\nc\nd", ["a.JPG", "b.jpeg", "c.PNG", "d.jpg"], ["a", "b", "c", "d"]),
        ("a.jpg\nb.v2", ["a.jpg", "b.v2.jpg"], ["a", "b.v2"]),
        ("\ufeffa\r\n", ["a.jpg"], ["a"]),
        ("a -1\na 1\nb\nb\n", ["a.jpg", "b.jpg"], ["a", "b"]),
    ],
)
def test_ids_of_all_kinds_find_their_image(tmp_path, listing, images, ids):
    stems = {name.rpartition(".")[0]: an_object() for name in images}
    records, told = read(write_voc(tmp_path, listing, stems, images))
    assert [record.image_id for record in records] == ids
    assert ("2 lines list an image again" in told) == ("b\nb" in listing)
    assert perfect(records)["AP50_area"] == 1


@pytest.mark.parametrize(
    ("listing", "images", "says"),
    [
        ("a\n", ["a.jpg", "a.png"], "two images fit, a.jpg and a.png"),
        ("photo 1", ["photo 1.jpg", "photo.jpg"], "may be the image 'photo 1', or 'photo' with a"),
        ("../JPEGImages/a", ["a.jpg"], "leads out of this folder"),
        ("/etc/passwd", ["a.jpg"], "leads out of this folder"),
        ("b\n", ["a.jpg"], "JPEGImages/b.jpg: there is no such image"),
    ],
)
def test_ids_that_fit_none_or_two_are_said(tmp_path, listing, images, says):
    stems = {name.rpartition(".")[0]: an_object() for name in images}
    assert says in refused(write_voc(tmp_path, listing, stems, images))


@pytest.mark.parametrize(
    "xml",
    [
        an_object(more="<difficult>Unspecified</difficult>"),
        an_object(more="<difficult/>"),
        an_object(more="<difficult> 0 </difficult>"),
        "<size><width>60.0</width><height>40.0</height></size>" + an_object(),
        "<size><width/><height></height></size>" + an_object(),
        "<size><width>0</width><height>0</height><depth>3</depth></size>" + an_object(),
        an_object(name=" cat "),
    ],
)
def test_xml_that_can_have_one_meaning_only_is_read(tmp_path, xml):
    (record,), _ = read(write_voc(tmp_path, "a", {"a": xml}))
    assert record.boxes.tolist() == [[10, 10, 30, 25]] and record.size == SIZE
    assert record.difficult.tolist() == [False]


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (
            an_object(more="<difficult>maybe</difficult>"),
            "object 1 ('cat'): <difficult> is 'maybe'",
        ),
        (an_object(box=(1, 2, "", 4)), "object 1 ('cat'): <xmax> is empty; write a number"),
        (an_object(box=(1, 2, "inf", 4)), "<xmax> is 'inf'; write a number"),
        (an_object(box=(11, 11, 300, 25)), "object 1 ('cat'): box 11 11 300 25 lies outside"),
        ("<object><bndbox/></object>", "object 1 has no <name>"),
        ("<object><name>cat</name></object>", "object 1 ('cat') has no <bndbox>"),
        ("<object><name>cat</name><bndbox/></object>", "<xmin> is missing or null"),
        ("<size><width>a</width><height>40</height></size>", "width is 'a'; write a number"),
        ("<size><width>inf</width><height>40</height></size>", "width is 'inf'; write a number"),
        ("<size><width>-60</width><height>40</height></size>", "width is '-60'; write a whole"),
        (an_object() + "<objects>" + an_object() + "</objects>", "of 2 elements like <object>, 1"),
        (an_object().replace("object", "Object"), "of 1 elements like <object>, 0"),
        ("<?xml version='1.0'?><doc>" + an_object() + "</doc>", "its root is <doc>"),
        ("<?xml version='1.0'?><annotation xmlns='u'/>", "its root is <{u}annotation>"),
        (an_object(more="<difficult>1</difficult>"), "nothing to train on: all 1 objects"),
    ],
)
def test_xml_that_cannot_be_meant_is_said_with_object_and_element(tmp_path, xml, says):
    assert says in refused(write_voc(tmp_path, "a", {"a": xml}))


def mask_of(folder: Path, image_id: str, value: int) -> None:
    """A class mask whose object fills the box of `an_object`."""
    (folder / "SegmentationClass").mkdir(exist_ok=True)
    values = np.zeros(SIZE, np.uint8)
    values[10:25, 10:30] = value
    Image.fromarray(values).save(folder / "SegmentationClass" / f"{image_id}.png")


@pytest.mark.parametrize(
    ("classes", "value", "says"),
    [
        ("_background_\ncat\ndog", 1, None),
        ("__ignore__\n_background_\ncat\ndog", 1, None),
        ("Background\ndog\ncat", 2, None),
        ("cat\nbackground", 1, "'background' is no class and stands below one"),
        ("cat\ndog\ncat", 1, "it names 'cat' twice"),
        ("background\n", 1, "it names no class"),
        ("dog\ncat", 1, "the mask shows dog by "),
        ("cat", 255, "the mask shows no class by "),
        (None, 1, "the mask shows aeroplane by VOC's list of classes, for want of "),
        ("cat", 2, "the mask shows value 2 by "),
    ],
)
def test_a_class_list_fits_the_values_of_the_masks_or_is_refused(tmp_path, classes, value, says):
    folder = write_voc(tmp_path, "a\nb", {"a": an_object(), "b": an_object()})
    for image_id in "ab":
        mask_of(folder, image_id, value)
    if classes is not None:
        (folder / "classes.txt").write_text(classes)
    if says is None:
        records, _ = read(folder)
        assert all(read_object_map(record, CLASSES)[10:25, 10:30].all() for record in records)
        assert sum((read_object_map(record, CLASSES) == 1).sum() for record in records) == 600
    else:
        assert says in refused(folder)


def test_data_without_an_object_that_counts_are_refused(tmp_path):
    folder = write_coco(tmp_path, of_all(iscrowd=1))
    told = "nothing to train on: all 2 objects are marked difficult or are crowds"
    assert told in refused(folder)


def test_objects_that_stand_twice_are_told(tmp_path):
    xml = an_object() + an_object(more="<difficult>1</difficult>")
    folder = write_voc(tmp_path, "a\nb", {"a": xml + an_object("dog"), "b": an_object() * 2})
    with pytest.warns(UserWarning, match="1 objects stand twice, .* in images as b;"):
        load_records("set:val", tmp_path, CLASSES)
    told: list[str] = []
    assert check_folder(folder, CLASSES, told.append).empty
    assert any("1 objects stand twice" in sentence for sentence in told)


def test_a_broken_image_is_no_part_of_a_conversion(toy_root, tmp_path):
    folder = shutil.copytree(toy_root / "VOC2012", tmp_path / "set")
    image = folder / "JPEGImages" / "toy_000004.jpg"
    image.write_bytes(image.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"toy_000004\.jpg: the file is damaged or cut short"):
        to_coco(folder, ["train"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_and_splits_may_hold_spaces(tmp_path):
    folder = write_voc(tmp_path, "a", {"a": an_object()})
    (folder / "ImageSets" / "Main" / "val.txt").rename(folder / "ImageSets/Main/my val.txt")
    folder.rename(tmp_path / "my set (2)")
    (record,) = load_records(" my set (2):my val ", tmp_path, CLASSES)
    assert record.image_id == "a"
