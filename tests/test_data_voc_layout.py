"""Records from the VOC layout: hand-written XML and what a user can get wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from als.classes import VOC_CLASSES
from als.data.layouts import load_records
from als.data.record import Problem, fingerprint
from als.data.toy import TOY_CLASSES
from als.data.voc_layout import class_names, read_annotation
from als.errors import InputError


def an_object(name="dog", box=(11, 21, 30, 40), difficult="<difficult>0</difficult>") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bndbox = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    return f"<object><name>{name}</name>{difficult}<bndbox>{bndbox}</bndbox></object>"


def add_image(root: Path, image_id: str, *objects: str, size=(100, 80), folder="VOC2007") -> None:
    """Write a grey image of size (width, height), its XML, and its line in the split `train`."""
    part = root / folder
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (part / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(part / "JPEGImages" / f"{image_id}.jpg")
    (part / "Annotations" / f"{image_id}.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{''.join(objects)}</annotation>"
    )
    with (part / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"{image_id}\n")


def load(root: Path, spec="VOC2007:train", classes=("cat", "dog"), **more):
    return load_records(spec, root, classes, **more)


def test_a_record_holds_half_open_boxes_and_labels_in_the_order_of_classes(tmp_path):
    hard = an_object("cat", (1, 1, 100, 80), "<difficult>1</difficult>")
    plain = an_object("dog", ("11.0", 21, 30, 40), difficult="")
    add_image(tmp_path, "a", hard, an_object("sofa"), plain)
    (record,) = load(tmp_path)
    assert record.size == (80, 100)
    assert record.boxes.dtype == np.float32 and record.labels.dtype == np.int64
    assert record.boxes.tolist() == [[0, 0, 100, 80], [10, 20, 30, 40]]
    assert record.labels.tolist() == [1, 2]
    assert record.difficult.tolist() == [True, False]
    assert record.mask is None
    assert load(tmp_path, classes=("dog", "cat"))[0].labels.tolist() == [2, 1]


def test_a_body_part_is_no_object_and_its_box_not_the_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    person = f"<object><name>person</name>{part}{an_object()[len('<object><name>dog</name>') :]}"
    add_image(tmp_path, "a", person)
    annotation = read_annotation(tmp_path / "VOC2007" / "Annotations" / "a.xml")
    assert annotation.names == ("person",)
    assert [one.corners for one in annotation.objects] == [[10, 20, 30, 40]]


def test_a_box_one_pixel_wide_is_kept_and_rounding_outside_is_clipped(tmp_path):
    add_image(tmp_path, "a", an_object(box=(5, 5, 5, 9)), an_object(box=(0, 1, 101, 80)))
    assert load(tmp_path)[0].boxes.tolist() == [[4, 4, 5, 9], [0, 0, 100, 80]]


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((20, 20, 19, 40), "no area"),
        ((30, 20, 10, 40), "no area"),
        ((20, 20, 40, "nan"), "<ymax> is 'nan'; write a number"),
        ((50, 20, 102, 40), "outside"),
        ((-1, 20, 40, 40), "outside"),
        ((1, 20, 40, 82), "outside"),
    ],
)
def test_an_impossible_box_is_reported_with_its_file(tmp_path, box, problem):
    add_image(tmp_path, "a", an_object(box=box))
    with pytest.raises(InputError, match=rf"a\.xml: .*{problem}"):
        load(tmp_path)


def test_all_problems_are_found_in_one_pass_and_the_rest_is_loaded(tmp_path):
    for image_id in "abcde":
        add_image(tmp_path, image_id, an_object())
    part = tmp_path / "VOC2007"
    (part / "JPEGImages" / "a.jpg").unlink()
    (part / "Annotations" / "b.xml").unlink()
    (part / "Annotations" / "c.xml").write_text("<annotation><object>")
    (part / "Annotations" / "d.xml").write_text("<annotation><object><name>dog</name></object>")
    found: list[Problem] = []
    assert [record.image_id for record in load(tmp_path, on_error=found.append)] == ["e"]
    assert [problem.file.name for problem in found] == ["a.jpg", "b.xml", "c.xml", "d.xml"]
    with pytest.raises(InputError, match=r"a\.jpg: .* one of 4 broken files"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\xfe no XML", b'<?xml version="1.0" encoding="none-such"?><a/>']
)
def test_whatever_is_wrong_with_an_xml_file_it_is_named(tmp_path, content):
    add_image(tmp_path, "a", an_object())
    xml = tmp_path / "VOC2007" / "Annotations" / "a.xml"
    xml.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.xml: the XML cannot be read"):
        load(tmp_path)


def test_a_misspelt_class_does_not_become_background(tmp_path):
    add_image(tmp_path, "a", an_object())
    add_image(tmp_path, "b", an_object("dgo"), an_object("sofa"))
    found: list[Problem] = []
    assert [record.image_id for record in load(tmp_path, on_error=found.append)] == ["a"]
    assert found[0].file.name == "b.xml" and "class 'dgo' is not known" in found[0].problem
    (tmp_path / "VOC2007" / "classes.txt").write_text("dog\ndgo\nsofa\n")
    assert [len(record.labels) for record in load(tmp_path)] == [1, 0]
    (tmp_path / "VOC2007" / "classes.txt").write_text("sofa\n")
    assert len(load(tmp_path, classes=("dog", "dgo"))) == 2, "what is to be detected is known"


def test_without_a_size_in_the_xml_the_images_own_is_taken(tmp_path):
    add_image(tmp_path, "a")
    xml = tmp_path / "VOC2007" / "Annotations" / "a.xml"
    xml.write_text(f"<annotation>{an_object()}</annotation>")
    assert load(tmp_path)[0].size == (80, 100)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    image = tmp_path / "VOC2007" / "JPEGImages" / "a.jpg"
    Image.new("RGB", (100, 80)).save(image, exif=exif)
    assert load(tmp_path)[0].size == (100, 80)
    image.write_bytes(b"text")
    with pytest.raises(InputError, match=rf"^{image}: not an image"):
        load(tmp_path)


def test_a_union_keeps_its_order_and_refuses_an_image_twice(tmp_path):
    add_image(tmp_path, "b", an_object())
    add_image(tmp_path, "a", an_object(), folder="VOC2012")
    both = load(tmp_path, "VOC2007:train + VOC2012:train")
    assert [record.image_id for record in both] == ["b", "a"]
    assert both[1].path.parts[-3:] == ("VOC2012", "JPEGImages", "a.jpg")
    with pytest.raises(InputError, match="lists b"):
        load(tmp_path, "VOC2007:train+VOC2007:train")


@pytest.mark.parametrize("spec", ["", "VOC2007", "VOC2007:", "VOC2007:train +", "../x:train"])
def test_a_malformed_spec_is_refused(tmp_path, spec):
    add_image(tmp_path, "a", an_object())
    with pytest.raises(InputError):
        load(tmp_path, spec)


def test_a_missing_folder_or_split_is_named_with_what_there_is(tmp_path):
    add_image(tmp_path, "a", an_object())
    with pytest.raises(InputError, match="VOC2012: there is no such folder"):
        load(tmp_path, "VOC2012:train")
    with pytest.raises(InputError, match=r"tost\.txt.*splits here are: train\."):
        load(tmp_path, "VOC2007:tost")
    (tmp_path / "VOC2007" / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(InputError, match="lists no image"):
        load(tmp_path, "VOC2007:val")


@pytest.mark.parametrize("classes", [(), ("dog", "dog"), "dog", ("dgo",)])
def test_classes_that_cannot_be_meant_are_refused(tmp_path, classes):
    add_image(tmp_path, "a", an_object())
    with pytest.raises(InputError):
        load(tmp_path, classes=classes)


def test_images_without_objects_are_kept_for_evaluation_and_dropped_for_training(tmp_path):
    add_image(tmp_path, "easy", an_object())
    add_image(tmp_path, "other", an_object("sofa"))
    add_image(tmp_path, "hard", an_object(difficult="<difficult>1</difficult>"))
    records = load(tmp_path)
    assert [record.image_id for record in records] == ["easy", "other", "hard"]
    assert records[1].boxes.shape == (0, 4)
    assert [record.image_id for record in [r for r in records if not r.difficult.all()]] == ["easy"]


def test_fingerprint_names_the_ground_truth_and_not_the_place(toy_root, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(toy_root, moved)
    first = load_records("VOC2012:trainval", toy_root, TOY_CLASSES)
    second = load_records("VOC2012:trainval", moved, TOY_CLASSES)
    assert fingerprint(first) == fingerprint(second[::-1])
    assert len(fingerprint(first)) == 16
    second[0].boxes[0, 0] += 1
    assert fingerprint(first) != fingerprint(second)
    swapped = load_records("VOC2012:trainval", toy_root, TOY_CLASSES[::-1])
    assert fingerprint(first) != fingerprint(swapped)


def test_class_names_come_from_the_folder_or_are_vocs(toy_root, tmp_path):
    assert class_names(toy_root / "VOC2012") == TOY_CLASSES
    assert class_names(tmp_path) == VOC_CLASSES
    # VOC's masks count in this order: aeroplane is 1, dog 12, tvmonitor 20.
    assert len(VOC_CLASSES) == 20 and VOC_CLASSES[11] == "dog"


def test_class_names_may_be_of_several_words(tmp_path):
    add_image(tmp_path, "a", an_object("traffic light"), an_object("dog"))
    listing = tmp_path / "VOC2007" / "classes.txt"
    listing.write_text("\ufeffdog\r\n\r\n traffic light \r\n", encoding="utf-8")
    assert class_names(tmp_path / "VOC2007") == ("dog", "traffic light")
    (record,) = load(tmp_path, classes=("traffic light", "dog"))
    assert record.labels.tolist() == [1, 2]
    listing.write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match=r"classes\.txt: cannot be read .* UTF-8"):
        load(tmp_path)


def test_the_real_annotations(shared_voc):
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    records = load_records("VOC2012:val", shared_voc, classes)
    labels = np.concatenate([record.labels for record in records]) - 1
    xml = shared_voc / "VOC2012" / "Annotations"
    text = "".join((xml / f"{record.image_id}.xml").read_text() for record in records)
    counts = [text.count(f"<name>{name}</name>") for name in classes]
    assert len(records) == 250 and min(counts) > 20
    assert np.bincount(labels).tolist() == counts
