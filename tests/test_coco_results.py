"""COCO's results JSON: written, taken by pycocotools, judged without a model; and broken ones."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from coco_reference import NAMES, pycocotools_summary
from pycocotools.coco import COCO
from test_evaluation_coco_split import some_detections
from tiny import lively_detector

from als.checkpoint import save_checkpoint
from als.cli import main
from als.data.coco_ids import ids_in, ids_of
from als.data.convert import to_coco
from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.evaluation.coco_results import read_results
from als.evaluation.detections import save_detections
from als.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A detector that finds something; its order of classes is not that of the data."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    detector = lively_detector(classes=TOY_CLASSES[::-1], score_threshold=0.3).float()
    save_checkpoint(detector, path, {})
    return path


def figures(record: dict) -> list[float]:
    """AP, AP50, AP75; the record's null is pycocotools' -1."""
    values = [record["metrics"][f"COCO_{name}"] for name in NAMES[:3]]
    return [-1.0 if value is None else value for value in values]


@pytest.mark.slow
def test_results_of_voc_s_layout_have_the_ids_of_to_coco(checkpoint, toy_root, tmp_path):
    """Judged by pycocotools on the converted data they give the figures of the record."""
    to_coco(toy_root / "VOC2012", ["trainval", "val"], tmp_path / "coco")
    results, record = tmp_path / "results.json", tmp_path / "record.json"
    given = ["evaluate", str(checkpoint), "--data", "VOC2012:trainval", "--root", str(toy_root)]
    main([*given, "--workers=0", f"--coco-results={results}", f"--out={record}"])
    written = json.loads(record.read_text())
    assert len(json.loads(results.read_text())) > 5
    theirs = pycocotools_summary(tmp_path / "coco/annotations/instances_trainval.json", results)[:3]
    assert figures(written) == pytest.approx(theirs, abs=1e-9)

    # Judged again without the model, of a part of the images too.
    alone = tmp_path / "alone.json"
    given = ["evaluate", "--root", str(toy_root), f"--detections={results}", f"--out={alone}"]
    main([*given, "--data", "VOC2012:trainval"])
    again = json.loads(alone.read_text())
    assert again["metrics"] == pytest.approx(written["metrics"], abs=1e-9, nan_ok=True)
    assert again["config"] is again["training"] is again["maps"] is None
    assert list(again["per_class"]) == list(TOY_CLASSES)
    main([*given, "--data", "VOC2012:val"])
    assert json.loads(alone.read_text())["data"]["images"] == len(
        load_records("VOC2012:val", toy_root, TOY_CLASSES)
    )


def test_results_of_coco_s_layout_have_the_file_s_ids(toy_coco, tmp_path):
    """Detections kept in another order of classes become results, all without a model."""
    kept, results, record = (tmp_path / name for name in ("kept.npz", "results.json", "r.json"))
    shuffled = TOY_CLASSES[::-1]
    records = load_records("toy:trainval", toy_coco.parent, shuffled)
    names = [one.image_id for one in records]
    save_detections(kept, names, some_detections(records, len(shuffled)), shuffled)
    given = ["evaluate", "--root", str(toy_coco.parent), "--data", "toy:trainval"]
    given.append(f"--out={record}")
    main([*given, f"--detections={kept}", f"--coco-results={results}"])
    first = figures(json.loads(record.read_text()))
    assert {row["category_id"] for row in json.loads(results.read_text())} == {13, 23, 33}
    main([*given, f"--detections={results}"])
    second = figures(json.loads(record.read_text()))
    theirs = pycocotools_summary(toy_coco / "annotations/instances_trainval.json", results)[:3]
    assert first == pytest.approx(theirs, abs=1e-9) and second == pytest.approx(theirs, abs=1e-9)
    assert 0.1 < first[0] < 0.9


@pytest.mark.slow
def test_predict_writes_results_of_images_that_a_file_lists(checkpoint, toy_coco, tmp_path, capsys):
    """A file as those of COCO's test sets: images and categories, no annotations."""
    file = toy_coco / "annotations" / "instances_trainval.json"
    content = json.loads(file.read_text())
    del content["annotations"]
    listed = tmp_path / "image_info.json"
    listed.write_text(json.dumps(content))
    out = tmp_path / "out"
    given = ["predict", str(checkpoint), str(toy_coco / "trainval"), f"--out={out}"]
    main([*given, "--score-threshold=0.4", f"--coco-ids={listed}"])
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(file)).loadRes(str(out / "coco-results.json"))
    id_of = {entry["file_name"]: entry["id"] for entry in content["images"]}
    name_of = {entry["id"]: entry["name"] for entry in content["categories"]}
    some = 0
    for picture in (toy_coco / "trainval").iterdir():
        found = json.loads((out / f"{picture.stem}.json").read_text())["detections"]
        rows = loaded.imgToAnns[id_of[picture.name]]
        assert [name_of[row["category_id"]] for row in rows] == [one["name"] for one in found]
        for row, one in zip(rows, found, strict=True):
            x, y, width, height = row["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(one["box"], abs=1e-3)
        some += len(rows)
    assert some > 5
    capsys.readouterr()
    content["images"] = content["images"][1:]
    listed.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        main([*given, f"--coco-ids={listed}"])
    assert "has no such image" in capsys.readouterr().err


def test_a_folder_in_voc_s_layout_gives_the_ids_of_to_coco(toy_root, tmp_path):
    to_coco(toy_root / "VOC2012", ["trainval"], tmp_path / "coco")
    theirs = ids_in(tmp_path / "coco/annotations/instances_trainval.json")
    ours = ids_in(toy_root / "VOC2012")
    assert ours.categories == theirs.categories
    for name, id_ in theirs.images.items():
        assert ours.of_file(toy_root / "VOC2012/JPEGImages" / name) == id_
    content = json.loads((tmp_path / "coco/annotations/instances_trainval.json").read_text())
    content["images"] = [{"id": 5, "file_name": "cam1\\a.jpg"}]  # as Windows writes it
    (tmp_path / "windows.json").write_text(json.dumps(content | {"annotations": []}))
    assert ids_in(tmp_path / "windows.json").of_file(tmp_path / "cam1" / "a.jpg") == 5
    content["images"].append({"id": 6, "file_name": "cam1/a.jpg"})
    (tmp_path / "windows.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(InputError, match="images 5 and 6 are both cam1/a.jpg"):
        ids_in(tmp_path / "windows.json")
    with pytest.raises(InputError, match="has no Annotations"):
        ids_in(tmp_path)


ROW = {"image_id": 1, "category_id": 13, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "holds no COCO results"),
        ("[1]", "holds no COCO results"),
        ("[{", "cannot be read as COCO's results"),
        ([ROW, ROW | {"image_id": 999}], "result 1 .*image_id is 999, which is none"),
        ([ROW | {"image_id": True}], "image_id is True, which is none"),
        ([ROW | {"image_id": [1]}], r"image_id is \[1\], which is none"),
        ([ROW | {"category_id": 1}], "category_id is 1, which is none of the data set's categor"),
        ([ROW | {"bbox": [1, 2, math.nan, 4]}], "width of bbox is nan; write a number"),
        ([ROW | {"bbox": [1, 2, -3, 4]}], "bbox is .*; write x, y, width, height"),
        ([ROW | {"bbox": [1, 2, 3]}], "bbox is .*; write x, y, width, height"),
        ([ROW | {"bbox": [1e308, 2, 1e308, 4]}], r"result 0 .*x \+ width of bbox is inf"),
        ([ROW | {"score": math.inf}], "score is inf; write a number"),
        ([{"image_id": 1, "category_id": 13}], "bbox is missing or null"),
    ],
)
def test_broken_results_are_told_in_a_sentence(toy_coco, tmp_path, content, told):
    records = load_records("toy:trainval", toy_coco.parent, TOY_CLASSES)
    ids = ids_of(records)
    ids.images[records[0].image_id] = 1
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=told) as raised:
        read_results(path, ids, TOY_CLASSES)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_categories_that_are_not_judged_are_left_out(toy_coco, tmp_path):
    records = load_records("toy:trainval", toy_coco.parent, TOY_CLASSES)
    ids = ids_of(records)
    assert ids.categories == {name: 13 + 10 * k for k, name in enumerate(TOY_CLASSES)}
    image_id = ids.images[records[0].image_id]
    rows = [ROW | {"image_id": image_id, "category_id": 13 + 10 * k} for k in range(3)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    (found,) = read_results(path, ids, TOY_CLASSES[1:]).values()
    assert found.labels.tolist() == [1, 2]
    np.testing.assert_array_equal(found.boxes[0], [1, 2, 4, 6])


def test_results_in_several_files_are_judged_together(toy_coco, tmp_path):
    records = load_records("toy:trainval", toy_coco.parent, TOY_CLASSES)
    image_ids = ids_of(records).images
    rows = [ROW | {"image_id": image_ids[record.image_id]} for record in records[:2]]
    whole, first, second = (tmp_path / f"{name}.json" for name in ("whole", "first", "second"))
    for path, some in ((whole, rows), (first, rows[:1]), (second, rows[1:])):
        path.write_text(json.dumps(some))
    together, parts = (
        evaluate(None, records, classes=TOY_CLASSES, detections=paths)["confusion"]
        for paths in ([whole], [first, second])
    )
    assert together == parts
    with pytest.raises(InputError, match="first.json: detections of .*, which another file has"):
        evaluate(None, records, classes=TOY_CLASSES, detections=[whole, first])


def test_results_are_of_one_data_set(toy_coco, toy_root, tmp_path, capsys):
    (tmp_path / "toy").symlink_to(toy_coco)
    (tmp_path / "VOC2012").symlink_to(toy_root / "VOC2012")
    path = tmp_path / "results.json"
    path.write_text("[]")
    given = ["evaluate", "--root", str(tmp_path), f"--out={tmp_path / 'record.json'}"]
    for arguments, told in (
        (["--detections", str(path), "--data", "toy:trainval + VOC2012:test"], "of one data set"),
        (["--data", "toy:trainval"], "give a checkpoint, or --detections"),
    ):
        with pytest.raises(SystemExit):
            main([*given, *arguments])
        assert told in capsys.readouterr().err
    main([*given, "--data", "toy:trainval", "--detections", str(path)])  # nothing found at all
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["metrics"]["AP50_area"] == 0
