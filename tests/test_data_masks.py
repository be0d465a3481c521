"""Masks from every source, by hand-made arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from als.classes import VOC_CLASSES
from als.data.layouts import load_records
from als.data.masks import fill, find_masks, read_class_map, read_instances, read_object_map
from als.data.record import MaskSource, Record
from als.data.rle import Instances, write_runs
from als.errors import InputError

CLASSES = ("dog", "cat")
DOG, CAT, SOFA = (VOC_CLASSES.index(name) + 1 for name in ("dog", "cat", "sofa"))


def a_record(mask: MaskSource | None, size=(2, 3)) -> Record:
    nothing = np.zeros((0, 4), np.float32)
    return Record("a", Path("a.jpg"), size, nothing, np.zeros(0, int), np.zeros(0, bool), mask)


def save_png(path: Path, values, mode="P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8))
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in "rgb"])
    image.convert(mode).save(path)


def save_mat(path: Path, **arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, arrays)


def maps(folder: Path, object_names=()) -> tuple[list, list]:
    record = a_record(find_masks(folder, "a", VOC_CLASSES, object_names)[0])
    return (
        read_class_map(record, CLASSES).tolist(),
        read_object_map(record, CLASSES).tolist(),
    )


def test_class_map_gives_labels_objects_and_void(tmp_path):
    save_png(tmp_path / "SegmentationClass" / "a.png", [[0, DOG, 255], [CAT, SOFA, DOG]])
    labels, objects = maps(tmp_path)
    assert labels == [[0, 1, 255], [2, 0, 1]]
    assert objects == [[0, 1, 255], [1, 0, 1]]


def test_object_map_alone_is_read_by_the_order_of_the_xml(tmp_path):
    save_png(tmp_path / "SegmentationObject" / "a.png", [[1, 2, 255], [3, 0, 0]])
    labels, objects = maps(tmp_path, object_names=("sofa", "cat", "dog"))
    assert labels == [[0, 2, 255], [1, 0, 0]]
    assert objects == [[0, 1, 255], [1, 0, 0]]


def test_sbd_class_and_instance_files(tmp_path):
    wanted = ([[0, 1, 1], [2, 0, 0]], [[0, 1, 1], [1, 0, 0]])
    classes = np.array([[0, DOG, DOG], [CAT, SOFA, 0]], np.uint8)
    instances = np.array([[0, 1, 1], [3, 2, 0]], np.uint8)
    categories = np.array([[DOG], [SOFA], [CAT]], np.uint8)
    save_mat(tmp_path / "one/SBD/cls/a.mat", GTcls={"Segmentation": classes})
    save_mat(
        tmp_path / "two/SBD/inst/a.mat",
        GTinst={"Segmentation": instances, "Categories": categories},
    )
    assert maps(tmp_path / "one") == wanted
    assert maps(tmp_path / "two") == wanted


def test_the_first_of_several_masks_is_used(tmp_path):
    save_mat(tmp_path / "SBD/inst/a.mat", GTinst={})
    save_mat(tmp_path / "SBD/cls/a.mat", GTcls={})
    save_png(tmp_path / "SegmentationObject" / "a.png", [[0]])
    save_png(tmp_path / "SegmentationClass" / "a.png", [[DOG]])
    order = [source.path for source in find_masks(tmp_path, "a", VOC_CLASSES, ())]
    assert [path.parent.name for path in order] == [
        *("SegmentationClass", "SegmentationObject", "cls", "inst")
    ]
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation><object><name>dog</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    (record,) = load_records(f"{tmp_path.name}:val", tmp_path.parent, CLASSES)
    assert record.mask.path == order[0]


@pytest.mark.parametrize("image_id", ["a", "day/a"])
def test_instances_are_of_known_classes_and_without_void(tmp_path, image_id):
    """The first dog reaches into void, the second object is of no class that is asked for."""
    save_png(tmp_path / "SegmentationClass" / f"{image_id}.png", [[DOG, DOG, 255], [0, SOFA, DOG]])
    save_png(tmp_path / "SegmentationObject" / f"{image_id}.png", [[1, 1, 1], [255, 2, 3]])
    (mask, *_) = find_masks(tmp_path, image_id, VOC_CLASSES, ())
    record = replace(a_record(mask), image_id=image_id)
    found = read_instances(record, read_class_map(record, CLASSES))
    assert [pixels.astype(int).tolist() for pixels in found] == [
        [[1, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 1]],
    ]


def test_a_crowd_is_no_instance_though_an_object_stands_before_it():
    crowd, dog = np.ones((2, 3), bool), np.array([[True, True, False], [False] * 3])
    runs = tuple(write_runs(pixels)["counts"].encode() for pixels in (crowd, dog))
    objects = Instances((0, 0), runs, (True, False))
    record = a_record(MaskSource("coco", Path("a.json"), ("dog",), objects))
    labels = read_class_map(record, CLASSES)
    assert labels.tolist() == [[1, 1, 255], [255] * 3]
    (only,) = read_instances(record, labels)
    np.testing.assert_array_equal(only, dog)


def test_pixels_that_a_box_touches_are_filled():
    boxes = np.array([[-0.5, 0.9, 1.1, 2.0], [2.0, 0.0, 9.0, 0.5]])
    assert fill(boxes, (3, 4)).astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0] * 4]


def test_no_mask_gives_none_and_never_an_empty_target(tmp_path):
    assert find_masks(tmp_path, "a", VOC_CLASSES, ()) == []
    record = a_record(None)
    assert read_class_map(record, CLASSES) is None
    assert read_object_map(record, CLASSES) is None


@pytest.mark.parametrize(
    ("values", "mode", "problem"),
    [
        ([[0, 1, 0]], "P", "3x1 pixels but the image is 3x2"),
        ([[0, 1, 0], [0, 21, 0]], "P", "value 21 has no meaning"),
        ([[0, 1, 0], [0, 1, 0]], "RGB", "pixels of mode RGB where an index"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, values, mode, problem):
    save_png(tmp_path / "SegmentationClass" / "a.png", values, mode)
    with pytest.raises(InputError, match=rf"a\.png: .*{problem}"):
        maps(tmp_path)


@pytest.mark.parametrize("name", ["SegmentationClass/a.png", "SBD/cls/a.mat", "SBD/inst/a.mat"])
def test_a_mask_that_is_no_such_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a mask at all")
    with pytest.raises(InputError, match=rf"{path.name}: the mask cannot be read"):
        maps(tmp_path)


def test_real_masks_agree_with_the_boxes(shared_voc):
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    records = [r for r in load_records("VOC2012:val", shared_voc, classes) if r.mask][:40]
    inside, total = 0, 0
    for record in records:
        objects = read_object_map(record, classes) == 1
        boxed = np.zeros(record.size, bool)
        for x1, y1, x2, y2 in record.boxes.astype(int):
            boxed[y1:y2, x1:x2] = True
        inside, total = inside + (objects & boxed).sum(), total + objects.sum()
    assert inside / total > 0.95
    assert read_object_map(replace(records[0], mask=None), classes) is None


def test_classes_beyond_the_values_of_a_pixel_have_none(tmp_path):
    """255 stays void, whatever class stands in that line of the list."""
    save_png(tmp_path / "a.png", [[0, 2, 255]])
    names = tuple(f"class {line}" for line in range(1, 301))
    record = a_record(MaskSource("png", tmp_path / "a.png", names), size=(1, 3))
    assert read_class_map(record, ["class 255", "class 2", "class 300"]).tolist() == [[0, 2, 255]]
