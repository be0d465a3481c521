"""The toy data set is a sound VOC folder, whose parts agree with one another."""

import json

import numpy as np
import pytest
from PIL import Image

from als.data.masks import find_masks, read_class_map
from als.data.toy import TOY_CLASSES, write_toy
from als.data.voc_layout import load_records, read_annotation
from als.errors import InputError


@pytest.fixture(scope="module")
def records(toy_root):
    return load_records("VOC2012:trainval + VOC2012:test", toy_root, TOY_CLASSES)


def test_splits_share_the_images_out(toy_root):
    ids = {
        split: {r.image_id for r in load_records(f"VOC2012:{split}", toy_root, TOY_CLASSES)}
        for split in ("train", "val", "trainval", "test")
    }
    assert [len(ids[split]) for split in ("train", "val", "trainval", "test")] == [12, 6, 18, 6]
    assert ids["trainval"] == ids["train"] | ids["val"]
    assert not ids["trainval"] & ids["test"]
    train = load_records("VOC2012:train", toy_root, TOY_CLASSES)
    assert {label for r in train for label in r.labels.tolist()} == {1, 2, 3}


def test_it_covers_the_paths_that_real_data_takes(records):
    assert {record.mask is None for record in records} == {True, False}
    assert any(record.difficult.any() for record in records)
    assert not any(record.difficult.all() for record in records)
    assert {record.size for record in records} == {(120, 160), (160, 120)}


def test_masks_boxes_and_classes_agree(records):
    for record in records:
        labels = read_class_map(record, TOY_CLASSES)
        if labels is None:
            continue
        for box, label, difficult in zip(
            record.boxes.astype(int), record.labels, record.difficult, strict=True
        ):
            x1, y1, x2, y2 = box
            inside = labels[y1:y2, x1:x2]
            if difficult:
                assert set(np.unique(inside)) <= {0, 255}
                continue
            # The drawn object touches all four sides of its box, its border being void.
            own = np.isin(inside, (label, 255))
            assert all(side.any() for side in (own[0], own[-1], own[:, 0], own[:, -1]))
            assert (inside == label).mean() > 0.25
            assert 255 in inside


def test_object_maps_count_the_objects_of_the_xml(toy_root, records):
    root = toy_root / "VOC2012"
    checked = 0
    for record in records:
        names = read_annotation(root / "Annotations" / f"{record.image_id}.xml").names
        sources = find_masks(root, record.image_id, TOY_CLASSES, names)
        if not sources:
            continue
        classes, objects = (np.array(Image.open(source.path)) for source in sources)
        for number in set(np.unique(objects)) - {0, 255}:
            (value,) = np.unique(classes[objects == number])
            assert TOY_CLASSES[value - 1] == names[number - 1]
            checked += 1
    assert checked > 10


def test_the_head_is_a_dark_dot_on_its_object(toy_root, records):
    path = toy_root / "VOC2012" / "Keypoints" / "animal_keypoints.json"
    keypoints = json.loads(path.read_text())
    assert set(keypoints) == {record.image_id for record in records}
    for record in records:
        image = np.asarray(Image.open(record.path).convert("L"))
        labels = read_class_map(record, TOY_CLASSES)
        animals = keypoints[record.image_id]
        boxes = [animal["bbox"] for animal in animals]
        assert boxes == record.boxes[~record.difficult].tolist()
        for animal in animals:
            (x, y), (tail_x, tail_y) = animal["keypoints"]["nose"], animal["keypoints"]["tailbase"]
            assert image[int(y), int(x)] < 70 < image[int(tail_y), int(tail_x)]
            if labels is not None:
                for column, row in ((x, y), (tail_x, tail_y)):
                    assert TOY_CLASSES[labels[int(row), int(column)] - 1] == animal["name"]


def test_the_same_arguments_draw_the_same_files(tmp_path):
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        write_toy(tmp_path / name, images=4, seed=seed, size=(64, 80))
    content = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two", "three")
    ]
    assert content[0] == content[1]
    assert content[0] != content[2]


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="not empty"):
        write_toy(folder, images=4)
    (folder / "mine.txt").unlink()
    write_toy(folder, images=4, size=(64, 64))  # an empty folder may be filled
    assert (folder / "VOC2012" / "classes.txt").is_file()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("als.data.toy._write_xml", stop)
    with pytest.raises(KeyboardInterrupt):
        write_toy(tmp_path / "other", images=4)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("options", [{"images": 3}, {"size": (63, 160)}])
def test_too_little_to_draw_is_refused(tmp_path, options):
    with pytest.raises(InputError):
        write_toy(tmp_path / "toy", **options)
