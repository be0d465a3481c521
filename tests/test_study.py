"""The study: cases, rows, resumption, summary."""

import importlib.util
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from scipy.stats import ttest_1samp
from tiny import lively_detector

from als.checkpoint import build_detector, save_checkpoint
from als.cli import main
from als.config import ModelConfig
from als.data.layouts import load_records
from als.data.masks import palette
from als.data.record import MaskSource, Record
from als.data.rle import write_runs
from als.data.toy import TOY_CLASSES, write_toy
from als.errors import InputError
from als.evaluation.bootstrap import Resampled, draw_weights, holm, resampled_mean
from als.explain import EXPLAINERS, default_explainers, make_maps
from als.explain.blackbox import drise
from als.inference import Predictor
from als.study import interventions, study_figures
from als.study.cases import (
    StudiedPhoto,
    cases_of,
    keypoints_of,
    match_detections,
    own_instances,
    own_seed,
    size_name,
)
from als.study.interventions import rows_of_the_table
from als.study.study_command import (
    _announce,
    _load,
    chosen,
    measure_names,
    shard_slice,
    study,
)
from als.study.study_figures import chosen_cases
from als.study.study_rows import (
    COLUMNS,
    _check_settings,
    _write_parquet,
    measured_rows,
    read_rows,
    run_study,
)
from als.study.summary import by_group, differences, found_share, interval, summarise

MAPS = ["localization", "classification", "gradcam", "box_gaussian", "random"]
MEASURES = ["energy_box", "mask_iou", "head_focus"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study-data")
    write_toy(folder, images=12, size=(64, 96))
    return folder


@pytest.fixture(scope="module")
def records(root):
    return load_records("VOC2012:trainval", root, TOY_CLASSES)


MANY = {"score_threshold": 0.0, "nms_threshold": 0.9, "detections_per_image": 400}
MANY |= {"rpn_pre_nms_test": 500, "rpn_post_nms_test": 200, "classes": TOY_CLASSES}


@pytest.fixture(scope="module")
def detector():
    """Random, but with so many detections that some overlap an object."""
    return lively_detector(**MANY).float()


@pytest.fixture(scope="module")
def predictor(detector):
    return Predictor(detector, {})


def prediction(boxes, labels):
    return SimpleNamespace(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, int),
        scores=np.linspace(0.9, 0.1, len(labels)),
    )


def record_of(boxes, labels):
    return SimpleNamespace(boxes=np.array(boxes, np.float32), labels=np.array(labels))


def test_an_object_is_found_by_the_best_score_of_its_class_that_overlaps_it():
    record = record_of([[0, 0, 10, 10], [50, 0, 60, 10]], [1, 2])
    found = prediction(
        [[0, 0, 10, 4], [0, 0, 10, 9], [0, 0, 10, 10], [50, 0, 60, 10]], [1, 1, 1, 1]
    )
    # Row 0 overlaps by 0.4, row 2 has the larger IoU but the lower score, row 3 another class.
    assert match_detections(record, found) == {0: 1}


def test_a_detection_goes_to_the_object_that_it_overlaps_most():
    record = record_of([[0, 0, 10, 10], [0, 0, 10, 14]], [1, 1])
    assert match_detections(record, prediction([[0, 0, 10, 14]], [1])) == {1: 0}
    assert match_detections(record, prediction([], [])) == {}
    # By exactly a half is enough.
    record = record_of([[0, 0, 10, 10]], [1])
    assert match_detections(record, prediction([[0, 0, 10, 4.9], [0, 0, 10, 5]], [1, 1])) == {0: 1}


def test_cases_have_regions_of_their_own(records, predictor):
    keypoints = keypoints_of(records)
    heads = 0
    for record in records:
        cases = cases_of(
            record, TOY_CLASSES, predictor.predict(record.path), keypoints.get(record.image_id, [])
        )
        assert [case.index for case in cases] == list(np.flatnonzero(~record.difficult))
        for case in cases:
            if record.mask is None:
                assert case.mask is None and case.known.all() and case.head is None
                continue
            assert case.mask.any() and not (case.mask & ~case.box).any()
            assert not (case.mask & ~case.known).any()
            if case.head is not None:
                heads += 1
                assert (case.head & case.mask).any()
    assert heads > 0


def test_animals_of_photographs_in_subfolders_are_found(tmp_path):
    write_toy(tmp_path, 4)
    folder = tmp_path / "VOC2012"
    for kind in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject"):
        files = list((folder / kind).iterdir())
        (folder / kind / "cam1").mkdir()
        for file in files:
            file.rename(file.parent / "cam1" / file.name)
    listed = folder / "ImageSets/Main/trainval.txt"
    listed.write_text("".join(f"cam1/{name}\n" for name in listed.read_text().split()))
    file = folder / "Keypoints/animal_keypoints.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({f"cam1/{name}": told for name, told in known.items()}))
    records = load_records("VOC2012:trainval", tmp_path, TOY_CLASSES)
    assert len(keypoints_of(records)) == len(known) > 0


def test_without_instances_an_object_is_what_its_class_has_in_its_box(tmp_path):
    """A dog, a cat, a difficult dog that is no case but another object, a dog without a pixel."""
    path = tmp_path / "SegmentationClass" / "a.png"
    path.parent.mkdir()
    values = np.array([[1, 1, 2, 2], [1, 255, 2, 1]], np.uint8)
    Image.fromarray(values).save(path)
    boxes = np.array([[0, 0, 3, 2], [1, 0, 4, 2], [3, 1, 4, 2], [2, 0, 3, 1]], np.float32)
    difficult = np.array([False, False, True, False])
    source, labels = MaskSource("png", path, ("dog", "cat")), np.array([1, 2, 1, 1])
    record = Record("a", tmp_path / "a.jpg", (2, 4), boxes, labels, difficult, source)
    dog, cat, hidden = cases_of(record, ("dog", "cat"), prediction([], []), [])
    assert dog.mask.astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert cat.mask.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 1, 0]]
    assert dog.others.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert cat.others.astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 1]]
    np.testing.assert_array_equal(dog.known, values != 255)
    assert hidden.index == 3 and hidden.mask is None and hidden.known.all()


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_an_object_is_its_instance_where_the_data_tell_instances_apart(tmp_path, layout):
    """Two circles that overlap: by the class mask each has pixels of the other in its box."""
    write_toy(tmp_path, images=4, size=(64, 96))
    voc = tmp_path / "VOC2012"
    (name,) = (voc / "ImageSets" / "Main" / "trainval.txt").read_text().split()[:1]
    one, other = np.zeros((2, 64, 96), bool)
    one[5:30, 5:30], other[10:35, 20:50] = True, True
    one &= ~other
    numbers = (one + 2 * other).astype(np.uint8)
    for kind, values in (("SegmentationClass", (numbers > 0) * 1), ("SegmentationObject", numbers)):
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(palette())
        image.save(voc / kind / f"{name}.png")
    boxes = "".join(
        f"<object><name>circle</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in ((20, 10, 50, 35), (5, 5, 30, 30))  # not in the order of the map
    )
    size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
    xml = f"<annotation><filename>{name}.jpg</filename>{size}{boxes}</annotation>"
    (voc / "Annotations" / f"{name}.xml").write_text(xml)
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text(f"{name}\n")
    (record,) = load_records("VOC2012:trainval", tmp_path, ("circle",))
    if layout == "coco":
        segments = [write_runs(pixels) for pixels in (other, one)]
        content = {
            "images": [{"id": 1, "file_name": f"{name}.jpg", "width": 96, "height": 64}],
            "categories": [{"id": 1, "name": "circle"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": segment}
                | {"bbox": box, "area": box[2] * box[3]}
                for i, (segment, box) in enumerate(
                    zip(segments, ([20, 10, 30, 25], [5, 5, 25, 25]), strict=True), start=1
                )
            ],
        }
        folder = tmp_path / "coco"
        (folder / "annotations").mkdir(parents=True)
        (folder / "train").mkdir()
        (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
        shutil.copy(record.path, folder / "train" / f"{name}.jpg")
        (record,) = load_records("coco:train", tmp_path, ("circle",))
    nothing = prediction([], [])
    first, second = cases_of(record, ("circle",), nothing, [])
    np.testing.assert_array_equal(first.mask, other)
    np.testing.assert_array_equal(second.mask, one)
    np.testing.assert_array_equal(first.others, one)


def test_an_instance_of_another_class_is_not_taken_for_a_hidden_object():
    """A rider, mostly hidden: the horse's instance fits the rider's box better than the rider's."""
    rider, horse = np.zeros((2, 40, 40), bool)
    rider[5:20, 6:35], horse[20:35, 5:35], horse[6:35, 5] = True, True, True
    boxes = np.array([[5, 5, 35, 35], [5, 6, 35, 35]], np.float32)
    first, second = own_instances([rider, horse], boxes, [horse, rider])
    np.testing.assert_array_equal(first, rider)
    np.testing.assert_array_equal(second, horse)


def test_an_instance_of_one_row_has_an_area():
    row, own = np.zeros((2, 4, 8), bool)
    row[1, :6], own[1, :5] = True, True
    (cut,) = own_instances([row], np.array([[0, 1, 6, 2]], np.float32), [own])
    np.testing.assert_array_equal(cut, own)


def test_sizes_have_cocos_borders():
    sizes = [size_name(np.array([0, 0, side, side])) for side in (31, 32, 95, 96)]
    assert sizes == ["small", "medium", "medium", "large"]
    # By the area, whatever the longer side: 600 and 1,200 pixels.
    boxes = np.array([[5, 5, 65, 15], [5, 5, 15, 65], [5, 5, 65, 25], [5, 5, 25, 65]])
    assert [size_name(box) for box in boxes] == ["small", "small", "medium", "medium"]


@pytest.fixture(scope="module")
def rows(records, predictor, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    return run_study({"toy": predictor}, records, out, MAPS, MEASURES, progress=False)


def test_there_is_a_row_for_each_found_object_map_and_measure(rows, records):
    found = rows[rows["measure"] == "found"]
    assert len(found) == sum((~record.difficult).sum() for record in records)
    assert found["value"].sum() > 5, "the toy detector finds too little to test on"
    measured = rows[rows["measure"] != "found"]
    assert len(measured) == found["value"].sum() * len(MAPS) * len(MEASURES)
    assert not measured.duplicated(["image_id", "object", "map", "measure"]).any()


def test_passes_are_the_images_that_go_through_the_whole_network(predictor, records):
    photos = (StudiedPhoto(predictor, record, drise_masks=12) for record in records)
    photo = next(photo for photo in photos if photo.seen)
    hooks = [len(module._forward_pre_hooks) for module in predictor.detector.modules()]
    asked = dict.fromkeys(["drise", "localization", "gradcam"], ["passes", "seconds"])
    rows = pd.DataFrame(measured_rows(photo, asked))
    value = rows.groupby(["map", "measure"])["value"].sum().unstack()
    assert dict(value["passes"]) == pytest.approx({"drise": 12, "gradcam": 0, "localization": 0})
    assert (value["seconds"] > 0).all()
    assert hooks == [len(module._forward_pre_hooks) for module in predictor.detector.modules()]


def test_a_gaussian_in_the_box_has_more_of_itself_there_than_noise(rows):
    energy = rows[rows["measure"] == "energy_box"].pivot_table(
        index=["image_id", "object"], columns="map", values="value"
    )
    assert (energy["box_gaussian"] > energy["random"]).mean() > 0.9


def test_the_attention_maps_are_of_the_image_and_grad_cam_is_of_a_detection(predictor, records):
    analysis = predictor.analyse(records[0].path)
    scene = predictor.scene(analysis, [0, len(analysis.prediction.scores) - 1])
    alike = {name: np.array_equal(*make_maps(name, scene)) for name in MAPS}
    assert alike["localization"] and alike["classification"]
    assert not alike["gradcam"] and not alike["box_gaussian"]


def test_odam_takes_the_largest_of_the_class_score_and_the_four_deltas(predictor, records):
    analysis = predictor.analyse(records[0].path)
    scene = predictor.scene(analysis, [0, len(analysis.prediction.scores) - 1])
    each = [make_maps("gradact", scene, kind) for kind in ("softmax", "dx", "dy", "dw", "dh")]
    with np.errstate(invalid="ignore"):
        scaled = [np.nan_to_num(maps / maps.max((1, 2), keepdims=True)) for maps in each]
    np.testing.assert_allclose(make_maps("odam", scene), np.max(scaled, axis=0), rtol=1e-5)


def test_two_processes_fill_one_folder(rows, root, detector, tmp_path, monkeypatch):
    monkeypatch.setattr(interventions, "RESAMPLES", 10)
    file = tmp_path / "toy.safetensors"
    save_checkpoint(detector, file)
    out, options = tmp_path / "out", {"resume": True, "interventions": True, "limit": 5}
    given = [[str(file)], "VOC2012:trainval", root, out, MAPS, MEASURES]
    for shard in ("1/2", "2/2"):
        study(*given, **options, shard=shard)
        assert not (out / "summary.json").exists(), "a half is no result"
    kept = {file: file.stat().st_mtime_ns for file in (out / "parts").rglob("*.*")}
    study(*given, **options)
    assert kept == {file: file.stat().st_mtime_ns for file in (out / "parts").rglob("*.*")}
    together = read_rows(out)
    assert together["image_id"].nunique() == 5
    alone = rows[rows["image_id"].isin(together["image_id"])]
    keys = ["image_id", "object", "map", "measure"]
    one, two = (r.sort_values(keys, ignore_index=True)[[*keys, "value"]] for r in (together, alone))
    pd.testing.assert_frame_equal(one, two, check_exact=False)
    table = pd.read_csv(out / "interventions.csv")
    assert len(table.groupby(["map", "by"], dropna=False)) == len(rows_of_the_table())
    assert {"AP50", "AP75", "class_error", "box_error"} <= set(table["measure"])


def test_an_interrupted_study_goes_on_to_the_same_rows(rows, records, predictor, tmp_path):
    first = {"toy": predictor}
    run_study(first, records[:4], tmp_path, MAPS[:3], MEASURES, progress=False)
    before = len(read_rows(tmp_path))
    run_study(first, records[:4], tmp_path, MAPS[:3], MEASURES, resume=True, progress=False)
    assert len(read_rows(tmp_path)) == before, "a finished study measures nothing again"
    run_study(first, records, tmp_path, MAPS, MEASURES, resume=True, progress=False)
    keys = ["image_id", "object", "map", "measure"]
    one, two = (r.sort_values(keys, ignore_index=True) for r in (rows, read_rows(tmp_path)))
    pd.testing.assert_frame_equal(one[two.columns], two)


def test_a_part_that_was_altered_is_one_sentence(tmp_path):
    part = tmp_path / "parts" / "00000.parquet"
    part.parent.mkdir()
    table = pyarrow.Table.from_pandas(pd.DataFrame({name: [1.0] for name in COLUMNS}))
    told = {b"pandas": table.schema.metadata[b"pandas"].replace(b"pandas_type", b"pandas_tyPe")}
    parquet.write_table(table.replace_schema_metadata(told), part)
    with pytest.raises(InputError, match=r"00000\.parquet.*--resume measures"):
        read_rows(tmp_path)


def test_what_two_processes_measured_counts_once(tmp_path):
    rows = pd.DataFrame({name: ["a", "a"] for name in COLUMNS} | {"object": [0, 1]})
    for part in ("00000-a", "00000-b"):
        _write_parquet(rows.assign(value=0.5), tmp_path / "parts" / f"{part}.parquet")
    assert read_rows(tmp_path)["object"].tolist() == [0, 1]


@pytest.mark.parametrize("shard", ["2", "0/2", "3/2", "a/b", "1/2/3"])
def test_a_shard_is_one_of_several(shard):
    with pytest.raises(InputError, match="as 1/2 and 2/2"):
        shard_slice(shard)


def test_a_folder_holds_one_study(rows, records, predictor, detector, tmp_path):
    given = [records[:1], tmp_path, ["uniform"], ["energy_box"]]
    run_study({"toy": predictor}, *given, progress=False)
    with pytest.raises(InputError, match="pass --resume"):
        run_study({"toy": predictor}, *given, progress=False)
    with pytest.raises(InputError, match="other seed"):
        run_study({"toy": predictor}, *given, seed=1, resume=True, progress=False)
    other = Predictor(lively_detector(1, classes=TOY_CLASSES).float(), {})
    with pytest.raises(InputError, match="other checkpoints"):
        run_study({"toy": other}, *given, resume=True, progress=False)


def test_a_model_without_attention_is_studied_without_its_maps(records, tmp_path):
    plain = Predictor(lively_detector(attention=False, **MANY).float(), {})
    rows = run_study({"plain": plain}, records, tmp_path, MAPS, MEASURES, progress=False)
    assert set(rows["map"]) == {"detector", "gradcam", "box_gaussian", "random"}


def test_another_family_is_studied_as_a_black_box(records, tmp_path):
    """SSDLite gives detections and no more, as torchvision's interface does; that is enough."""
    torch.manual_seed(0)
    options = {"attention": False, "separation": False, "min_size": 96, "max_size": 96}
    options |= {"score_threshold": 0.0, "nms_threshold": 0.9, "detections_per_image": 400}
    config = ModelConfig(TOY_CLASSES, "ssd", "mobilenet_v2", weights=None, **options)
    ssd = Predictor(build_detector(config), {})
    given = [records[:4], tmp_path, ["gradcam", "drise", "box_gaussian"]]
    rows = run_study({"ssd": ssd}, *given, ["energy_box", "insertion"], 0, 5, progress=False)
    assert set(rows["map"]) == {"detector", "drise", "box_gaussian"}
    assert rows.loc[rows["measure"] == "insertion", "value"].between(0, 1).all()
    scene = ssd.scene(ssd.analyse(records[0].path), [0], seed=3, drise_masks=5)
    pair = (scene.boxes[0], int(scene.labels[0]))
    with torch.no_grad():
        wanted = drise(lambda i: ssd.detector(list(i)), scene.image, [pair], 5, seed=3)
    assert np.allclose(make_maps("drise", scene), wanted, atol=1e-6) and wanted.max() > 0
    with pytest.raises(InputError, match="family ssd, without the two branches"):
        make_maps("gradcam", scene)
    with pytest.raises(InputError, match="random_head are for models of family als"):
        run_study({"ssd": ssd}, *given, ["random_head"], resume=True, drise_masks=5)


def test_unknown_names_are_refused_before_anything_runs(records, predictor, tmp_path):
    with pytest.raises(InputError, match="map 'grandcam' is unknown"):
        run_study({"toy": predictor}, records, tmp_path / "new", ["grandcam"], MEASURES)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="measure 'energie' is unknown"):
        run_study({"toy": predictor}, records, tmp_path / "new", MAPS, ["energie"])


def test_groups_stand_for_their_measures():
    faithfulness = ["insertion", "deletion", "over_all"]
    assert measure_names(["faithfulness", "flip", "insertion"]) == [*faithfulness, "flip"]
    assert "energy_mask" in measure_names(None) and "flip" not in measure_names(None)


def test_a_smaller_limit_chooses_a_part_of_a_larger_one():
    items = list(range(50))
    small, large = chosen(items, 10, seed=0), chosen(items, 20, seed=0)
    assert len(small) == 10 and set(small) < set(large) and small == sorted(small)
    assert small != chosen(items, 10, seed=1) and chosen(items, None, 0) == items


def test_interval_counts_images_not_objects():
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    alone = interval(values, np.arange(60))
    # Ten copies of each object in its image say nothing new.
    copied = interval(np.repeat(values, 10), np.repeat(np.arange(60), 10))
    assert copied["low"] == pytest.approx(alone["low"]) and copied["objects"] == 600
    standard_error = values.std(ddof=1) / np.sqrt(60)
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_interval_leaves_out_what_has_no_value():
    result = interval(np.array([1.0, np.nan, 3.0]), np.array(["a", "b", "c"]))
    assert (result["mean"], result["objects"], result["images"]) == (2.0, 2, 2)
    assert interval(np.array([np.nan]), np.array(["a"]))["objects"] == 0


def test_differences_are_paired():
    table = [
        {"image_id": str(i), "object": 0, "map": map, "measure": "energy_mask", "value": value}
        for i in range(30)
        for map, value in (("localization", i + 0.1), ("random", float(i)))
    ]
    (row,) = differences(pd.DataFrame(table)).to_dict("records")
    # Objects differ by far more than 0.1, but each pair differs by just that.
    assert row["first"] == "localization" and row["second"] == "random"
    assert row["low"] == pytest.approx(0.1) and row["high"] == pytest.approx(0.1)
    assert row["separated"] and row["p_holm"] == 0


def test_objects_of_a_photograph_are_paired_and_grouped_one_by_one():
    """A cat that both maps have, and a dog that one of them has not."""
    table = [
        {"image_id": "a", "object": k, "class": name, "map": map, "measure": "energy_mask"}
        | {"value": value}
        for k, name, map, value in (
            *((0, "cat", "localization", 0.9), (0, "cat", "random", 0.2)),
            *((1, "dog", "localization", np.nan), (1, "dog", "random", 0.6)),
        )
    ]
    (row,) = differences(pd.DataFrame(table)).to_dict("records")
    assert row["mean"] == pytest.approx(0.7) and (row["objects"], row["images"]) == (1, 1)
    means = by_group(pd.DataFrame(table), "class").set_index(["map", "class"])["mean"]
    assert means["random"].to_dict() == pytest.approx({"cat": 0.2, "dog": 0.6})
    found = pd.DataFrame({"measure": ["found"] * 3 + ["coverage"], "value": [1.0, 0, 1, 1]})
    assert found_share(found) == {"objects": 3, "found": 2}


def test_a_measure_of_more_pairs_asks_for_more():
    noise = np.random.default_rng(0).normal(size=(3, 80))
    apart = (noise[1] - noise[1].mean()) / noise[1].std(ddof=1)
    noise[1] = noise[0] + apart + 2.4 / np.sqrt(80)  # 2.4 standard errors over `localization`
    table = [
        {"image_id": str(i), "object": 0, "map": name, "measure": "energy_mask", "value": value}
        for name, values in zip(("localization", "gradcam", "random"), noise, strict=True)
        for i, value in enumerate(values)
    ]
    rows = pd.DataFrame(table)
    (alone,) = differences(rows[rows["map"] != "random"]).to_dict("records")
    first = differences(rows).set_index(["first", "second"]).loc["localization", "gradcam"]
    assert 0.01 < alone["p_holm"] < 0.05 and alone["separated"]
    assert first["p_holm"] >= 2 * alone["p_holm"] and first["separated"]
    plain = ttest_1samp(noise[1] - noise[0], 0).pvalue
    assert alone["p_holm"] == pytest.approx(plain, rel=0.3)


def test_a_resample_s_mean_is_over_its_objects():
    """Two objects in the first photograph, one in the second, none in the third."""
    values, image = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 2, 1], [1, 2, 0], [0, 0, 3]])
    mean = resampled_mean(values, image, weights)
    assert mean.whole == 3
    np.testing.assert_allclose(mean.drawn, [3, 1.5, 6, 15 / 4, np.nan])
    # The resample without an object has no part in the interval.
    assert mean.interval == pytest.approx((1.5 + 0.075 * 1.5, 6 - 0.075 * 2.25))


def test_no_spread_is_a_difference_for_sure_or_none():
    same, other = Resampled(0.0, np.zeros(9)), Resampled(0.2, np.full(9, 0.2))
    assert (same.p_value, same.separated) == (1, False)
    assert (other.p_value, other.separated) == (0, True)


def test_one_photograph_says_nothing_of_chance():
    table = [
        {"image_id": "a", "object": k, "map": name, "measure": "energy_mask", "value": value + k}
        for k in range(3)
        for name, value in (("localization", 0.6), ("random", 0.5))
    ]
    (row,) = differences(pd.DataFrame(table)).to_dict("records")
    assert row["mean"] == pytest.approx(0.1) and row["images"] == 1 and not row["separated"]
    assert np.isnan([row["low"], row["high"], row["p_holm"]]).all()
    one = resampled_mean(np.array([0.1, 0.9]), np.array([0, 0]), draw_weights(1, 50))
    assert one.whole == 0.5 and np.isnan([*one.interval, one.p_value, one.detectable]).all()


def test_weights_that_are_shared_cannot_be_written():
    weights = draw_weights(5, 3)
    assert weights.shape == (3, 5) and (weights.sum(1) == 5).all()
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 9


def test_holm_by_hand():
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    np.testing.assert_allclose(corrected, [0.04, 0.09, np.nan, 0.09, 0.9])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def test_gallery_knows_which_end_is_best():
    values = {"image_id": list("abcdefghi"), "object": 0, "map": "gradcam"}
    for measure, best in (("energy_mask", "i"), ("leakage", "a")):
        rows = pd.DataFrame(values | {"measure": measure, "value": np.arange(9.0)})
        cases = chosen_cases(rows, "gradcam", measure)
        assert cases["best"].iloc[0].image_id == best
        assert cases["worst"].iloc[0].image_id == {"i": "a", "a": "i"}[best]
        assert set(cases["median"].image_id) == {"d", "e", "f"}


def test_a_checkpoint_in_the_working_folder_has_that_folder_s_name(detector, tmp_path, monkeypatch):
    save_checkpoint(detector, tmp_path / "mine" / "model.safetensors")
    monkeypatch.chdir(tmp_path / "mine")
    assert list(_load(["model.safetensors"], "cpu")) == ["mine"]


def test_the_command_writes_what_a_reader_opens(root, detector, tmp_path):
    file = tmp_path / "toy.safetensors"
    save_checkpoint(detector, file)
    given = [
        [str(file)],
        "VOC2012:trainval",
        root,
        tmp_path / "out",
        MAPS,
        ["where", "part", "cost"],
    ]
    (folder,) = study(*given, limit=5, gallery=True)
    summary = summarise(read_rows(folder))
    assert all(of_map["seconds"]["mean"] > 0 for of_map in summary.values())
    assert list(summary) == MAPS and 0 <= summary["gradcam"]["energy_box"]["mean"] <= 1
    names = {path.name for path in folder.iterdir()}
    assert {"summary.json", "differences.csv", "per_class.csv", "per_size.csv"} <= names
    assert {"forest.png", "classes.png", "record.json", "rows.parquet"} <= names
    # The photographs are not ours to commit, wherever the folder is.
    assert list((folder / "gallery").glob("*.png"))
    assert (folder / "gallery" / ".gitignore").read_text() == "*\n"
    with pytest.raises(InputError, match="other data"):
        study(given[0], "VOC2012:test", *given[2:], resume=True)


@pytest.mark.parametrize(
    ("maps", "measures", "of_photo", "of_object"),
    [
        (["uniform", "gradcam"], ["energy_box"], 0, 0),
        (["drise"], ["energy_box"], 30, 0),
        (["greedy"], ["energy_box"], 0, 484),
        (["uniform", "gradcam"], ["deletion"], 0, 2 * 19),
        (["uniform"], ["over_all"], 0, 2 * 19),
        (["drise"], ["insertion", "deletion", "over_all"], 30, 2 * 19),
    ],
)
def test_it_says_how_many_passes_come(maps, measures, of_photo, of_object, predictor, root, capsys):
    records = load_records("VOC2012:trainval", root, TOY_CLASSES)[:3]
    objects = sum(int((~record.difficult).sum()) for record in records)
    _announce({"toy": predictor}, records, maps, measures, drise_masks=30)
    passes = 3 * of_photo + objects * of_object
    said = capsys.readouterr().out
    assert (f"at most {passes:,} detections" in said) if passes else "at most" not in said


def test_without_the_library_its_maps_are_left_out(monkeypatch):
    slow = [name for name, one in EXPLAINERS.items() if one.slow]
    if importlib.util.find_spec("pytorch_grad_cam"):
        assert set(default_explainers()) == set(EXPLAINERS) - set(slow)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pytorch_grad_cam" else find(name)
    )
    library = {"gradcam++", "layercam", "eigencam"}
    assert set(default_explainers()) == set(EXPLAINERS) - library - set(slow)


@pytest.mark.parametrize(
    "wrong, said",
    [(["--maps", "grandcam"], "'grandcam' is unknown"), (["--shard", "3/2"], "as 1/2 and 2/2")],
)
def test_the_command_line_says_what_is_wrong(wrong, said, root, detector, tmp_path, capsys):
    file = tmp_path / "toy.safetensors"
    save_checkpoint(detector, file)
    given = ["study", str(file), "--data", "VOC2012:test", "--root", str(root)]
    with pytest.raises(SystemExit) as stop:
        main([*given, "--out", str(tmp_path / "out"), *wrong])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_interventions_without_masks_are_refused_before_anything_runs(detector, tmp_path):
    write_toy(tmp_path / "toy", 4)
    for masks in ("SegmentationClass", "SegmentationObject", "SBD"):
        shutil.rmtree(tmp_path / "toy/VOC2012" / masks, ignore_errors=True)
    save_checkpoint(detector, tmp_path / "toy.safetensors")
    given = [[str(tmp_path / "toy.safetensors")], "VOC2012:trainval", tmp_path / "toy"]
    with pytest.raises(InputError, match="two photographs with masks"):
        study(*given, tmp_path / "out", ["uniform"], ["energy_box"], interventions=True)
    assert not (tmp_path / "out/parts").exists()


@pytest.mark.parametrize(
    ("attention", "options", "told"),
    [
        (False, {"interventions": True}, "--interventions: no checkpoint here has attention"),
        (True, {"gallery": True}, "--gallery: goes by energy_mask; name it"),
    ],
)
def test_what_would_write_nothing_is_refused_before_anything_runs(
    attention, options, told, root, tmp_path
):
    checkpoint = tmp_path / "toy.safetensors"
    save_checkpoint(lively_detector(classes=TOY_CLASSES, attention=attention).float(), checkpoint)
    given = [[str(checkpoint)], "VOC2012:test", root, tmp_path / "out", ["uniform"]]
    with pytest.raises(InputError, match=told):
        study(*given, ["energy_box"], **options)
    assert not (tmp_path / "out/parts").exists()


def test_masks_that_came_later_are_another_study(detector, tmp_path):
    write_toy(tmp_path / "toy", 4)
    folder = tmp_path / "toy/VOC2012"
    shutil.rmtree(folder / "SegmentationObject")
    (folder / "SegmentationClass").rename(tmp_path / "aside")
    save_checkpoint(detector, tmp_path / "toy.safetensors")
    given = [[str(tmp_path / "toy.safetensors")], "VOC2012:trainval", tmp_path / "toy"]
    given += [tmp_path / "out", ["uniform"], ["mask_iou"]]
    study(*given)
    (tmp_path / "aside").rename(folder / "SegmentationClass")
    with pytest.raises(InputError, match="other data"):
        study(*given, resume=True)


def test_chance_alone_has_a_panel_of_its_own():
    figure = study_figures.forest({"uniform": {"peak_on_head_chance": {"mean": 0.1}}})
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in shown] == ["Peak on the head, chance"]


def test_panels_of_the_class_table_share_their_rows():
    made = (("localization", "energy_mask"), ("gradcam", "energy_mask"), ("random", "coverage"))
    rows = [
        {"image_id": i, "object": 0, "class": c, "map": name, "measure": measure, "value": 0.5}
        for name, measure in made
        for i in "ab"
        for c in ("cat", "dog")
    ]
    table = by_group(pd.DataFrame(rows), "class")
    first, second = study_figures.class_table(table, ("energy_mask", "coverage")).axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == [study_figures.title_of(name) for name, _ in made]
    texts = [[text.get_text() for text in axis.texts] for axis in (first, second)]
    assert texts == [["0.50"] * 4 + ["–"] * 2, ["–"] * 4 + ["0.50"] * 2]


def test_the_gallery_shows_the_maps_that_were_measured(root, detector, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study_figures, "_draw_maps", lambda *given: drawn.append(given[2]))
    save_checkpoint(detector, tmp_path / "toy.safetensors")
    given = [[str(tmp_path / "toy.safetensors")], "VOC2012:trainval", root, tmp_path / "out"]
    options = {"limit": 3, "gallery": True, "seed": 5, "drise_masks": 7}
    study(*given, ["random"], ["energy_mask"], **options)
    assert drawn and all(scene.drise_masks == 7 for scene in drawn)
    ids = {own_seed(record, 5) for record in load_records("VOC2012:trainval", root, TOY_CLASSES)}
    assert {scene.seed for scene in drawn} <= ids


def test_a_folder_of_older_definitions_is_refused(tmp_path):
    """Of the same names, Grad-CAM explained the softmax once; such rows are not mixed."""
    _check_settings(tmp_path, {"seed": 0}, resume=False)
    _check_settings(tmp_path, {"seed": 0}, resume=True)
    with pytest.raises(InputError, match="other definitions"):
        _check_settings(tmp_path, {"seed": 0, "definitions": 2}, resume=True)


@pytest.mark.parametrize("before", ["ab12", None])
def test_a_study_from_before_masks_were_counted_goes_on(tmp_path, before):
    _check_settings(tmp_path, {"data": before}, resume=False)
    now = before and f"{before}, 3 masks, keypoints of 2"
    _check_settings(tmp_path, {"data": now}, resume=True)
    with pytest.raises(InputError, match="other data"):
        _check_settings(tmp_path, {"data": "cd34, 3 masks, keypoints of 2"}, resume=True)
