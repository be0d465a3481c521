"""The command line from toy data to a picture, and what it says of bad input."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import lively_detector

from als.checkpoint import load_checkpoint, save_checkpoint
from als.cli import main
from als.data.layouts import load_records
from als.errors import InputError
from als.evaluation.detections import (
    class_numbers,
    load_judgeable,
    of_classes,
    save_detections,
)
from als.evaluation.evaluate import judge, table

TINY = [
    "--model.classes=[circle,square,triangle]",
    "--model.backbone=mobilenet_v2",
    "--model.weights=null",
    "--model.attention_width=8",
    "--model.pool_size=3",
    "--model.min_size=96",
    "--model.max_size=128",
    "--model.rois_per_image=8",
    "--model.rpn_post_nms_train=20",
    "--model.rpn_post_nms_test=20",
    "--model.score_threshold=0.0",
    "--data.batch_size=4",
    "--data.min_sizes=[96]",
    "--data.max_size=128",
    "--data.workers=0",
    "--data.train=VOC2012:train",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.fixture(scope="module")
def trained(toy_root, tmp_path_factory):
    """A checkpoint that `als train` wrote after one epoch on the toy data."""
    out = tmp_path_factory.mktemp("run")
    main(["train", f"--out={out}", f"--data.root={toy_root}", *TINY])
    return out / "model.safetensors"


def test_evaluate_writes_a_whole_record(trained, toy_root, tmp_path, capsys):
    out = tmp_path / "record.json"
    main(
        ["evaluate", str(trained), "--data", "VOC2012:test", "--root", str(toy_root)]
        + ["--out", str(out), "--workers", "0"]
    )
    record = json.loads(out.read_text())
    assert set(record["per_class"]) == {"circle", "square", "triangle"}
    assert record["config"]["attention_width"] == 8
    assert record["data"]["split"] == "VOC2012:test"
    assert 0 <= record["metrics"]["AP50_area"] <= 1
    assert record["maps"]["cls_mean"] == pytest.approx(0.95, abs=0.05)
    printed = capsys.readouterr().out
    assert "circle" in printed and "AP50_11point" in printed


def test_detections_are_kept_before_they_are_judged_and_judged_again(
    trained, toy_root, tmp_path, capsys, monkeypatch
):
    given = ["evaluate", str(trained), "--root", str(toy_root), "--workers", "0", "--data"]
    first, again = tmp_path / "first.json", tmp_path / "again.json"

    def die(*arguments):
        raise InputError("the judge died.")

    with monkeypatch.context() as patch:
        patch.setattr("als.evaluation.evaluate.judge", die)
        with pytest.raises(SystemExit):
            main([*given, "VOC2012:test", "--out", str(first)])
    kept = first.with_suffix(".npz").read_bytes()
    assert not first.exists()
    main([*given, "VOC2012:test", "--out", str(first)])
    (tmp_path / "kept.npz").write_bytes(kept)
    kept = ["--detections", str(tmp_path / "kept.npz")]
    main([*given, "VOC2012:test", "--out", str(again), *kept])
    one, two = (json.loads(file.read_text()) for file in (first, again))
    assert one.pop("seconds") and two.pop("seconds") is None and one == two
    capsys.readouterr()
    for data, out, says in (
        ("VOC2012:val", again, "kept.npz: detections "),
        ("VOC2012:test", tmp_path / "x.npz", "x.npz: the detections go there"),
    ):
        with pytest.raises(SystemExit):
            main([*given, data, "--out", str(out), *(kept if out == again else ())])
        assert says in capsys.readouterr().err


def test_kept_detections_are_judged_in_part_and_together(trained, toy_root, tmp_path, capsys):
    """Some of the images, and one of the classes; and those of two files."""
    given = ["evaluate", str(trained), "--root", str(toy_root), "--workers", "0", "--data"]
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    main([*given, "VOC2012:trainval", "--out", str(whole)])
    kept = whole.with_suffix(".npz")
    told = ["--classes", "square", "--detections", str(kept)]
    main([*given, "VOC2012:val", "--out", str(part), *told])
    record, saved = json.loads(part.read_text()), load_judgeable(kept)
    records = load_records("VOC2012:val", toy_root, ("square",))
    numbers = class_numbers(saved.classes, ("square",))
    found = [of_classes(saved.detections[one.image_id], numbers) for one in records]
    metrics, _ = judge(found, records, ("square",))
    assert list(record["per_class"]) == ["square"] and len(records) < len(saved.detections)
    assert record["metrics"]["AP50_area"] == metrics["AP50_area"]
    detector, info = load_checkpoint(trained)
    detector.roi_heads.cls_score.bias.data[0] += 1  # another network of the same classes
    save_checkpoint(detector, tmp_path / "other.safetensors", info)
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "other.safetensors"), *given[2:], "VOC2012:val", *told])
    assert "whole.npz: detections of another checkpoint" in capsys.readouterr().err
    both = ["--detections", str(kept), str(tmp_path / "test.npz")]
    main([*given, "VOC2012:test", "--out", str(tmp_path / "test.json")])
    main([*given, "VOC2012:trainval + VOC2012:test", "--out", str(part), *both])
    assert json.loads(part.read_text())["data"]["images"] == 24
    with pytest.raises(SystemExit):
        main([*given, "VOC2012:trainval", "--out", str(part), *both[:2], str(kept)])
    assert "which another file has" in capsys.readouterr().err
    save_detections(tmp_path / "old.npz", list(saved.detections), list(saved.detections.values()))
    with pytest.raises(SystemExit):
        main(["evaluate", *given[2:], "VOC2012:val", *told[:-1], str(tmp_path / "old.npz")])
    assert "does not say of which classes" in capsys.readouterr().err
    shutil.copy(whole, tmp_path / "old.json")  # the record beside them does
    again = ["--out", str(tmp_path / "again.json"), *told[:-1], str(tmp_path / "old.npz")]
    main(["evaluate", *given[2:], "VOC2012:val", *again])
    assert json.loads((tmp_path / "again.json").read_text())["metrics"] == record["metrics"]
    maps = dict(zip(saved.detections, saved.maps, strict=True))
    means = [maps[one.image_id]["cls_mean"] for one in records]
    assert record["maps"]["cls_mean"] == pytest.approx(sum(means) / len(means))


def test_evaluate_writes_its_record_also_when_no_place_is_named(
    trained, toy_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    main(
        ["evaluate", str(trained), "--data", "VOC2012:val", "--root", str(toy_root)]
        + ["--workers", "0"]
    )
    record = json.loads((tmp_path / "record.json").read_text())
    assert {"metrics", "per_class", "config", "data", "revision", "machine", "seconds"} <= {*record}
    assert record["seconds"]["images_per_second"] > 0 and len(record["data"]["fingerprint"]) == 16
    assert "record.json" in capsys.readouterr().out


def test_the_command_line_wins_over_the_file_and_the_run_keeps_the_outcome(toy_root, tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("epochs: 7\nseed: 3\nmodel: {rois_per_image: 5, pool_size: 2}\n")
    first, again = tmp_path / "first", tmp_path / "again"
    main(
        ["train", str(file), f"--out={first}", f"--data.root={toy_root}", *TINY, "--epochs=1"]
        + ["--trainer.accumulate_grad_batches=2", "--trainer.max_steps=1"]
    )
    saved = json.loads((first / "config.json").read_text())
    assert (saved["epochs"], saved["seed"], saved["model"]["rois_per_image"]) == (1, 3, 8)
    assert saved["trainer"]["accumulate_grad_batches"] == 2
    # What the run kept is a config: it makes the same run again.
    main(["train", str(first / "config.json"), f"--out={again}"])
    assert json.loads((again / "config.json").read_text()) == saved | {"out": str(again)}
    one, two = (load_checkpoint(x / "model.safetensors")[0].state_dict() for x in (first, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_predict_writes_picture_and_json(trained, toy_root, tmp_path):
    image = next((toy_root / "VOC2012" / "JPEGImages").glob("*.jpg"))
    main(
        ["predict", str(trained), str(image), "--out", str(tmp_path)]
        + ["--score-threshold", "0.05"]
    )
    written = json.loads((tmp_path / f"{image.stem}.json").read_text())
    with Image.open(image) as original, Image.open(tmp_path / f"{image.stem}.png") as picture:
        assert written["size"] == [original.height, original.width]
        assert picture.width > original.width
    assert written["detections"]
    for found in written["detections"]:
        assert found["score"] > 0.05 and len(found["box"]) == 4


def test_ship_halves_the_file_and_keeps_the_detector(trained, tmp_path):
    out = tmp_path / "shipped.safetensors"
    main(["ship", str(trained), "--out", str(out)])
    assert out.stat().st_size < 0.6 * trained.stat().st_size
    (one, info), (two, shipped_info) = load_checkpoint(trained), load_checkpoint(out)
    assert info == shipped_info and one.config == two.config
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor, two.state_dict()[name], rtol=1e-3, atol=1e-4), name


def test_ship_refuses_what_is_no_evaluation(trained, tmp_path, capsys):
    record = tmp_path / "study.json"
    record.write_text('{"command": "als study", "data": {}}')
    out = tmp_path / "shipped.safetensors"
    with pytest.raises(SystemExit):
        main(["ship", str(trained), "--record", str(record), "--out", str(out)])
    assert "study.json: is no record of `als evaluate`" in capsys.readouterr().err
    assert not out.exists()


def test_ship_refuses_the_record_of_another_checkpoint(trained, toy_root, tmp_path, capsys):
    record, out = tmp_path / "record.json", tmp_path / "shipped.safetensors"
    data = ["--data=VOC2012:val", f"--root={toy_root}", "--workers=0"]
    main(["evaluate", str(trained), *data, f"--out={record}"])
    main(["ship", str(trained), f"--record={record}", f"--out={out}"])
    assert load_checkpoint(out)[1]["figures"]["data"] == "VOC2012:val"
    main(["ship", str(out), f"--record={record}", f"--out={out}"])  # figures it has already
    calibrated, (detector, info) = tmp_path / "calibrated.safetensors", load_checkpoint(trained)
    save_checkpoint(detector, calibrated, info | {"calibration": {"temperature": 2.0}})
    for other in ("twenty", calibrated):
        with pytest.raises(SystemExit):
            main(["ship", str(other), f"--record={record}", f"--out={out}"])
        assert "record.json: is the record of another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["--coco-results=record.json", "--detections=a.json record.json"])
def test_evaluate_writes_over_nothing_that_it_reads_or_wrote(told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "record.json").write_text("[]")
    option, files = told.split("=")
    given = ["--data=VOC2012:val", option, *files.split(), f"--out={tmp_path / 'record.json'}"]
    with pytest.raises(SystemExit):
        main(["evaluate", "shipped", *given])
    assert "record.json: would be written over" in capsys.readouterr().err
    assert (tmp_path / "record.json").read_text() == "[]"


def test_records_whose_names_hold_a_point_keep_their_own_detections(trained, toy_root, tmp_path):
    given = ["evaluate", str(trained), "--data=VOC2012:val", f"--root={toy_root}", "--workers=0"]
    for name in ("r-0.5", "r-0.7"):
        main([*given, f"--out={tmp_path / name}"])
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["r-0.5.npz", "r-0.7.npz"]


def test_a_record_that_cannot_be_written_is_said_before_the_work(trained, tmp_path, capsys):
    given = [str(trained), "--data", "VOC2012:test", "--root", str(tmp_path / "nowhere")]
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *given, "--out", str(tmp_path)])
    assert stop.value.code == 2 and "is a folder" in capsys.readouterr().err


def test_data_check_names_a_broken_file(tmp_path, capsys):
    folder = tmp_path / "toy"
    main(["data", "toy", str(folder), "--images", "8"])
    main(["data", "check", str(folder / "VOC2012")])
    broken = sorted((folder / "VOC2012" / "JPEGImages").glob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(folder / "VOC2012")])
    assert stop.value.code == 2
    assert broken.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], "'fly' is no command"),
        (["evaluate", "nowhere.safetensors", "--data", "VOC2012:test"], "nowhere.safetensors"),
        (["predict", "nowhere.safetensors", "a.jpg"], "nowhere.safetensors"),
        (["train", "--model.classes=[cat]", "--data.root=nowhere"], "nowhere"),
        (["train", "--model.min_size=900", "--model.max_size=500"], "min_size 900"),
        (["calibrate", "shipped", "--data=a:b", "--out=c", "--workers=-1"], "--workers -1"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_has_enough_is_no_error():
    """As of `als configs | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        command = [sys.executable, "-m", "als.cli", "configs"]
        run = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (141, b"")


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "meta", "hpu"])
def test_a_device_that_is_not_there_is_said(trained, toy_root, device, capsys):
    image = next((toy_root / "VOC2012" / "JPEGImages").glob("*.jpg"))
    data = ["--data", "VOC2012:val", "--root", str(toy_root)]
    for arguments in (["predict", str(trained), str(image)], ["evaluate", str(trained), *data]):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--device", device])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert f"device '{device}' " in error and "; try cpu" in error and error.count("\n") == 1


def test_a_trainer_that_cannot_be_had_is_said(toy_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            ["train", f"--out={tmp_path / 'run'}", f"--data.root={toy_root}", *TINY]
            + ["--trainer.accelerator=cpu", "--trainer.devices=0"]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "als: trainer: " in error and "Traceback" not in error


def test_a_misspelt_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--model.atention=true"])
    assert stop.value.code == 2
    assert "atention" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "run.yaml"),
        ("model: [", "run.yaml"),
        ("model: {atention: true}", "atention"),
        ("epochs: many", "many"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path, capsys, content, says):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("als: ") and says in error and error.count("\n") == 1


def test_predictions_go_into_a_folder_that_holds_one_called_predictions(tmp_path, monkeypatch):
    """As the folder where `als predict` ran without --out before."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(lively_detector().float(), Path("model.safetensors"))
    Path("photos").mkdir()
    Image.new("RGB", (90, 60)).save("photos/one.png")
    main(["predict", "model.safetensors", "photos/one.png"])
    main(["predict", "model.safetensors", "photos/one.png", "--out", "."])
    assert Path("one.json").read_bytes() == Path("predictions/one.json").read_bytes()


def test_a_class_called_mean_has_a_row_of_its_own():
    names = ("AP50_11point", "AP50_area", "AP75", "AP")
    of_class, of_all = dict.fromkeys(names, 0.25), dict.fromkeys(names, 0.5)
    record = {"per_class": {"mean": of_class, "cat": of_class}, "metrics": of_all}
    told = [line.split()[:2] for line in table(record, "").splitlines()[2:]]
    assert told == [["mean", "25.0"], ["cat", "25.0"], ["mean", "50.0"]]


def test_a_list_option_given_twice_adds_up(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("als.tables.plan.make_plan", lambda table, settings: seen.append(settings))
    monkeypatch.setattr("als.tables.plan.describe", lambda plan: "")
    options = ["--set", "data.workers=1", "--set", "data.batch_size=3", "--seeds", "1"]
    main(["reproduce", "table2", "--scale=compact", "--dry-run", *options, "--seeds", "2"])
    main(["reproduce", "table2", "--scale=compact", "--dry-run"])
    assert seen[0].changes == {"data.workers": "1", "data.batch_size": "3"}
    assert seen[0].seeds == (1, 2) and seen[1].seeds == (0,)
