"""The benchmarks run from end to end at their smallest, and their arithmetic is right."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny import lively_detector

from als.checkpoint import load_checkpoint, save_checkpoint
from als.data.layouts import load_records
from als.data.toy import TOY_CLASSES
from als.evaluation.evaluate import evaluate
from als.files import write_json
from als.model import Detector
from benchmarks import ablation_maps, focus, goals, growth, masks
from benchmarks.__main__ import main
from benchmarks.goals import MAIN, RATIOS, Goal, name_of
from benchmarks.mask_sources import projection_loss
from benchmarks.networks import SHARE, build, build_side
from benchmarks.recording import Setting, machine_name
from benchmarks.timing import Turns, in_turns

# Random weights, but with so many detections that some overlap an object.
MANY = {"score_threshold": 0.0, "nms_threshold": 0.9, "detections_per_image": 400}
MANY |= {"rpn_pre_nms_test": 500, "rpn_post_nms_test": 200, "classes": TOY_CLASSES}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(record, files in the folder, what was printed) of one quick run."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(
            "builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words)))
        )
        main(["--quick", "--out", str(folder)])
    path = folder / f"{machine_name('cpu')}.json"
    return json.loads(path.read_text()), sorted(f.suffix for f in folder.iterdir()), printed


def test_every_figure_is_measured(bench):
    record, suffixes, printed = bench
    not_needed = {name for name in RATIOS if "peer" in name}  # where grad-cam is not installed
    not_needed.add("memory_vs_frcnn_resnet50")  # two more processes are not for a test
    measured = record["ratios"] | record["more_ratios"]
    assert RATIOS.keys() - not_needed <= measured.keys() <= RATIOS.keys()
    assert set(MAIN) - not_needed <= record["ratios"].keys() <= set(MAIN)
    assert not record["ratios"].keys() & record["more_ratios"].keys()
    assert all(np.isfinite(value) and value > 0 for value in measured.values())
    for name, value in measured.items():
        low, high = record["spread"][name]
        assert low <= value <= high
    assert record["voc_eval_seconds"] > 0 and record["quick"] is True
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert suffixes == [".json"]
    table = "\n".join(printed)
    assert all(name in table for name in (*RATIOS, "voc_eval_seconds"))


def test_the_two_ways_of_detecting_agree(bench):
    facts = bench[0]["facts"]
    for name in ("compact", "resnet50"):
        found = facts[f"detection {name}"]
        assert found["difference_to_naive"] < 1e-3
        assert found["als"]["proposals"] == found["frcnn"]["proposals"] == [20]
        assert found["gflop"]["als"] < found["gflop"]["naive"]
    assert facts["detection resnet50"]["als"]["share_over_threshold"][0] == pytest.approx(
        SHARE, abs=0.051
    )


def test_a_ratio_is_taken_within_its_round():
    # The machine slows down to a third after the first round: the sides' own medians would lie.
    turns = Turns({"one": [1.0, 6.0, 9.0], "other": [2.0, 6.0, 6.0]})
    ratio = turns.ratio("one", "other")
    assert (ratio.median, ratio.low, ratio.high) == (1.0, 0.5, 1.5)
    assert turns.seconds("one").median == 6.0


def test_sides_run_in_turns_and_swap_their_order():
    ran = []
    turns = in_turns({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"
    assert all(len(seconds) == 3 for seconds in turns.rounds.values())


def test_goals_are_upper_or_lower_bounds():
    assert Goal(2).met(2) and not Goal(2).met(2.1)
    assert Goal(2, at_most=False).met(2) and not Goal(2, at_most=False).met(1.9)
    assert Goal(None).met(7) is None


def test_a_name_without_a_model_is_the_one_with_the_goal():
    assert name_of("detection_vs_frcnn", "compact") == "detection_vs_frcnn"
    assert name_of("detection_vs_frcnn", "resnet50") == "detection_vs_frcnn_resnet50"
    assert name_of("maps_vs_detection", "resnet50") == "maps_vs_detection"
    assert name_of("maps_vs_detection", "compact") == "maps_vs_detection_compact"


def test_the_table_judges_and_says_what_was_not_run():
    record = {
        "ratios": {"detection_vs_frcnn": 1.2, "gradcam_speedup_vs_peer": 4.0},
        "more_ratios": {"predict_folder_speedup": 1.6},
        "spread": {
            "detection_vs_frcnn": [1.1, 1.3],
            "gradcam_speedup_vs_peer": [3, 5],
            "predict_folder_speedup": [1.4, 1.7],
            "voc_eval_seconds": [1, 2],
        },
        "voc_eval_seconds": 1.5,
    }
    rows = {line.split()[0]: line for line in goals.table(record).splitlines()[1:]}
    assert (
        rows["detection_vs_frcnn"].endswith("met") and "1.10 to 1.30" in rows["detection_vs_frcnn"]
    )
    assert rows["gradcam_speedup_vs_peer"].endswith("missed")
    assert rows["predict_folder_speedup"].endswith("met")
    assert rows["training_vs_frcnn"].endswith("not run")
    assert rows["voc_eval_seconds"].endswith("met")


def test_both_sides_share_the_weights_that_both_have():
    subject = build("compact", Setting(quick=True))
    base, als = subject.base.state_dict(), subject.als.state_dict()
    assert base.keys() < als.keys() and all(torch.equal(base[key], als[key]) for key in base)
    assert subject.baseline.backbone[0] is subject.base.trunk
    assert subject.baseline.roi_heads.box_head is subject.base.roi_heads.conv5_cls
    with torch.no_grad():
        image = subject.tensors[0]
        ours, theirs = subject.base([image])[0], subject.baseline([image])[0]
    torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-4)


def test_exponents_of_power_laws():
    sizes = [10, 20, 40, 80]
    whole, last = growth.exponents(sizes, [3 * n**1.5 for n in sizes])
    assert whole == pytest.approx(1.5) and last == pytest.approx(1.5)
    # A fixed cost of 100 hides in the fit over all; between the largest it shows less.
    whole, last = growth.exponents(sizes, [100 + n for n in sizes])
    assert 0 < whole < last < 1


def test_growth_writes_every_curve(tmp_path, capsys):
    main(["growth", "--quick", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("growth-*.json")
    curves = json.loads(path.read_text())["curves"]
    assert len(curves) == 4
    told = capsys.readouterr().out
    for name, grown in curves.items():
        assert len(grown["seconds"]) == len(grown["sizes"]) == 3 and name in told


@pytest.mark.parametrize("format", ["torchscript"])  # tests/test_export.py has the others
def test_an_exported_file_is_checked_and_timed(format, tmp_path, capsys):
    main(["export_speed", "--quick", "--formats", format, "--out", str(tmp_path)])
    (path,) = tmp_path.glob("export-*.json")
    record = json.loads(path.read_text())
    assert set(record["seconds_a_detection"]) == {"eager", format}
    facts = record["files"][format]
    assert 0 <= facts["largest_difference"] <= 1e-3 and facts["vs_eager"] > 0
    assert f"{format} " in capsys.readouterr().out


def test_growth_changes_what_it_says():
    detector = build_side("compact", "als", Setting(quick=True))
    by_name = growth.curves(detector, Setting(quick=True))
    shapes = []
    with torch.no_grad():
        for side in (64, 128):
            encoding = detector.encode([by_name["image side"].prepare(side)])
            shapes.append(tuple(encoding.images.tensors.shape[-2:]))
        assert shapes == [(64, 64), (128, 128)]
        for count in (5, 10):
            image = by_name["proposals"].prepare(count)
            assert len(detector.propose(detector.encode([image]))[0]) == count
    assert len(by_name["detections explained"].prepare(4)) == 4
    assert len(by_name["images evaluated"].prepare(7)[0]) == 7


def test_maps_of_trainings_stand_side_by_side(tmp_path, capsys):
    for seed, name in enumerate(("f-loc-seed0", "run-seed1")):
        run = tmp_path / name
        run.mkdir()
        save_checkpoint(lively_detector(seed).float(), run / "model.safetensors")
    figure = ablation_maps.maps_of(sorted(tmp_path.iterdir()))
    axes = [axis for axis in figure.axes if axis.images]
    titles = [axis.get_title() for axis in axes if axis.get_title()]
    assert titles == ["F_cls = F_loc A_cls, seed 0", "run-seed1"]
    pictures = [np.asarray(axis.images[0].get_array()) for axis in axes]
    assert len(pictures) == 8 and not np.array_equal(pictures[0], pictures[1])
    plain = tmp_path / "plain"
    plain.mkdir()
    save_checkpoint(lively_detector(0, attention=False).float(), plain / "model.safetensors")
    with pytest.raises(SystemExit) as stopped:
        main(["ablation_maps", str(plain), "--out", str(tmp_path / "maps.png")])
    assert stopped.value.code == 1 and "no attention maps" in capsys.readouterr().err
    assert not (tmp_path / "maps.png").exists()


def test_ap_and_the_maps_places_come_from_the_same_detections(toy, tmp_path, monkeypatch, capsys):
    runs = [tmp_path / name / "run" / "model.safetensors" for name in "ab"]
    for run in runs:
        run.parent.mkdir(parents=True)
        save_checkpoint(lively_detector(**MANY).float(), run)
    given = ["--data", "VOC2012:val", "--root", str(toy), "--out", str(tmp_path / "focus.json")]
    calls, detect = [], Detector.detect
    monkeypatch.setattr(Detector, "detect", lambda *a, **k: calls.append(1) or detect(*a, **k))
    main(["focus", str(runs[0]), *given])
    told = json.loads((tmp_path / "focus.json").read_text())["checkpoints"]["run"]
    records = load_records("VOC2012:val", toy, TOY_CLASSES)
    assert len(calls) == len(records)
    metrics = evaluate(load_checkpoint(runs[0])[0], records, workers=0)["metrics"]
    assert told["AP"] == pytest.approx(metrics["AP"], abs=0.02)
    assert {"class_weights", "image_gaussian"} <= told["maps"].keys() and told["found"] > 0
    assert (tmp_path / "focus.png").exists()
    plain = tmp_path / "plain" / "model.safetensors"
    plain.parent.mkdir()
    save_checkpoint(lively_detector(**MANY, attention=False).float(), plain)
    main(["focus", str(plain), str(tmp_path / "focus.json"), *given])
    assert list(json.loads((tmp_path / "focus.json").read_text())["checkpoints"]) == [
        "plain",
        "run",
    ]
    with pytest.raises(SystemExit):
        main(["focus", *map(str, runs), *given])
    assert "another is called run too" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*made from boxes")
def test_no_map_is_measured_by_masks_made_from_boxes(toy, tmp_path, capsys):
    root = shutil.copytree(toy, tmp_path / "data")
    shutil.rmtree(root / "VOC2012/SegmentationObject")
    told = PngInfo()
    told.add_text("derived", "from boxes by als data masks")
    for file in (root / "VOC2012/SegmentationClass").glob("*.png"):
        with Image.open(file) as image:
            image.load()
            image.save(file, pnginfo=told)
    given = ["--data", "VOC2012:trainval", "--root", str(root), "--out", str(tmp_path / "o.json")]
    checkpoints = [str(tmp_path / name) for name in ("own.safetensors", "plain.safetensors")]
    for path, attention in zip(checkpoints, (True, False), strict=True):
        save_checkpoint(lively_detector(**MANY, attention=attention).float(), path)
    main(["focus", checkpoints[0], *given])
    (one,) = json.loads((tmp_path / "o.json").read_text())["checkpoints"].values()
    assert one["found"] and one["maps"]["localization"]["head_focus"]["objects"] == 0
    with pytest.raises(SystemExit):
        main(["smuggle", *checkpoints, *given])
    assert "no object has a true mask" in capsys.readouterr().err


@pytest.mark.parametrize("values", [(None, None, None), (0.5, 0.55, 0.7)])
def test_what_has_no_value_or_lies_beside_its_interval_is_drawn(tmp_path, values):
    value = dict(zip(("mean", "low", "high"), values, strict=True))
    maps = {name: dict.fromkeys(focus.MEASURES, value) for name in focus.MAPS}
    one = {"AP50_area": 0.5, "AP": 0.3, "maps": maps, "fingerprint": "x"}
    write_json(tmp_path / "r.json", {"checkpoints": {"run": one}})
    main(["focus", str(tmp_path / "r.json"), "--data", "x:y", "--out", str(tmp_path / "o.json")])
    assert (tmp_path / "o.png").exists()


def test_ap_of_a_way_to_run_is_that_of_a_model_with_this_config(toy, tmp_path):
    sizes = {"min_size": 96, "max_size": 128, "rpn_pre_nms_test": 500, "rpn_post_nms_test": 200}
    many = {"score_threshold": 0.0, "nms_threshold": 0.9, "detections_per_image": 400}
    detector = lively_detector(**sizes, **many, classes=TOY_CLASSES).float()
    save_checkpoint(detector, tmp_path / "own.safetensors")
    given = [str(tmp_path / "own.safetensors"), "--data", "VOC2012:val", "--root", str(toy)]
    given += ["--out", str(tmp_path / "t.json")]
    main(["tradeoff", *given, "--sides", "64", "96", "--proposals", "5", "200"])
    told = json.loads((tmp_path / "t.json").read_text())
    rows = {(row["side"], row["proposals"]): row for row in told["rows"]}
    assert rows.keys() == {(64, 5), (64, 200), (96, 5), (96, 200)}
    assert told["own"] == {"side": 96, "proposals": 200} and told["anchors"] == 500
    records = load_records("VOC2012:val", toy, TOY_CLASSES)
    metrics = evaluate(detector, records, workers=0)["metrics"]
    assert rows[96, 200]["AP"] == pytest.approx(metrics["AP"], abs=1e-6) and metrics["AP"] > 0
    assert rows[96, 5]["AP"] != rows[96, 200]["AP"] != rows[64, 200]["AP"]
    main(["tradeoff", *given, "--anchors", "4", "--sides", "96", "--proposals", "200"])
    (few,) = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert few["AP"] < rows[96, 200]["AP"]


def test_masks_from_boxes_are_compared_with_the_truth(toy, tmp_path):
    pytest.importorskip("cv2", reason="needs OpenCV, the extra 'masks'")
    out = tmp_path / "masks.json"
    main(
        ["masks", "--root", str(toy), "--data", "VOC2012:train", "--out", str(out)]
        + ["--photographs", "3", "--classes", *TOY_CLASSES]
    )
    record = json.loads(out.read_text())
    assert record["photographs"] == 3
    assert record["sides"]["boxes"]["iou"] < record["sides"]["grabcut"]["iou"] <= 1


def test_a_photograph_of_void_objects_alone_is_not_compared(toy, tmp_path):
    pytest.importorskip("cv2", reason="needs OpenCV, the extra 'masks'")
    root = shutil.copytree(toy, tmp_path / "data")
    folder = root / "VOC2012"
    shutil.rmtree(folder / "SegmentationObject")
    name = next(r for r in load_records("VOC2012:train", root, TOY_CLASSES) if r.mask).image_id
    note, mask = folder / f"Annotations/{name}.xml", folder / f"SegmentationClass/{name}.png"
    note.write_text(note.read_text().replace("<difficult>0", "<difficult>1"))
    Image.fromarray(np.full_like(np.array(Image.open(mask)), 255)).save(mask)
    sides = masks.compare("VOC2012:train", root, TOY_CLASSES, 80)["sides"]
    assert all(np.isfinite(side["iou"]) for side in sides.values())


def test_projections_ask_each_row_and_column_of_a_box():
    boxes, size = [torch.tensor([[16.0, 16.0, 48.0, 48.0]])], [(64, 64)]
    undecided = torch.zeros(1, 1, 4, 4)
    loss = projection_loss(undecided, boxes, size)
    torch.testing.assert_close(loss, torch.tensor(2 * np.log(2), dtype=torch.float32))
    diagonal = torch.full((1, 1, 4, 4), -20.0)
    diagonal[0, 0, 1, 1] = diagonal[0, 0, 2, 2] = 20.0  # touches both rows and both columns
    assert projection_loss(diagonal, boxes, size) < 1e-6
    diagonal[0, 0, 2, 2] = -20.0
    assert projection_loss(diagonal, boxes, size) == pytest.approx(20 * 2 / 4, abs=1e-4)
    outside = torch.full((1, 1, 5, 5), -20.0)
    outside[0, 0, 1:3, 1:3] = outside[0, 0, 4, 4] = 20.0  # the last cell is padding
    assert projection_loss(outside, boxes, size) < 1e-6
    none = projection_loss(undecided, [torch.zeros(0, 4)], size)
    torch.testing.assert_close(none, torch.tensor(np.log(2), dtype=torch.float32))
