"""COCO's layout: hand-written annotations, what a user can get wrong, and the real files."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from als.classes import COCO_CLASSES, COCO_WORDS, VOC_CLASSES
from als.data.beside import records_beside
from als.data.check import check_folder
from als.data.coco_ids import ids_in, ids_of
from als.data.dataset import DetectionDataset
from als.data.layouts import load_records
from als.data.masks import read_class_map, read_object_map
from als.data.toy import TOY_CLASSES
from als.errors import InputError

COCO_MINI = Path(__file__).parents[2] / "shared" / "data" / "coco-mini"
CATEGORIES = {90: "kite", 3: "cat", 7: "traffic light"}  # gaps, and no order
SIZE = (40, 60)  # height, width


@pytest.fixture(scope="module")
def coco_mini() -> Path:
    if not COCO_MINI.is_dir():
        pytest.skip("needs the photographs in ../shared/data/coco-mini, which are not here")
    return COCO_MINI


def rectangle(x, y, width, height) -> list:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def an_object(number, category=3, box=(10, 10, 20, 10), image=1, **more) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": rectangle(*box),
    } | more


def a_crowd(number, rows=5, **more) -> dict:
    """A crowd over the uppermost rows, in COCO's plain runs, which go down the columns."""
    height, width = SIZE
    runs = {"size": [height, width], "counts": [0, *[rows, height - rows] * width]}
    return an_object(number, box=(0, 0, width, rows), iscrowd=1, segmentation=runs, **more)


def write(root: Path, annotations, images=2, below="", split="val2017") -> Path:
    """A folder `set` below root with grey images 000000000001.jpg, ... and the annotations."""
    folder = root / "set"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / below / split).mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(1, images + 1):
        name = f"{number:012d}.jpg"
        Image.new("RGB", SIZE[::-1], "grey").save(folder / below / split / name)
        entries.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    content = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in CATEGORIES.items()],
    }
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def load(root: Path, classes=("cat", "traffic light", "kite"), **more):
    return load_records("set:val2017", root, classes, **more)


def test_boxes_are_corners_and_labels_follow_the_classes_asked_for(tmp_path):
    write(tmp_path, [an_object(1, 90, (1.5, 2.25, 10, 20)), an_object(2, 3), an_object(3, 7)])
    first, second = load(tmp_path)
    assert (first.image_id, first.size) == ("000000000001", SIZE)
    assert first.boxes.dtype == np.float32 and first.labels.dtype == np.int64
    assert first.boxes[0].tolist() == [1.5, 2.25, 11.5, 22.25]
    # By rising id the categories are cat, traffic light, kite.
    assert first.labels.tolist() == [3, 1, 2]
    assert load(tmp_path, ["kite", "cat"])[0].labels.tolist() == [1, 2]
    assert first.coco.image_id == 1
    assert second.boxes.shape == (0, 4) and second.mask is None


def test_images_without_objects_stay_for_evaluation_and_crowds_are_not_trained_on(tmp_path):
    write(tmp_path, [an_object(1), a_crowd(2), a_crowd(3, image=2)], images=3)
    records = load(tmp_path)
    assert [record.difficult.tolist() for record in records] == [[False, True], [True], []]
    assert [record.image_id for record in [r for r in records if not r.difficult.all()]] == [
        "000000000001"
    ]
    _, target = DetectionDataset(records, ("cat", "traffic light", "kite"))[0]
    assert target["boxes"].tolist() == [[10, 10, 30, 20]]


def test_the_map_is_the_union_of_the_chosen_instances_and_crowds_are_void(tmp_path):
    large, small = an_object(1, 3, (10, 10, 20, 10)), an_object(2, 90, (20, 0, 4, 20))
    write(tmp_path, [small, large, a_crowd(3)])
    record = load(tmp_path)[0]
    expected = np.zeros(SIZE, np.uint8)
    expected[0:5] = 255
    expected[10:20, 10:30] = 1
    expected[0:20, 20:24] = 3  # over the crowd, and over the larger object
    assert np.array_equal(read_class_map(record, ("cat", "traffic light", "kite")), expected)
    union = read_object_map(record, ("cat", "traffic light", "kite"))
    assert np.array_equal(union, np.where(expected == 3, 1, expected))
    kites = np.zeros(SIZE, np.uint8)
    kites[0:20, 20:24] = 1
    # The crowd is one of cats: where only kites are looked for, it is background.
    assert np.array_equal(read_object_map(load(tmp_path, ["kite"])[0], ["kite"]), kites)


def test_objects_of_no_area_are_left_out_told_and_void(tmp_path):
    flat = an_object(7, box=(40, 30, 5, 0), segmentation=rectangle(40, 30, 5, 3))
    unseen = an_object(8, box=(2, 30, 6, 4), segmentation=[])
    folder = write(tmp_path, [an_object(1), flat, unseen])
    says = r"1 objects have a box of no area inside their image \(box .* of annotation 7\)"
    with pytest.warns(UserWarning, match=says):
        record = load(tmp_path)[0]
    assert record.boxes.tolist() == [[10, 10, 30, 20], [2, 30, 8, 34]]
    drawn = read_object_map(record, ["cat"])
    expected = np.zeros(SIZE, np.uint8)
    expected[10:20, 10:30] = 1
    expected[30:33, 40:45] = 255
    expected[30:34, 2:8] = 255
    assert np.array_equal(drawn, expected)
    told = []
    assert len(check_folder(folder, tell=told.append)) == 0
    told = " ".join(told)
    assert "2 images, 3 objects and 0 crowds of 3 categories" in told
    assert "1 images without annotations" in told and "annotation 7" in told


def test_without_any_segmentation_there_is_no_map(tmp_path):
    plain = an_object(1)
    del plain["segmentation"]
    write(tmp_path, [plain, an_object(2, segmentation=[])])
    assert load(tmp_path)[0].mask is None


def test_images_may_lie_below_images_and_a_mask_survives_pickling(tmp_path):
    write(tmp_path, [an_object(1)], below="images")
    record = load(tmp_path)[0]
    assert record.path.parts[-3:-1] == ("images", "val2017")
    again = pickle.loads(pickle.dumps(record))
    assert np.array_equal(read_object_map(again, ["cat"]), read_object_map(record, ["cat"]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bbox": [10, 10, -3, 5]}, r"box \[10, 10, -3, 5\] of annotation 5 has no area"),
        ({"bbox": [50, 10, 30, 5]}, "annotation 5 lies outside the image of 60x40"),
        ({"segmentation": [[1, 2, 3, 4]]}, r"jpg' \(id 1\): annotation 5: .*three points"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "RLE of size"),
        ({"segmentation": {"size": [40, 60], "counts": [99, 1]}}, "RLE of 100 pixels, not 40 x 60"),
    ],
)
def test_a_broken_object_costs_its_image_only(tmp_path, wrong, says):
    folder = write(tmp_path, [an_object(5) | wrong, an_object(6, image=2)])
    with pytest.raises(InputError, match=rf"instances_val2017\.json: .*{says}.* one of 1 broken"):
        load(tmp_path)
    found = []
    kept = load(tmp_path, on_error=found.append)
    assert [record.image_id for record in kept] == ["000000000002"] and len(found) == 1
    assert len(check_folder(folder)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("categories"), "has no 'categories'"),
        (lambda c: c["annotations"][0].update(category_id=1), "category_id 1, which the file"),
        (lambda c: c["annotations"][0].update(image_id=99), "image_id 99, which the file"),
        (lambda c: c["categories"].append({"id": 3, "name": "dog"}), "two of its categories"),
        (lambda c: c.update(images=[], annotations=[]), "lists no image"),
    ],
)
def test_a_file_that_is_no_instance_annotation_is_told_in_a_sentence(tmp_path, change, says):
    folder = write(tmp_path, [an_object(1)])
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"instances_val2017\.json: .*{says}"):
        load(tmp_path)
    assert re.search(says, check_folder(folder)["problem"][0])


def test_missing_and_broken_files_are_named(tmp_path):
    folder = write(tmp_path, [an_object(1), an_object(2, image=2)])
    with pytest.raises(InputError, match="no category 'aeroplane'; its categories are cat, traf"):
        load(tmp_path, ["cat", "aeroplane"])
    with pytest.raises(InputError, match=r"train2017\.json: .*splits here are: val2017"):
        load_records("set:train2017", tmp_path, ["cat"])
    image = folder / "val2017" / "000000000002.jpg"
    image.write_bytes(image.read_bytes()[:300])
    assert "damaged or cut short" in check_folder(folder)["problem"][0]
    image.unlink()
    with pytest.raises(InputError, match=r"000000000002\.jpg: there is no such image"):
        load(tmp_path)
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(InputError, match=r"instances_val2017\.json: the JSON cannot be read"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"no such annotations; the splits here are: none"):
        load(tmp_path)
    write(tmp_path, [an_object(1)])
    (folder / "val2017").rename(folder / "elsewhere")
    with pytest.raises(InputError, match=r"val2017: there is no such folder, nor .*put the images"):
        load(tmp_path)


def test_boxes_and_masks_count_in_the_frame_that_viewers_show(tmp_path):
    folder = write(tmp_path, [an_object(1)])
    exif = Image.Exif()
    exif[0x0112] = 8
    image = folder / "val2017" / "000000000001.jpg"
    Image.new("RGB", SIZE, "grey").save(image, exif=exif)  # stored as 60 rows of 40
    pixels, target = DetectionDataset(load(tmp_path), ("cat", "traffic light", "kite"))[0]
    assert pixels.shape == (3, *SIZE) and target["object_map"].shape == SIZE
    assert (target["object_map"][10:20, 10:30] == 1).all()
    told = []
    assert len(check_folder(folder, tell=told.append)) == 0
    assert any("EXIF turns: 1;" in sentence for sentence in told)


def test_a_split_without_any_object_cannot_be_meant(tmp_path):
    write(tmp_path, [])
    with pytest.raises(InputError, match="holds no object of cat"):
        load(tmp_path, ["cat"])


def test_of_an_image_that_is_listed_twice_neither_is_taken(tmp_path):
    """Each has a part of the objects."""
    folder = write(tmp_path, [an_object(k, image=k) for k in (1, 2, 3)], images=3)
    path = folder / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    path.write_text(json.dumps(content))
    told = []
    (record,) = load(tmp_path, on_error=told.append)
    assert record.image_id == "000000000003" and len(told) == 2
    assert "images 1 and 2 are both 000000000001.jpg" in str(told[0])


def test_the_area_of_a_mask_that_was_made_is_that_of_its_box(tmp_path):
    smaller = {"segmentation": rectangle(12, 12, 3, 3), "area": None}
    write(tmp_path, [an_object(1, **smaller), an_object(2, image=2, derived=True, **smaller)])
    assert [record.coco.areas.tolist() for record in load(tmp_path)] == [[9], [200]]


def test_a_union_of_both_layouts(tmp_path, toy_root):
    (tmp_path / "VOC2012").symlink_to(toy_root / "VOC2012")
    folder = write(tmp_path, [an_object(1)])
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace('"kite"', '"circle"'))
    both = load_records("set:val2017 + VOC2012:val", tmp_path, ["cat", "circle"])
    assert len(both) == 2 + 6 and {record.coco is None for record in both} == {True, False}
    with pytest.raises(InputError, match=r"val2017\.json: lists 000000000001, which"):
        load_records("set:val2017 + set:val2017", tmp_path, ["cat"])
    # Unlike a folder of VOC's, a COCO file names all its categories: another name is a mistake.
    with pytest.raises(InputError, match="no category 'square'"):
        load_records("set:val2017 + VOC2012:val", tmp_path, TOY_CLASSES)


def test_vocs_words_stand_for_cocos(tmp_path):
    couch = an_object(2, 90, (40, 5, 10, 10))
    folder = write(tmp_path, [an_object(1), couch, an_object(3, image=2)])
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace('"kite"', '"couch"'))
    for name in ("couch", "sofa"):
        first, second = load(tmp_path, ["cat", name])
        assert first.labels.tolist() == [1, 2] and second.labels.tolist() == [1]
        assert read_object_map(first, [name]).sum() == 100
        ids = ids_of([first, second]).categories
        assert ids[name] == ids_in(path, [name]).categories[name] == 90
        photographs = {p.name: p for p in (folder / "val2017").iterdir()}
        beside, _ = records_beside(photographs, {path.name: path}, ["cat", name])
        assert beside["000000000001.jpg"].labels.tolist() == [1, 2]
    # Who asks for both words means two classes.
    with pytest.raises(InputError, match="no category 'sofa'"):
        load(tmp_path, ["couch", "sofa"])


def test_the_real_files_in_vocs_words(coco_mini):
    theirs = [COCO_WORDS.get(name, name) for name in VOC_CLASSES]
    spec = "coco-mini:val2017"
    pairs = [load_records(spec, coco_mini.parent, names) for names in (VOC_CLASSES, theirs)]
    assert all(a.labels.tolist() == b.labels.tolist() for a, b in zip(*pairs, strict=True))
    assert sum(len(record.labels) == 0 for record in pairs[0]) == 15


def test_the_real_files_agree_with_pycocotools(coco_mini):
    truth = COCO(str(coco_mini / "annotations" / "instances_val2017.json"))
    names = tuple(truth.cats[k]["name"] for k in sorted(truth.cats))
    records = load_records("coco-mini:val2017", coco_mini.parent, names)
    assert names == COCO_CLASSES and len(records) == 79 and max(truth.cats) == 90
    assert sum(len(record.labels) for record in records) == 624
    assert sum(record.difficult.sum() for record in records) == 5
    for record in records[:25]:
        found = truth.imgToAnns[record.coco.image_id]
        union = np.zeros(record.size, bool)
        crowd = union.copy()
        for annotation in found:
            target = crowd if annotation["iscrowd"] else union
            target |= truth.annToMask(annotation).astype(bool)
        expected = np.where(union, 1, np.where(crowd, 255, 0))
        assert np.array_equal(read_object_map(record, names), expected)
        labels = [names[k - 1] for k in record.labels]
        assert labels == [truth.cats[a["category_id"]]["name"] for a in found]


def test_the_real_files_are_sound(coco_mini):
    told = []
    assert len(check_folder(coco_mini, tell=told.append)) == 0
    assert any("80 images, 731 objects and 8 crowds of 80 categories" in line for line in told)
