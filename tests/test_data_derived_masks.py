"""Masks made from boxes: true ones stay, made ones say so, are resumed, and measure nothing."""

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from als.cli import main
from als.config import DataConfig, ModelConfig, TrainConfig
from als.data import derived_masks
from als.data.check import check_folder
from als.data.convert import to_coco
from als.data.dataset import DetectionDataset
from als.data.derived_masks import derive_masks, is_derived, object_of_pixels, without_derived
from als.data.layouts import load_records
from als.data.masks import fill, read_class_map, read_object_map
from als.data.rle import VOID
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from als.training.train import DetectionData

pytest.importorskip("cv2", reason="needs OpenCV, the extra 'masks'")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Twelve drawn images, three of them without a mask."""
    root = tmp_path_factory.mktemp("derived")
    write_toy(root / "toy", images=12, seed=3, size=(64, 80))
    return root / "toy"


@pytest.fixture
def voc(toy, tmp_path):
    """Without class and object masks but for image 0's."""
    folder = shutil.copytree(toy / "VOC2012", tmp_path / "set")
    shutil.rmtree(folder / "SegmentationObject")
    for path in (folder / "SegmentationClass").glob("*.png"):
        if path.stem != "toy_000000":
            path.unlink()
    return folder


@pytest.fixture
def coco(voc):
    to_coco(voc, ["train", "val"], voc.parent / "coco")
    return voc.parent / "coco"


def records(folder, split):
    return load_records(f"{folder.name}:{split}", folder.parent, TOY_CLASSES)


def iou(one, two):
    known = (one != VOID) & (two != VOID)
    both = (one == 1) & (two == 1) & known
    return both.sum() / (((one == 1) | (two == 1)) & known).sum()


def test_masks_are_nearer_to_the_truth_than_boxes(voc, toy, tmp_path):
    told = []
    assert derive_masks(voc, tell=told.append) == 5
    assert check_folder(voc).empty
    truth = load_records("VOC2012:train", toy, TOY_CLASSES)
    cut, filled = [], []
    for made, true in zip(records(voc, "train"), truth, strict=True):
        assert is_derived(made) == (made.image_id != "toy_000000")
        drawn = read_class_map(made, TOY_CLASSES)
        for box, label, hard in zip(made.boxes, made.labels, made.difficult, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            inside = drawn[y1:y2, x1:x2]
            assert (inside == label).any() != hard and (not hard or (inside == VOID).any())
        if true.mask is not None and is_derived(made):
            target = read_object_map(true, TOY_CLASSES)
            cut.append(iou(read_object_map(made, TOY_CLASSES), target))
            filled.append(iou(fill(made.boxes, made.size), target))
    assert np.mean(cut) > np.mean(filled) + 0.05
    with Image.open(voc / "derived-masks.png") as gallery:
        assert gallery.width == 6 * 240
    note = json.loads((voc / "SegmentationClass/derived.json").read_text())
    assert len(note["images"]) == 5 and "GrabCut" in note["by"]
    assert "test, val: left alone" in told[0]
    assert all(r.mask is None for r in records(voc, "val"))
    assert derive_masks(voc, ["val"]) == 3


def broken_off_at_the_third(monkeypatch) -> list:
    """GrabCut is interrupted once, at its third photograph; the photographs that it got."""
    cut, calls = derived_masks.object_of_pixels, []

    def break_off(photo, boxes):
        calls.append(photo)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return cut(photo, boxes)

    monkeypatch.setattr(derived_masks, "object_of_pixels", break_off)
    return calls


def test_where_no_mask_is_wanting_nothing_is_written(toy, tmp_path):
    folder = shutil.copytree(toy / "VOC2012", tmp_path / "set")
    before = sorted(folder.rglob("*"))
    assert derive_masks(folder, ["val"]) == 0
    assert sorted(folder.rglob("*")) == before


def test_true_masks_stay_and_a_second_call_goes_on(voc, monkeypatch):
    true = (voc / "SegmentationClass/toy_000000.png").read_bytes()
    calls = broken_off_at_the_third(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        derive_masks(voc)
    assert len(list((voc / "SegmentationClass").glob("*.png"))) == 1 + 2
    assert derive_masks(voc) == 3 and len(calls) == 3 + 3
    assert derive_masks(voc) == 0
    assert (voc / "SegmentationClass/toy_000000.png").read_bytes() == true
    assert len(json.loads((voc / "SegmentationClass/derived.json").read_text())["images"]) == 5


def test_coco_gets_segmentations_and_keeps_the_rest(coco, voc, monkeypatch):
    path = coco / "annotations/instances_train.json"
    before = path.read_bytes()
    calls = broken_off_at_the_third(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        derive_masks(coco)
    assert path.read_bytes() == before
    waiting = coco / "annotations/derived_train.jsonl"
    waiting.write_text(waiting.read_text() + '["half')  # as a kill leaves it
    assert derive_masks(coco) == 5 and len(calls) == 3 + 3
    assert not waiting.exists() and check_folder(coco).empty
    assert (coco / "annotations/boxes_train.json").read_bytes() == before
    old, new = json.loads(before), json.loads(path.read_text())
    for one, two in zip(old["annotations"], new["annotations"], strict=True):
        if not two.pop("derived", False):
            assert one == two
        assert one | {"segmentation": 0} == two | {"segmentation": 0}
    derive_masks(voc)
    for one, two in zip(records(voc, "train"), records(coco, "train"), strict=True):
        assert is_derived(two) == (two.image_id != "toy_000000")
        same = read_class_map(one, TOY_CLASSES) == read_class_map(two, TOY_CLASSES)
        assert same.mean() > 0.99  # boxes of VOC's XML are whole pixels, both ways


def test_no_map_is_measured_by_a_derived_mask(voc, coco):
    for folder in (voc, coco):
        derive_masks(folder)
        with pytest.warns(UserWarning, match="5 masks were made from boxes"):
            kept = without_derived(records(folder, "train"))
        assert [r.image_id for r in kept if r.mask is not None] == ["toy_000000"]
    with pytest.warns(UserWarning, match="5 masks"):
        to_coco(voc, ["train"], voc.parent / "again")
    again = records(voc.parent / "again", "train")
    assert [r.image_id for r in again if r.mask is not None] == ["toy_000000"]


@pytest.mark.parametrize(
    "boxes", [[[0, 0, 40, 20]], [[3, 3, 4, 4]], [[0, 0, 40, 19.5], [0, 10, 40, 20]]]
)
def test_where_there_is_nothing_to_learn_from_boxes_stay_filled(boxes):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8))
    found = object_of_pixels(photo, np.array(boxes, dtype=float))
    assert np.array_equal(found, derived_masks.fill(np.array(boxes, dtype=float), (20, 40)))


def test_a_large_photograph_is_cut_on_a_small_one():
    small = np.full((100, 120, 3), 90, np.uint8)
    small[30:70, 40:90] = (200, 40, 40)
    large = Image.fromarray(small).resize((1200, 1000), Image.Resampling.NEAREST)
    found = object_of_pixels(large, np.array([[350, 250, 950, 750]]))
    expected = np.zeros((1000, 1200), bool)
    expected[300:700, 400:900] = True
    assert (found == expected).mean() > 0.995


def test_boxes_become_masks_in_the_runs_own_folder(voc, tmp_path, monkeypatch):
    found = {r.image_id: r for r in records(voc, "train")}
    some = next(r for r in found.values() if r.mask is None and len(r.boxes) > 1)
    hard = replace(some, difficult=np.arange(len(some.boxes)) == 0)
    chosen = [some, hard, found["toy_000000"]]
    plain, boxed = (
        DetectionDataset(chosen, TOY_CLASSES, derived=derived) for derived in (None, tmp_path / "m")
    )
    assert "object_map" not in plain[0][1]
    drawn = boxed[0][1]["object_map"]
    assert drawn.dtype == torch.uint8 and tuple(drawn.shape) == some.size
    inside = fill(some.boxes, some.size)
    assert set(np.unique(drawn)) == {0, 1} and not np.asarray(drawn)[~inside].any()
    voided = np.asarray(boxed[1][1]["object_map"])
    assert (voided[fill(some.boxes[:1], some.size)] == VOID).any() and (voided == 1).any()
    assert torch.equal(boxed[2][1]["object_map"], plain[2][1]["object_map"])  # a file goes first
    derive_masks(voc, ["train"])
    written = next(r for r in records(voc, "train") if r.image_id == some.image_id)
    assert np.array_equal(read_object_map(written, TOY_CLASSES), drawn)
    # Each is cut once, whichever process asks.
    monkeypatch.setattr(derived_masks, "object_of_pixels", None)
    again = DetectionDataset(chosen, TOY_CLASSES, derived=tmp_path / "m")
    assert torch.equal(again[0][1]["object_map"], drawn)
    with pytest.raises(InputError, match="leave one of the two out"):
        DataConfig(only_with_masks=True, masks="boxes")


def test_training_alone_learns_from_boxes(voc, tmp_path, monkeypatch):
    (voc / "ImageSets/Main/one.txt").write_text("toy_000004\n")  # has no mask
    data = DataConfig(
        root=str(voc.parent), train="set:one", val="set:one", masks="boxes", workers=0
    )
    model = ModelConfig(classes=TOY_CLASSES)
    config = TrainConfig(out=str(tmp_path / "run"), model=model, data=data)
    module = DetectionData(config)
    loop = SimpleNamespace(total_batch_idx=-1)
    module.trainer = SimpleNamespace(world_size=1, global_rank=0, fit_loop=loop)
    assert "object_map" in next(iter(module.train_dataloader()))[1][0]
    assert "object_map" not in next(iter(module.val_dataloader()))[1][0]
    assert len(list((tmp_path / "run" / "masks").iterdir())) == 1
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        DetectionData(config)


def test_the_command_and_what_it_refuses(voc, capsys):
    main(["data", "masks", str(voc), "--splits", "train"])
    assert "5 masks made" in capsys.readouterr().out
    for arguments, told in (([str(voc), "--splits", "tain"], "no split tain"),
                            ([str(voc.parent)], "there is no split in it")):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["data", "masks", *arguments])
        assert told in capsys.readouterr().err


def test_a_mask_of_an_image_in_a_subfolder_is_told_from_a_true_one(voc):
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (voc / kind / "cam1").mkdir()
        shutil.copy(voc / kind / f"toy_000004.{ending}", voc / kind / "cam1")
    (voc / "ImageSets/Main/one.txt").write_text("cam1/toy_000004\n")
    assert derive_masks(voc, ["one"]) == 1
    (made,) = records(voc, "one")
    assert made.mask is not None and is_derived(made)
    made.mask.path.write_bytes(b"no mask")
    with pytest.raises(InputError, match="cam1/toy_000004.png: the mask cannot be read"):
        without_derived([made])


@pytest.mark.filterwarnings("ignore:.*without iscrowd")
def test_odd_fields_of_coco_that_readers_take_get_masks(coco):
    path = coco / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [str(value) for value in annotation["bbox"]]
        if annotation["iscrowd"]:
            annotation["iscrowd"] = "1"
        elif annotation["id"] % 2:
            annotation["iscrowd"] = "0"
        else:
            del annotation["iscrowd"]
    path.write_text(json.dumps(content), encoding="utf-16")
    assert derive_masks(coco) == 5
    assert all(is_derived(r) for r in records(coco, "train") if r.image_id != "toy_000000")


def test_in_coco_one_name_may_be_two_photographs(coco):
    """0001.jpg of train and of val may be two; where it is copied, val measures by it."""
    annotations = coco / "annotations"
    shutil.rmtree(coco / "val")
    for split in ("more", "val"):
        shutil.copytree(coco / "train", coco / split)
        shutil.copy(annotations / "instances_train.json", annotations / f"instances_{split}.json")
    other = coco / "val" / "toy_000001.jpg"
    Image.new("RGB", Image.open(other).size).save(other)
    assert derive_masks(coco) == 2
    for split in ("train", "more"):
        made = [r.image_id for r in records(coco, split) if r.mask is not None and is_derived(r)]
        assert made == ["toy_000001"], split


def test_more_categories_than_a_pixel_has_values_are_drawn(coco):
    """As LVIS has: a model learns at most 254 of them, but a file may hold more."""
    path = coco / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for part, key in (("categories", "id"), ("annotations", "category_id")):
        for one in content[part]:
            one[key] += 300
    content["categories"] += [{"id": k, "name": f"other {k}"} for k in range(1, 301)]
    path.write_text(json.dumps(content))
    assert derive_masks(coco) == 5
    drawn = [read_class_map(record, TOY_CLASSES) for record in records(coco, "train")]
    assert {0, 1, 2, 3} <= set(np.concatenate(drawn, axis=None))


def test_more_classes_than_a_png_has_values_are_refused(voc):
    """A label of 256 would be written as 0, the background's."""
    (voc / "SegmentationClass/toy_000000.png").unlink()
    names = [f"other {k}" for k in range(1, 253)]
    (voc / "classes.txt").write_text("\n".join([*names, *TOY_CLASSES]))
    with pytest.raises(InputError, match=r"classes\.txt: .* at most 254 classes"):
        derive_masks(voc)
    assert not list((voc / "SegmentationClass").iterdir())
