"""`als reproduce` on drawn data: the plan, an interruption, what is skipped, other configs."""

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from als.classes import VOC_CLASSES
from als.cli import main
from als.data.layouts import load_records
from als.data.record import fingerprint
from als.data.toy import TOY_CLASSES
from als.errors import InputError
from als.evaluation.detections import Detections, load_judgeable, save_detections
from als.files import read_json, write_json
from als.tables import training_steps
from als.tables.comparison import Compare
from als.tables.measured import MEASURES, frame
from als.tables.plan import describe, evaluations_of, make_plan, reproduce
from als.tables.render import steps
from als.tables.rows import COMPACT, TABLES
from als.tables.stage_config import Settings, stage_config
from als.tables.training_steps import Evaluate, Prepare, Train
from als.training.same_config import comparable

ROOT = Path(__file__).parents[1]
TINY = {
    "model.classes": list(TOY_CLASSES),
    "model.weights": None,
    "model.pool_size": 3,
    "model.attention_width": 8,
    "model.min_size": 96,
    "model.max_size": 128,
    "model.rois_per_image": 8,
    "model.rpn_post_nms_train": 20,
    "model.rpn_post_nms_test": 20,
    "model.score_threshold": 0.0,
    "data.batch_size": 3,
    "data.min_sizes": [96],
    "data.max_size": 128,
    "data.workers": 0,
    "epochs": 1,
}


def tiny_settings(root, folder, **changes) -> Settings:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    given = {"data_root": root, "results": folder / "results", "runs": folder / "runs"}
    return Settings("compact", **(given | {"changes": TINY, "trainer": quiet} | changes))


class StopAt(L.Callback):
    """SIGTERM after a step of the run in a folder, as a cluster sends it."""

    def __init__(self, out: str, step: int):
        self.out, self.step = out, step

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == self.step and module.run_config.out.endswith(self.out):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def reproduced(toy_root, tmp_path_factory):
    """Table 2 on the toy data, stopped in the middle and given again: (settings, what was told)."""
    folder = tmp_path_factory.mktemp("table2")
    settings = tiny_settings(toy_root, folder)
    stopped = dict(settings.trainer) | {"callbacks": [StopAt("compact/als-stage1", 1)]}
    told: list[list[str]] = [[], []]
    with pytest.raises(SystemExit):
        plan = make_plan("table2", tiny_settings(toy_root, folder, trainer=stopped))
        reproduce(plan, told[0].append)
    plan = make_plan("table2", settings)
    text = describe(plan)
    reproduce(plan, told[1].append)
    return settings, told, text


def test_it_goes_on_where_it_was_interrupted(reproduced):
    settings, (first, second), text = reproduced
    assert "train compact/als-stage1" in first[-1]
    assert "faster-rcnn-seed0.json" in first[-2], "the first row was finished by then"
    assert "resumes" in next(line for line in text.splitlines() if "als-stage1 ->" in line)
    assert "train compact/als-stage1" in second[0]
    assert not set(first[:-1]) & set(second), "a finished step was done again"


def test_every_row_has_a_whole_record(reproduced):
    settings, *_ = reproduced
    lists = settings.data_root / "VOC2012" / "ImageSets" / "Main"
    names = (lists / "trainval.txt").read_text().split()
    for key in COMPACT:
        record = read_json(settings.results / f"table2-compact/{key}-seed0.json")
        assert {"metrics", "per_class", "config", "revision", "machine", "seconds"} <= set(record)
        assert record["seed"] == 0 and record["data"]["fingerprint"]
        assert record["training"]["data"]["fingerprint"]
        first, second = record["stages"]
        for stage in (first, second):
            # The time is that of both sittings, the number of images that of the whole training.
            images = stage["images_per_second"] * stage["hours"] * 3600
            assert images == pytest.approx(len(names) // 3 * 3, rel=1e-6)
            assert stage["machine"]["threads"] > 0 and stage["config"]["epochs"] == 1
        assert record["config"]["separation"] == (key not in ("faster-rcnn", "attention"))
        assert record["config"]["attention"] == (key not in ("faster-rcnn", "separation"))
        kept = load_judgeable(settings.results / f"table2-compact/{key}-seed0.npz").detections
        assert len(kept) == record["data"]["images"]


def test_rows_of_like_separation_share_their_first_stage(reproduced):
    settings, told, _ = reproduced
    trained = [text for part in told for text in part if "train compact" in text]
    assert sum("faster-rcnn" in text and "faster-rcnn ->" in text for text in trained) == 1
    assert len(list(settings.runs.rglob("model.safetensors"))) == 2 + len(COMPACT)


def test_the_bootstrap_serves_the_table(reproduced):
    settings, *_ = reproduced
    found = read_json(settings.results / "table2-compact/bootstrap.json")
    assert len(found["steps"]) == 10 and found["images"] == 6
    for step in found["steps"]:
        first, second = (
            read_json(settings.results / f"table2-compact/{step[k]}-seed0.json")["metrics"]
            for k in ("first", "second")
        )
        difference = second["AP50_area"] - first["AP50_area"]
        assert step["AP50_area"]["difference"] == pytest.approx(difference, abs=1e-9)
    assert "not run" not in set(steps("table2", settings.results)["compact"])


def test_a_bootstrap_of_other_steps_is_made_anew(reproduced, tmp_path):
    settings, *_ = reproduced
    results = shutil.copytree(settings.results, tmp_path / "results")
    file = results / "table2-compact/bootstrap.json"
    made = read_json(file)
    write_json(file, made | {"steps": made["steps"][:-1]})
    (step,) = make_plan("table2", Settings(**(vars(settings) | {"results": results}))).todo
    assert isinstance(step, Compare)
    step.run()
    assert step.state() == "done" and len(read_json(file)["steps"]) == len(made["steps"])


def test_a_bootstrap_that_does_not_say_of_which_records_is_made_anew(tmp_path):
    folder = tmp_path / "table2-compact"
    for key in ("faster-rcnn", "proposed"):
        told = {"metrics": {"AP50_area": 0.5}, "per_class": {}}
        write_json(folder / f"{key}-seed0.json", told)
        (folder / f"{key}-seed0.npz").touch()
    value = dict.fromkeys(("difference", "low", "high", "detectable"), 0.1)
    value |= {"seed_spread": None, "per_seed": {"0": 0.1}}
    step = {"first": "faster-rcnn", "second": "proposed"} | dict.fromkeys(MEASURES, value)
    write_json(folder / "bootstrap.json", {"steps": [step]})
    assert Compare("table2", Settings("compact", results=tmp_path)).state() == "to do"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({}, "its metrics is missing"),
        ({"metrics": [], "per_class": {}}, "its metrics is missing or of another kind"),
        ({"metrics": {}, "per_class": {}, "stages": [{}, {}]}, "its stages.config is missing"),
    ],
)
def test_a_broken_record_is_one_sentence_to_reproduce(tmp_path, broken, told):
    write_json(tmp_path / "table2-compact/proposed-seed0.json", broken)
    settings = Settings("compact", results=tmp_path, runs=tmp_path / "runs", rows=("proposed",))
    with pytest.raises(InputError, match=f"proposed-seed0.json: is no record .*{told}"):
        describe(make_plan("table2", settings))


def test_a_record_of_a_config_that_no_version_reads_is_another_one(tmp_path):
    stages = [{"config": {"x": 1}}] * 2
    made = {"metrics": {}, "per_class": {}, "stages": stages}
    write_json(tmp_path / "table2-compact/proposed-seed0.json", made)
    settings = Settings("compact", results=tmp_path, runs=tmp_path / "runs", rows=("proposed",))
    assert "a config that cannot be read" in describe(make_plan("table2", settings))


def test_a_bootstrap_of_other_photographs_is_refused(reproduced, tmp_path):
    settings, *_ = reproduced
    shutil.copytree(settings.source / "VOC2012", tmp_path / "VOC2012")
    listed = tmp_path / "VOC2012/ImageSets/Main/test.txt"
    listed.write_text("\n".join(listed.read_text().split()[:-1]))
    with pytest.raises(InputError, match="seed0.json: was made with other photographs"):
        Compare("table2", replace(settings, data_root=tmp_path)).run()


def test_one_photograph_has_no_bootstrap(toy_root, tmp_path):
    root = shutil.copytree(toy_root, tmp_path / "data")
    main_lists = root / "VOC2012/ImageSets/Main"
    (main_lists / "test.txt").write_text((main_lists / "train.txt").read_text().split()[0])
    records = load_records("VOC2012:test", root, TOY_CLASSES)
    found = [Detections(r.boxes, r.labels, np.ones(len(r.labels))) for r in records]
    made = {"metrics": {"AP50_area": 1.0}, "per_class": {}, "config": {"classes": TOY_CLASSES}}
    made |= {"data": {"images": len(records), "fingerprint": fingerprint(records)}}
    for key in ("separation", "proposed"):
        path = tmp_path / f"table2-compact/{key}-seed0.json"
        write_json(path, made)
        save_detections(path.with_suffix(".npz"), [r.image_id for r in records], found)
    step = Compare("table2", Settings("compact", root, results=tmp_path))
    with pytest.raises(InputError, match="one photograph"):
        step.run()
    assert not step.target.exists()


def test_what_is_there_is_skipped(reproduced):
    settings, *_ = reproduced
    plan = make_plan("table2", settings)
    assert not plan.todo and describe(plan).endswith("nothing to do")
    (settings.results / "table2-compact/attention-seed0.json").rename(aside := settings.runs / "a")
    plan = make_plan("table2", settings)
    aside.rename(settings.results / "table2-compact/attention-seed0.json")
    assert [step.title.split(" -> ")[0] for step in plan.todo] == [
        "evaluate VOC2012:test",
        "paired bootstrap over the images",
    ]


def test_a_finished_record_without_detections_is_left(tmp_path):
    """Its training would be done anew and written over it."""
    (tmp_path / "table2-compact").mkdir()
    for file in (ROOT / "results/table2-compact").glob("proposed-seed0.*"):
        shutil.copy(file, tmp_path / "table2-compact")
    plan = make_plan("table2", Settings("compact", results=tmp_path, runs=tmp_path / "runs"))
    todo = [step.target.name for step in plan.todo if isinstance(step, Evaluate)]
    assert "residual-seed0.json" in todo and "proposed-seed0.json" not in todo


def test_times_are_measured_or_derived_or_unknown(reproduced):
    settings, *_ = reproduced
    other = Settings(**(vars(settings) | {"seeds": (1,)}))
    lines = describe(make_plan("table2", other)).splitlines()
    stage2 = next(line for line in lines if "table2-compact/attention-seed1:" in line)
    assert "measured on" in stage2
    stage1 = next(line for line in lines if "compact/als-stage1-seed1:" in line)
    assert "measured on" in stage1 and " MB" in stage1
    full = describe(make_plan("table1", Settings("full", results=settings.runs / "none")))
    rfcn = next(line for line in full.splitlines() if "train paper/voc-rfcn" in line)
    assert "2.2 h (at least, derived for a V100)" in rfcn
    assert ("there is no GPU here" in full) == (not torch.cuda.is_available())
    assert "there is no GPU here" not in "\n".join(lines), "all of it was measured"
    evaluation = next(line for line in full.splitlines() if "rfcn-seed0.json" in line)
    assert evaluation.endswith("unknown")


@pytest.mark.parametrize("lacks", [{"seconds": None}, {"seconds": None, "config": None}])
def test_a_record_of_saved_detections_tells_no_time(tmp_path, lacks):
    made = read_json(ROOT / "results" / "table2-compact" / "proposed-seed1.json")
    write_json(tmp_path / "judged.json", made | lacks)
    plan = make_plan("table2", Settings("compact", results=tmp_path, runs=tmp_path / "runs"))
    told = [line for line in describe(plan).splitlines() if "proposed-seed0.json" in line]
    assert [line.rpartition(": ")[2] for line in told] == ["unknown"]


def test_a_record_of_another_config_is_left_and_named(reproduced):
    settings, *_ = reproduced
    changed = Settings(**(vars(settings) | {"changes": TINY | {"optimizer.lr": 0.5}}))
    plan = make_plan("table2", changed)
    assert not any(isinstance(step, Train) for step in plan.todo)
    text = describe(plan)
    assert text.count("made with another config") == len(COMPACT) and "optimizer.lr" in text
    forced = make_plan("table2", Settings(**(vars(changed) | {"force": True})))
    assert sum(isinstance(step, Train) for step in forced.todo) == len(COMPACT) + 2
    # Where the data lie, and how many processes load them, makes no other network.
    moved = Settings(**(vars(settings) | {"changes": TINY | {"data.workers": 1}}))
    assert not make_plan("table2", moved).todo


def test_force_makes_later_stages_anew_and_keeps_the_old(reproduced, tmp_path):
    settings, *_ = reproduced
    runs, results = tmp_path / "runs", tmp_path / "results"
    shutil.copytree(settings.runs, runs)
    shutil.copytree(settings.results, results)
    changes = TINY | {"optimizer.lr": 1e-4}  # stage 2 has it already, stage 1 has not
    given = vars(settings) | {"runs": runs, "results": results, "changes": changes}
    reproduce(make_plan("table2", Settings(**(given | {"force": True}))), [].append)
    assert not make_plan("table2", Settings(**given)).todo
    old = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.old1"))
    assert sum(path.startswith("runs") for path in old) == len(COMPACT) + 2
    assert sum(path.startswith("results") for path in old) == 2 * len(COMPACT)  # record, detections


def test_a_first_stage_that_is_gone_is_not_trained_again(reproduced, tmp_path):
    settings, *_ = reproduced
    shutil.copytree(settings.runs, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/compact/faster-rcnn")
    given = vars(settings) | {"runs": tmp_path / "runs", "results": tmp_path / "none"}
    assert not any(isinstance(s, Train) for s in make_plan("table2", Settings(**given)).todo)


def test_table_3_takes_the_road_through_coco(toy_root, tmp_path):
    folder = tmp_path / "data" / "Everyday"  # with classes of VOC, as COCO's photographs have there
    shutil.copytree(toy_root / "VOC2012", folder)
    first = ("cat", "dog", "horse")
    for path in folder.glob("Annotations/*.xml"):
        text = path.read_text()
        for drawn, name in zip(TOY_CLASSES, first, strict=True):
            text = text.replace(drawn, name)
        path.write_text(text)
    others = [name for name in VOC_CLASSES if name not in first]
    (folder / "classes.txt").write_text("\n".join([*first, *others]))
    lists = folder / "ImageSets" / "Main"
    for split in ("trainval", "test"):
        shutil.copy(lists / f"{split}.txt", lists / f"coco_{split}.txt")
    changes = {name: value for name, value in TINY.items() if name != "model.classes"}
    settings = tiny_settings(folder.parent, tmp_path, rows=("proposed",), changes=changes)
    reproduce(make_plan("table3", settings), [].append)
    assert not make_plan("table3", settings).todo
    record = read_json(settings.results / "table3-compact/proposed-seed0.json")
    assert record["data"]["COCO_areas"] == "masks"
    splits = [stage["config"]["data"]["train"] for stage in record["stages"]]
    assert splits == ["everyday-coco:coco_trainval"] * 2
    assert len(record["config"]["classes"]) == 20
    measured = frame("table3", settings.results).set_index(["key", "column"])["compact"]
    assert measured["proposed", "AP50"] >= measured["proposed", "AP"] >= 0
    assert np.isnan(measured["rfcn", "AP"]), "a row that was not run"


def test_no_row_of_the_ablation_sees_more_images():
    seen = set()
    for run in COMPACT.values():
        configs = [stage_config(s, 0, None, Settings("compact")) for s in run.stages]
        seen.add(tuple((c.epochs, c.data.train, c.data.only_with_masks) for c in configs))
    assert len(seen) == 1
    peers = [
        row.compact for row in TABLES["table1"] if row.key in ("rfcn", "mr-cnn", "ssd300", "ssd512")
    ]
    (budget,) = seen
    for run in peers:
        config = stage_config(run.stages[0], 0, None, Settings("compact"))
        assert config.epochs == sum(epochs for epochs, *_ in budget)


@pytest.mark.parametrize("scale", ["full", "compact"])
@pytest.mark.parametrize("table", list(TABLES))
def test_every_stage_fits_the_one_before(table, scale, tmp_path):
    settings = Settings(scale, tmp_path, results=tmp_path, runs=tmp_path / "runs")
    folders = {}
    for step in evaluations_of(table, settings):
        for before, after in zip(step.stages, step.stages[1:], strict=False):
            assert after.config.start_from == str(before.checkpoint)
            one, two = (s.config.model.to_dict() for s in (before, after))
            changed = {name for name in one if one[name] != two[name]}
            # What the second stage adds: attention, and the loss that gives A_cls a target.
            added = ("weights", "attention", "lambda_part")
            assert all(name.startswith(added) for name in changed)
        for stage in step.stages:
            same = folders.setdefault(stage.target, comparable(stage.config))
            assert same == comparable(stage.config), "two trainings in one folder"


def test_the_dry_run_of_a_full_table_names_data_time_and_disk(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["reproduce", "table1", "--scale", "full", "--dry-run"])
    text = capsys.readouterr().out
    assert "als data prepare voc07+12 data" in text and "als data prepare sbd data" in text
    assert "of unknown time" in text and "derived for a V100" in text and "GB" in text
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


def test_records_of_others_below_the_results_do_not_end_a_dry_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = {"family": "als"}
    others = [
        7,
        {"metrics": [0.5]},
        {"metrics": {}, "stages": [{"hours": 2}]},
        {"metrics": {}, "config": "x", "seconds": {"images_per_second": 2}},
        {"metrics": {}, "config": config, "seconds": {"images_per_second": 0.0}, "data": {}},
        {"metrics": {}, "stages": None, "config": config, "seconds": {"images_per_second": 2.0}},
    ]
    for number, other in enumerate(others):
        write_json(tmp_path / f"results/{number}.json", other)
    main(["reproduce", "table1", "--scale", "full", "--dry-run"])
    assert "derived for a V100" in capsys.readouterr().out


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path, monkeypatch):
    settings = Settings("full", tmp_path / "data", runs=tmp_path / "runs")
    need = r"disk of .*data: (\d+\.\d) GB needed, .* free"
    needed = float(re.search(need, describe(make_plan("table3", settings)))[1])
    assert needed > 40, "COCO's archives and what they hold"
    for free, short in ((needed + 1, False), (needed - 1, True)):
        usage = shutil.disk_usage(tmp_path)._replace(free=int(free * 1e9))
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        assert ("too little, make room" in describe(make_plan("table3", settings))) == short


def test_a_broken_test_split_stops_before_the_first_training(toy_root, tmp_path):
    shutil.copytree(toy_root, tmp_path / "data")
    folder = tmp_path / "data/VOC2012"
    first = (folder / "ImageSets/Main/test.txt").read_text().split()[0]
    (folder / f"Annotations/{first}.xml").write_text("<annotation>")
    told: list[str] = []
    settings = tiny_settings(tmp_path / "data", tmp_path, rows=("separation",))
    with pytest.raises(InputError, match=rf"{first}\.xml"):
        reproduce(make_plan("table2", settings), told.append)
    assert not told and not settings.runs.exists()


def test_prepared_data_that_are_broken_stop_it(toy_root, tmp_path, capsys):
    for year in ("VOC2007", "VOC2012"):
        shutil.copytree(toy_root / "VOC2012", tmp_path / "data" / year)
    photo = next((tmp_path / "data/VOC2007/JPEGImages").iterdir())
    photo.write_bytes(photo.read_bytes()[:500])
    step = Prepare("voc07+12", Settings("full", tmp_path / "data"))
    with pytest.raises(InputError, match="1 problems, see the table above"):
        step.run()
    assert photo.name in capsys.readouterr().out


def test_what_set_made_another_row_is_in_the_record(reproduced):
    settings, *_ = reproduced
    record = read_json(settings.results / "table2-compact/proposed-seed0.json")
    changed = record["changed_options"]
    assert {"epochs", "model.pool_size", "data.batch_size"} <= set(changed)
    assert "data.workers" not in changed and "model.attention_bias" not in changed


def test_compact_data_that_are_missing_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "table3", "--scale", "compact", "--data-root", "nowhere"])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "to-coco nowhere/Everyday --splits coco_trainval coco_test" in printed.out
    assert "give --data-root" in printed.err


def test_a_change_that_names_no_option_is_refused(tmp_path):
    settings = Settings("compact", tmp_path, changes={"model.atention": True})
    with pytest.raises(InputError, match="atention"):
        make_plan("table2", settings)


def test_rows_can_be_chosen(tmp_path):
    settings = Settings("compact", tmp_path, runs=tmp_path, rows=("separation",), seeds=(1, 2))
    chosen = evaluations_of("table2", settings)
    assert [(step.run_of.name, step.seed) for step in chosen] == [
        ("table2-compact/separation", 1),
        ("table2-compact/separation", 2),
    ]
    # Faster R-CNN's own figure is of its authors.
    with pytest.raises(InputError, match="'faster-rcnn-original' is no row of table1; there are"):
        make_plan("table1", Settings("compact", tmp_path, rows=("faster-rcnn-original",)))


def test_a_record_keeps_every_loss_and_no_step_of_validation(tmp_path):
    file = tmp_path / "metrics.csv"
    lines = ["step,loss,loss_cls,loss_part,lr,val_AP50", "49,3,2,1.5,0.1,", "50,,,,,0.7"]
    file.write_text("\n".join([*lines, "99,1,0.5,0.25,0.1,"]))
    curve = {"step": [49, 99], "loss": [3, 1], "loss_cls": [2, 0.5], "loss_part": [1.5, 0.25]}
    assert training_steps._curve(file) == curve
