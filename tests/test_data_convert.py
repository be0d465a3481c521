"""VOC's layout to COCO's and back: what comes back is what was there."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from als.data.check import check_folder
from als.data.convert import to_coco
from als.data.layouts import load_records
from als.data.masks import read_class_map, read_object_map
from als.data.record import fingerprint
from als.data.rle import VOID
from als.data.toy import TOY_CLASSES
from als.data.voc_layout import image_folder
from als.errors import InputError


@pytest.fixture(scope="module")
def converted(toy_root, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "toy-coco"
    assert to_coco(toy_root / "VOC2012", ["trainval", "test"], out) == {"trainval": 18, "test": 6}
    return out


def test_the_same_records_and_maps_come_back(converted, toy_root):
    spec = "{0}:trainval + {0}:test"
    before = load_records(spec.format("VOC2012"), toy_root, TOY_CLASSES)
    after = load_records(spec.format("toy-coco"), converted.parent, TOY_CLASSES)
    assert [record.image_id for record in after] == [record.image_id for record in before]
    assert fingerprint(after) == fingerprint(before)
    assert sum(record.difficult.sum() for record in after) > 0
    for one, two in zip(before, after, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert (one.mask is None) == (two.mask is None)
        if one.mask is not None:
            assert np.array_equal(
                read_class_map(one, TOY_CLASSES), read_class_map(two, TOY_CLASSES)
            )
    assert any(record.mask is None for record in after)


def test_pycocotools_reads_it_and_segmentations_lie_in_their_boxes(converted):
    assert len(check_folder(converted)) == 0
    coco = COCO(str(converted / "annotations" / "instances_trainval.json"))
    segmented = [a for a in coco.dataset["annotations"] if a["segmentation"]]
    assert len(segmented) > 20
    for annotation in segmented:
        rows, columns = np.nonzero(coco.annToMask(annotation))
        x, y, width, height = annotation["bbox"]
        assert x <= columns.min() and columns.max() < x + width
        assert y <= rows.min() and rows.max() < y + height
        assert annotation["area"] == len(rows)


def test_ids_are_the_same_in_every_run_and_split(converted, toy_root, tmp_path):
    to_coco(toy_root / "VOC2012", ["train"], tmp_path / "again")
    read = {
        split: json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        for folder, split in ((converted, "trainval"), (tmp_path / "again", "train"))
    }
    ids = {
        split: {entry["file_name"]: entry["id"] for entry in content["images"]}
        for split, content in read.items()
    }
    assert ids["train"].items() <= ids["trainval"].items()
    # toy_000002 is the third annotation file of the folder.
    assert ids["trainval"]["toy_000002.jpg"] == 3
    assert [c["name"] for c in read["train"]["categories"]] == list(TOY_CLASSES)
    assert read["train"]["annotations"][0]["id"] == 1


def test_class_masks_alone_are_cut_by_the_boxes(tmp_path):
    """Two dogs side by side, a third that the mask lacks, and dog pixels in no box."""
    folder = tmp_path / "VOC2012"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    boxes = ((1, 1, 10, 10), (11, 1, 20, 10), (1, 21, 5, 25))
    objects = "".join(
        f"<object><name>dog</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    (folder / "Annotations" / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / "a.jpg")
    mask = np.zeros((30, 40), np.uint8)
    mask[2:8, 2:18] = 12  # VOC's number of dog
    mask[0, :20] = 255
    mask[25:28, 30:38] = 12
    Image.fromarray(mask).save(folder / "SegmentationClass" / "a.png")
    to_coco(folder, ["val"], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert [a["area"] for a in content["annotations"]] == [6 * 8, 6 * 8, 5 * 5]
    assert [bool(a["segmentation"]) for a in content["annotations"]] == [True, True, False]
    (record,) = load_records("out:val", tmp_path, ["dog"])
    expected = np.where(mask == 12, 1, mask)
    expected[25:28, 30:38] = VOID  # a dog, but nobody's
    expected[20:25, 0:5] = VOID  # of the third dog no pixel is known
    assert np.array_equal(read_object_map(record, ["dog"]), expected)


def test_an_object_without_area_leaves_the_others_their_own_pixels(toy_root, tmp_path):
    """SegmentationObject counts the XML's objects, the one that is left out too."""
    folder = shutil.copytree(toy_root / "VOC2012", tmp_path / "VOC2012")
    to_coco(folder, ["trainval"], tmp_path / "whole")
    xml = folder / "Annotations" / "toy_000002.xml"
    tree = ET.parse(xml)
    width, box = tree.findtext("size/width"), tree.find("object/bndbox")
    box.find("xmin").text = box.find("xmax").text = str(int(width) + 1)  # within the tolerance
    tree.write(xml)
    with pytest.warns(UserWarning, match="object 1 of toy_000002"):
        to_coco(folder, ["trainval"], tmp_path / "part")
    whole, part = (
        [
            {k: a[k] for k in ("bbox", "area", "segmentation")}
            for a in json.loads(
                (tmp_path / out / "annotations/instances_trainval.json").read_text()
            )["annotations"]
            if a["image_id"] == 3
        ]
        for out in ("whole", "part")
    )
    assert len(whole) > 1 and any(a["segmentation"] for a in whole[1:])
    assert part == whole[1:]


def test_more_objects_than_a_mask_has_values_are_converted(toy_root, tmp_path):
    folder = shutil.copytree(toy_root / "VOC2012", tmp_path / "VOC2012")
    name = (folder / "ImageSets/Main/train.txt").read_text().split()[0]
    (folder / "ImageSets/Main/train.txt").write_text(name)
    path = folder / f"Annotations/{name}.xml"
    tree = ET.parse(path)
    one = tree.find("object")
    tree.getroot().extend([one] * (300 - len(tree.findall("object"))))
    tree.write(path)
    assert to_coco(folder, ["train"], tmp_path / "out") == {"train": 1}
    (record,) = load_records("out:train", tmp_path, TOY_CLASSES)
    assert len(record.boxes) == 300


def test_annotations_in_a_folder_that_is_a_link_are_numbered(toy_root, tmp_path):
    folder = tmp_path / "VOC2012"
    shutil.copytree(toy_root / "VOC2012", folder)
    for kind in ("Annotations", "JPEGImages"):
        (folder / kind).rename(tmp_path / kind)
        (folder / kind).mkdir()
        (folder / kind / "cam1").symlink_to(tmp_path / kind)
        (tmp_path / kind / "again").symlink_to(tmp_path / kind)  # a circle
    listed = folder / "ImageSets/Main/val.txt"
    names = listed.read_text().split()
    listed.write_text("".join(f"cam1/{name}\n" for name in names))
    assert to_coco(folder, ["val"], tmp_path / "out") == {"val": len(names)}
    assert image_folder(folder).count() == 24


def test_a_split_that_is_named_twice_is_written_once(toy_root, tmp_path):
    assert to_coco(toy_root / "VOC2012", ["val", "val"], tmp_path / "out") == {"val": 6}


def test_nothing_is_left_behind_when_a_file_is_broken(toy_root, tmp_path):
    broken = shutil.copytree(toy_root / "VOC2012", tmp_path / "VOC2012")
    (broken / "JPEGImages" / "toy_000004.jpg").unlink()
    with pytest.raises(InputError, match=r"toy_000004\.jpg: there is no such image"):
        to_coco(broken, ["train"], tmp_path / "out")
    xml = broken / "Annotations" / "toy_000000.xml"
    xml.write_text(xml.read_text().replace("circle", "hexagon"))
    with pytest.raises(InputError, match=r"toy_000000\.xml: class 'hexagon' is not known"):
        to_coco(broken, ["train"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VOC2012"]
    with pytest.raises(InputError, match="is not empty"):
        to_coco(toy_root / "VOC2012", ["train"], broken)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be read or written"):
        to_coco(toy_root / "VOC2012", ["train"], tmp_path / "file" / "out")


def test_no_object_pixel_of_real_masks_becomes_background(shared_voc, tmp_path):
    part = tmp_path / "VOC2012"
    part.mkdir()
    for name in ("Annotations", "JPEGImages", "SegmentationClass"):
        (part / name).symlink_to(shared_voc / "VOC2012" / name)
    (part / "ImageSets" / "Main").mkdir(parents=True)
    listed = (shared_voc / "VOC2012" / "ImageSets" / "Main" / "val.txt").read_text().split()[:30]
    (part / "ImageSets" / "Main" / "val.txt").write_text("\n".join(listed))
    to_coco(part, ["val"], tmp_path / "out")
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    before = load_records("VOC2012:val", tmp_path, classes)
    after = load_records("out:val", tmp_path, classes)
    assert fingerprint(before) == fingerprint(after)
    pairs = [
        (read_object_map(a, classes), read_object_map(b, classes))
        for a, b in zip(before, after, strict=True)
        if a.mask is not None
    ]
    assert len(pairs) > 20
    assert not any(((one == 1) & (two == 0)).any() for one, two in pairs)
    same = sum((one == two).sum() for one, two in pairs) / sum(one.size for one, _ in pairs)
    assert same > 0.98
