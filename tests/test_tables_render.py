"""Tables and bootstrap from made-up records: bold, missing cells, mean and spread by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from als.cli import main
from als.errors import InputError
from als.evaluation.average_precision import match, voc_ap
from als.evaluation.bootstrap import draw_weights, resampled_ap
from als.evaluation.detections import Detections, GroundTruth, load_judgeable, save_detections
from als.files import read_json, write_json
from als.tables.charts import (
    paper_against_measured,
    per_class_chart,
    rows_per_class,
    size_chart,
    steps_chart,
    training_curves,
)
from als.tables.comparison import paired_difference
from als.tables.measured import MEASURES, columns_of, frame
from als.tables.render import (
    by_class,
    classes_over_seeds,
    headline,
    judged_texts,
    markdown,
    reading,
    render,
    sections,
    steps,
    write_tables,
)
from als.tables.rows import COMPARED, ROWS, TABLES

ROOT = Path(__file__).parents[1]


def record(ap50: float, **classes: float) -> dict:
    names = ("AP50_11point", "AP50_area", "AP75", "AP", "COCO_AP", "COCO_AP50", "COCO_APs")
    return {
        "metrics": dict.fromkeys(names, ap50) | {"COCO_APm": ap50, "COCO_APl": None},
        "per_class": {name: {"AP50_11point": value} for name, value in classes.items()},
    }


@pytest.fixture
def results(tmp_path):
    """Two seeds of the compact proposed row, one of separation, one full Faster R-CNN."""
    write_json(tmp_path / "table2-compact/proposed-seed0.json", record(0.60, cat=0.7, person=0.5))
    write_json(tmp_path / "table2-compact/proposed-seed1.json", record(0.63, cat=0.8, person=0.4))
    write_json(tmp_path / "table2-compact/separation-seed0.json", record(0.55))
    write_json(tmp_path / "voc-full/faster-rcnn-seed0.json", record(0.78, aeroplane=0.8))
    return tmp_path


def test_mean_spread_and_difference_by_hand(results):
    cells = frame("table2", results).set_index(["key", "column"])
    proposed = cells.loc[("proposed", "mAP")]
    assert proposed["compact"] == pytest.approx(61.5)
    assert proposed["compact_spread"] == pytest.approx(3 / 2**0.5)  # of 60 and 63, n - 1
    assert proposed["compact_seeds"] == 2
    full = cells.loc[("faster-rcnn", "mAP")]
    assert full["difference"] == pytest.approx(78.0 - 77.2)
    assert np.isnan(full["full_spread"])
    assert cells.loc[("proposed", "AP75"), "compact"] == pytest.approx(61.5)


def test_best_is_bold_and_missing_cells_say_why(results):
    cells = headline(frame("table2", results), ["mAP"])["mAP"]
    proposed, faster = cells.loc["Separation and attention"], cells.loc["Neither: Faster R-CNN"]
    assert proposed["paper"] == "**80.1**" and faster["paper"] == "77.2"
    assert proposed["compact"] == "**61.5 ± 2.1 (2 seeds)**"
    assert cells.loc["Separation", "compact"] == "55.0"
    assert proposed["full"] == proposed["difference"] == "not run"
    assert faster["full"] == "78.0" and faster["difference"] == "+0.8"
    assert faster["compact"] == "not run"
    original = cells.loc["Faster R-CNN, its authors' figure"]
    assert list(original) == ["76.4", "–", "–", "–"]  # its runs do not exist
    assert cells.loc["Attention alone", "paper"] == "–"  # the paper left it out


def test_every_network_of_table_1_has_runs(results):
    cells = next(iter(sections("table1", results).values()))
    for name in ("MR-CNN", "LED300", "SSD512", "R-FCN", "Proposed"):
        (row,) = [line for title, line in cells.iterrows() if title.startswith(name)]
        assert row["mAP", "full"] == "not run"


def test_what_was_trained_with_other_options_is_marked(results):
    changed = record(0.9) | {"changed_options": ["epochs", "optimizer.lr"]}
    write_json(results / "voc-full/proposed-seed0.json", changed)
    ((title, cells), *_) = sections("table2", results).items()
    assert title.endswith("(† with another epochs, optimizer.lr than the row's)")
    of_row = cells.loc["Separation and attention"]
    assert of_row["mAP", "full"] == "**90.0†**" and "†" not in of_row["mAP", "compact"]
    assert r"\textbf{90.0$\dagger$}" in render("table2", results, "latex")


def test_other_files_beside_the_records_are_left_alone(results):
    before = render("table2", results, "csv")
    write_json(results / "table2-compact/proposed-seed0-old.json", record(0.99))
    write_json(results / "table2-compact/proposed-seed.json", record(0.99))
    assert render("table2", results, "csv") == before


def test_equal_as_printed_is_bold_together(results):
    write_json(results / "table2-compact/attention-seed0.json", record(0.61499))
    cells = headline(frame("table2", results), ["mAP"])["mAP"]["compact"]
    assert cells["Attention alone"] == "**61.5**"
    assert cells["Separation and attention"].startswith("**61.5")


def test_the_papers_bold_cell_of_table_1():
    cells = by_class(frame("table1", "nowhere"), "paper")
    assert cells.loc["MR-CNN", "bus"] == "**88.0**"  # the one bold cell that the text kept
    assert cells["bus"].str.startswith("**").sum() == 1


def test_classes_of_the_paper_are_those_of_the_records(results):
    cells = frame("table1", results).set_index(["key", "column"])
    assert cells.loc[("faster-rcnn", "aero"), "full"] == pytest.approx(80.0)
    assert cells.loc[("proposed", "cat"), "compact"] == pytest.approx(75.0)
    shown = by_class(cells.reset_index(), "compact")
    assert set(shown.columns) == {"mAP", "cat", "person"}  # not the 18 that nobody has


def test_table_3_takes_cocos_measures(results):
    write_json(results / "table3-compact/proposed-seed0.json", record(0.41))
    cells = frame("table3", results).set_index(["key", "column"])
    assert cells.loc[("proposed", "APS"), "compact"] == pytest.approx(41.0)
    assert np.isnan(cells.loc[("proposed", "APL"), "compact"])  # no large object
    shown = headline(cells.reset_index(), ["APS"])
    assert shown.loc["Proposed", ("APS", "paper")] == "**19.7**"
    assert shown.loc["Proposed", ("APS", "compact")] == "41.0", "the only figure is not the best"


def test_markdown_latex_and_csv_hold_the_same(results):
    text = render("table2", results, "markdown")
    line = next(line for line in text.splitlines() if line.startswith("| Separation and"))
    head = next(line for line in text.splitlines() if line.startswith("| row"))
    assert line.count("|") == head.count("|")
    assert "**80.1**" in line and "not run" in line
    latex = render("table2", results, "latex")
    assert r"\textbf{80.1}" in latex and r"61.5 $\pm$ 2.1 (2 seeds)" in latex
    assert "**" not in latex and latex.count(r"\begin{table}") == len(sections("table2", results))
    (results / "t.csv").write_text(render("table2", results, "csv"))
    read = pd.read_csv(results / "t.csv").set_index(["key", "column"])
    assert read.loc[("proposed", "mAP"), "compact"] == pytest.approx(61.5)
    with pytest.raises(InputError, match="table4"):
        render("table4", results)


def test_the_command_writes_all_formats(results, capsys):
    main(["tables", "table1", "table3", "--results", str(results), "--out", str(results / "out")])
    assert len(list((results / "out").iterdir())) == 6
    main(["tables", "--results", str(results)])
    printed = capsys.readouterr().out
    assert all(f"Table {n}:" in printed for n in (1, 2, 3))


def some_images(hits: list[bool]):
    """One object an image; the detector finds it (sure) or a wrong place (less sure)."""
    box, wrong = [[0, 0, 10, 10]], [[50, 50, 60, 60]]
    truths = [GroundTruth(box, [1], [False]) for _ in hits]
    found = [Detections(box if hit else wrong, [1], [0.9 if hit else 0.5]) for hit in hits]
    return found, truths


def test_bootstrap_of_a_detector_with_itself_is_zero():
    matches = match(*some_images([True, False] * 10), ("cat",))
    one = resampled_ap(matches, draw_weights(20, 50))
    found = paired_difference({0: one}, {0: one})["AP50_area"]
    assert found["difference"] == found["low"] == found["high"] == found["detectable"] == 0
    assert not found["separated"] and found["seed_spread"] is None


def test_bootstrap_of_a_better_detector_by_hand():
    """Hits come first, so AP by area is the share of images hit, and a resample's is binomial."""
    weights = draw_weights(100, 400)
    rows = []
    for hit in (30, 80):
        found, truths = some_images([k < hit for k in range(100)])
        rows.append(resampled_ap(match(found, truths, ("cat",)), weights))
        whole = voc_ap(found, truths, ("cat",)).mean
        assert {name: figure.whole for name, figure in rows[-1].items()} == pytest.approx(whole)
    difference = paired_difference({0: rows[0], 1: rows[0]}, {0: rows[1], 1: rows[0]})
    found = difference["AP50_area"]
    assert found["per_seed"] == {"0": pytest.approx(0.5), "1": 0}
    assert found["difference"] == pytest.approx(0.25)
    assert found["seed_spread"] == pytest.approx(0.5 / 2**0.5)
    # 50 of 100 images differ: a binomial share, its standard error half for the mean of two.
    assert found["detectable"] == pytest.approx(2.8 * 0.5 * 0.05, rel=0.15)
    assert found["half_width"] == pytest.approx(1.96 * 0.5 * 0.05, rel=0.2)
    assert found["separated"] and found["low"] < 0.25 < found["high"]


def test_steps_read_the_bootstrap(results):
    value = {"difference": 0.021, "low": -0.004, "high": 0.046, "detectable": 0.036}
    step, seeds = {"first": "separation", "second": "proposed"}, {"1": 0.014, "2": 0.028}
    measured = dict.fromkeys(MEASURES, value | {"seed_spread": 0.01, "per_seed": seeds})
    write_json(results / "table2-compact/bootstrap.json", {"steps": [step | measured]})
    line = steps("table2", results).loc["Separation → Separation and attention"]
    assert line["paper"] == "+1.0" and line["compact"] == "+2.1"
    assert line["compact 95%"] == "-0.4 to +4.6" and line["compact detectable"] == "3.6"
    assert line["full"] == "not run" and line["compact over seeds"] == "± 1.0 (seeds 1, 2)"
    others = steps("table2", results, "AP75")
    assert "paper" not in others and "+2.1" in set(others["compact"])
    told = reading("table2", results)
    assert "run: 1 of 4 in the paper's setting, 2 of 6 with compact models." in told
    step_told = "Separation and attention against Separation +2.1."
    assert told.endswith(f"test images cannot tell from chance: {step_told}")
    measured = dict.fromkeys(MEASURES, {**measured["AP"], "low": 0.001})
    write_json(results / "table2-compact/bootstrap.json", {"steps": [step | measured]})
    assert "images can tell from chance: Separation and" in reading("table2", results)
    assert render("table2", results).startswith(reading("table2", results))


@pytest.mark.parametrize("table", ["table1", "table3"])
def test_each_compact_row_is_held_against_the_proposed_one(table):
    rows = [row.key for row in TABLES[table] if row.compact is not None]
    assert sorted(COMPARED[table]) == sorted((key, "proposed") for key in rows if key != "proposed")


def test_classes_have_mean_and_spread_over_seeds(results):
    cells = sections("table2", results)["table2, AP50 (11 points) per class: compact"]
    assert list(cells.index) == ["Separation and attention"]  # no other row was run
    assert cells.loc["Separation and attention", "cat"] == "75.0 ± 7.1"


def test_saved_detections_come_back(tmp_path):
    boxes = [[0, 0, 5.1, 5], [1, 1, 4, 9.7]]
    found = [Detections(boxes, [2, 1], [0.5, 0.3]), Detections([], [], [])]
    found.append(Detections([[3, 3, 8, 9]], [1], [0.1]))
    save_detections(tmp_path / "d.npz", ["b", "a", "c"], found)
    read = load_judgeable(tmp_path / "d.npz").detections
    assert list(read) == ["b", "a", "c"] and len(read["a"].boxes) == 0
    assert read["b"].boxes.tolist() == boxes and read["c"].boxes.tolist() == [[3, 3, 8, 9]]
    assert read["b"].labels.tolist() == [2, 1] and read["b"].scores.tolist() == [0.5, 0.3]
    (tmp_path / "d.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="d.npz"):
        load_judgeable(tmp_path / "d.npz")


def test_altered_files_of_detections_are_one_sentence(tmp_path):
    path, rng = tmp_path / "d.npz", np.random.default_rng(0)
    corners = rng.random((20, 5, 4)).cumsum(2)
    save_detections(
        path, list("abcdefghijklmnopqrst"), [Detections(c, [1] * 5, c[:, 0]) for c in corners]
    )
    whole = path.read_bytes()
    for _ in range(300):
        altered = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        try:
            load_judgeable(path)
        except InputError as error:
            assert "d.npz: holds no saved detections" in str(error)


def test_figures_show_every_row_and_say_what_was_not_run(results):
    both, compact = paper_against_measured("table2", results).axes
    assert len(both.get_yticks()) == len(TABLES["table2"])
    told = {TABLES["table2"][text.get_position()[1]].key: text.get_text() for text in compact.texts}
    assert told["faster-rcnn-original"] == "–" and told["residual"] == "not run"
    assert "proposed" not in told
    low, high = compact.get_xlim()
    assert high - low >= 4, "a difference of tenths fills the panel"
    labels = [axis.get_legend_handles_labels()[1] for axis in (both, compact)]
    assert labels == [["paper", "measured, full scale"], ["measured, compact models"]]
    both, compact = per_class_chart("table1", results).axes
    assert len(both.get_xticks()) == 20
    assert any("not run" in label for label in both.get_legend_handles_labels()[1])
    assert not both.texts and not compact.texts
    told = [axis.texts[0].get_text() for axis in size_chart(results).axes[4:]]
    assert told == ["–", "not run", "not run", "not run"]
    write_json(results / "table3-compact/proposed-seed0.json", record(0.41))
    sizes = size_chart(results)
    legend = [text.get_text() for text in sizes.legends[0].get_texts()]
    assert legend == ["paper", "measured, full scale: not run", "measured, compact models"]
    assert len(sizes.axes[4].get_yticks()), "a row of panels that has a figure has a scale"
    full, compact = rows_per_class("table2", results).axes
    assert [tick.get_text() for tick in compact.get_xticklabels()] == ["cat", "person"]
    dots, labels = compact.get_legend_handles_labels()
    assert "Attention alone: not run" in labels
    places, heights = dots[labels.index("Separation and attention")].lines[0].get_data()
    assert heights == pytest.approx([75.0, 45.0]) and (np.abs(places - [0, 1]) < 0.5).all()
    assert "full scale" in full.get_title(loc="left")
    assert "Neither: Faster R-CNN" in full.get_legend_handles_labels()[1]
    (results / "voc-full/faster-rcnn-seed0.json").unlink()
    assert len(rows_per_class("table2", results).axes) == 1


def test_what_was_run_is_not_said_to_be_not_run(results):
    cells = headline(frame("table2", results), ["mAP"])
    assert cells.loc["Attention alone", ("mAP", "compact")] == "not run"
    write_json(results / "table3-compact/proposed-seed0.json", record(0.5))
    cells = headline(frame("table3", results), ["APL"])
    assert cells.loc["Proposed", ("APL", "compact")] == "–"  # it has no large object
    assert cells.loc["R-FCN", ("APL", "compact")] == "not run"
    _, compact = paper_against_measured("table1", ROOT / "results", "aero").axes
    assert compact.texts[0].get_text() == "–"  # six animals
    assert compact.get_legend_handles_labels()[1] == ["measured, compact models: –"]
    full, _ = paper_against_measured("table2", ROOT / "results", "AP75").axes
    assert full.get_legend_handles_labels()[1] == ["paper: –", "measured, full scale: not run"]


def test_rows_that_lie_near_each_other_stay_apart_beside_one_far_off(results):
    near, far = (
        {"difference": mean, "low": mean - 0.01, "high": mean + 0.01, "detectable": 0.03}
        | {"seed_spread": None, "per_seed": {"1": mean}}
        for mean in (0.01, 0.48)
    )
    steps = [
        {"first": key, "second": "proposed"} | dict.fromkeys(MEASURES, value)
        for key, value in (("faster-rcnn", near), ("ssd300", far))
    ]
    write_json(results / "table1-compact/bootstrap.json", {"steps": steps})
    axis = steps_chart("table1", results).axes[0]
    zero, one, most = axis.transData.transform([(x, 0) for x in (0, 1, 48)])[:, 0]
    assert (one - zero) > 5 / 48 * (most - zero), "one point is as thin as on an even axis"
    low, high = axis.get_xlim()
    assert low <= -5 and high > 49


def test_steps_are_drawn_with_their_interval_and_the_papers_figure(results):
    value = {"difference": 0.021, "low": -0.004, "high": 0.046, "detectable": 0.036}
    value |= {"seed_spread": 0.03, "per_seed": {"1": 0.0, "2": 0.042}}
    step = {"first": "separation", "second": "proposed"} | dict.fromkeys(MEASURES, value)
    write_json(results / "table2-compact/bootstrap.json", {"steps": [step]})
    first, *_, last = steps_chart("table2", results).axes
    mean, seeds, zero, paper = first.get_lines()
    assert mean.get_xdata() == pytest.approx([2.1])
    assert seeds.get_xdata() == pytest.approx([0.0, 4.2]) and zero.get_xdata() == [0, 0]
    assert paper.get_xdata() == pytest.approx([1.0]) and len(last.get_lines()) == 3
    (interval,) = first.collections[0].get_segments()
    assert interval[:, 0] == pytest.approx([-0.4, 4.6])
    assert first.get_yticklabels()[0].get_text() == "Separation →\nSeparation and attention"
    step["AP75"] = value | {"low": 0.03}  # a bootstrap's interval need not hold the figure
    write_json(results / "table2-compact/bootstrap.json", {"steps": [step]})
    charts = [path for path in write_tables(["table2"], results, results) if path.suffix == ".png"]
    assert charts == [results / "table2-compact-steps.png"] and charts[0].stat().st_size


def test_a_step_of_a_row_that_is_gone_is_left_out(results):
    value = {"difference": 0.02, "low": 0.01, "high": 0.03, "detectable": 0.01}
    value |= {"seed_spread": None, "per_seed": {"0": 0.02}}
    step = {"second": "proposed"} | dict.fromkeys(MEASURES, value)
    made = [step | {"first": "gone"}, step | {"first": "separation"}]
    write_json(results / "table2-compact/bootstrap.json", {"steps": made})
    assert "against Separation +2.0." in reading("table2", results)
    assert len(steps_chart("table2", results).axes[0].get_yticks()) == 1


def test_figures_of_nothing_say_so():
    for chart in (training_curves, rows_per_class, steps_chart):
        figure = chart("table2", "nowhere")
        (text,) = figure.axes[0].texts
        assert "not run" in text.get_text()


def test_the_page_of_the_ablation_has_the_figures_of_the_records():
    page = (ROOT / "docs/ablation.md").read_text(encoding="utf-8")
    cells = headline(frame("table2", ROOT / "results"), columns_of("table2"))
    columns = ("mAP", "AP50, area", "AP75", "VOC AP")
    for row in (row for row in TABLES["table2"] if row.compact is not None):
        texts = [cells.loc[row.title, (column, "compact")] for column in columns]
        assert f"| {row.title} | {' | '.join(texts)} |" in page
    classes = markdown("", classes_over_seeds("table2", ROOT / "results", "compact"))
    assert classes.strip() in page
    assert markdown("", judged_texts("variants", ROOT / "results")).strip() in page
    for name in ("table2", "variants"):
        titles_of = {row.key: row.title for row in ROWS[name]}
        for step in read_json(ROOT / f"results/{name}-compact/bootstrap.json")["steps"]:
            title = " → ".join(titles_of[step[end]] for end in ("first", "second"))
            (line,) = [one for one in page.splitlines() if one.startswith(f"| {title} |")]
            for measure in MEASURES:
                parts = ("difference", "low", "high", "detectable")
                value = {part: 100 * step[measure][part] for part in parts}
                text = "{difference:+.1f} [{low:+.1f}, {high:+.1f}], {detectable:.1f}"
                assert text.format(**value) in line, (title, measure)
