"""A record beside a row: the interval by hand, which row it is of, and what is said of others."""

import math

import pytest

from als.cli import main
from als.config import ModelConfig
from als.errors import InputError
from als.files import write_json
from als.tables.measured import MEASURES
from als.tables.own_record import beside
from als.tables.rows import COMPARED

NETWORK = ModelConfig(classes=("cat", "dog"), backbone="mobilenet_v2").to_dict()


def record(ap: float, epochs: int = 3, photographs: str = "a", **network) -> dict:
    return {
        "metrics": dict.fromkeys(MEASURES, ap),
        "per_class": {},
        "config": NETWORK | network,
        "data": {"images": 9, "fingerprint": photographs},
        "training": {"epochs": epochs, "data": {"fingerprint": "b"}},
    }


@pytest.fixture
def results(tmp_path):
    """Two seeds of table 2's proposed row, one of F (1 + A)."""
    folder = tmp_path / "table2-compact"
    for seed, ap in ((0, 0.60), (1, 0.63)):
        write_json(folder / f"proposed-seed{seed}.json", record(ap))
    write_json(folder / "residual-seed0.json", record(0.70, attention_form="residual"))
    return tmp_path


def mine(results, *given, **changes):
    write_json(results / "mine.json", record(*given, **changes))
    return results / "mine.json"


def test_the_interval_by_hand(results):
    found = beside(mine(results, 0.90), results)
    assert (found.row.key, found.scale, found.seeds) == ("proposed", "compact", [0, 1])
    line = found.figures.loc["AP50 (area)"]
    # Mean 61.5, sample deviation 3 / sqrt(2); t of one degree of freedom, 97.5%: 12.706.
    half = 12.706 * 3 / math.sqrt(2) * math.sqrt(1 + 1 / 2)
    assert line["mean"] == pytest.approx(61.5) and line["spread"] == pytest.approx(2.1213, abs=1e-4)
    assert line["low"] == pytest.approx(61.5 - half, abs=0.01)
    assert line["high"] == pytest.approx(61.5 + half, abs=0.01)
    assert line["verdict"] == "within" and math.isnan(line["tells"])
    assert "every measure is in its interval" in found.sentence


def bootstrap(results, table: str, *detectable: float) -> None:
    """Steps of a table, each of which the photographs would show from a difference on."""
    zero = dict.fromkeys(("difference", "low", "high", "seed_spread"), 0.0) | {"per_seed": {}}
    steps = [
        dict.fromkeys(MEASURES, zero | {"detectable": value}) | {"first": first, "second": second}
        for (first, second), value in zip(COMPARED[table], detectable, strict=False)
    ]
    write_json(results / f"{table}-compact" / "bootstrap.json", {"steps": steps})


def test_what_the_photographs_tell_is_the_mean_of_the_table_s_steps(results):
    bootstrap(results, "table2", 0.01, 0.03, 0.05)
    found = beside(mine(results, 0.6), results)
    assert found.table == "table2" and found.figures["tells"].tolist() == pytest.approx(
        [3.0] * len(MEASURES)
    )


@pytest.mark.parametrize(("most", "least"), [("table1", "table2"), ("table2", "table1")])
def test_of_two_tables_that_share_the_row_more_steps_say_more(results, most, least):
    bootstrap(results, most, 0.01, 0.01, 0.01)
    bootstrap(results, least, 0.05)
    assert beside(mine(results, 0.6), results).table == most


def test_other_training_photographs_are_named(results):
    other = record(0.6)
    other["training"]["data"]["fingerprint"] = "c"
    write_json(results / "mine.json", other)
    found = beside(results / "mine.json", results, "table2/proposed")
    assert found.differences == {"training data": ("c", "b")}


def test_weights_that_training_began_from_are_no_difference(results):
    assert not beside(mine(results, 0.6, weights="other.pth"), results).differences


@pytest.mark.parametrize(("ap", "verdict"), [(0.99, "above"), (0.10, "below")])
def test_outside_is_said(results, ap, verdict):
    found = beside(mine(results, ap), results)
    assert set(found.figures["verdict"]) == {verdict}
    assert f"VOC AP is {verdict}" in found.sentence


def test_a_measure_that_a_record_lacks_has_no_figure(results):
    for seed in (0, 1):
        made = record(0.6)
        del made["metrics"]["AP75"]
        write_json(results / "table2-compact" / f"proposed-seed{seed}.json", made)
    found = beside(mine(results, 0.6), results)
    assert found.figures.loc["AP75", "verdict"] == "no figure"
    assert found.figures.loc["VOC AP", "verdict"] == "within"
    assert found.sentence.endswith("every measure is in its interval. Without a figure: AP75.")
    write_json(results / "mine.json", record(0.6) | {"metrics": {}})
    assert "so nothing is known" in beside(results / "mine.json", results).sentence


def test_a_seed_of_saved_detections_says_no_network(results):
    alone = record(0.6) | {"config": None}
    write_json(results / "table2-compact" / "proposed-seed0.json", alone)
    assert beside(mine(results, 0.6), results).seeds == [1]


def test_a_committed_record_is_not_held_against_itself(results):
    found = beside(results / "table2-compact" / "proposed-seed1.json", results)
    assert found.seeds == [0] and set(found.figures["verdict"]) == {"one seed"}
    assert "nothing is known of their spread" in found.sentence
    made = record(0.6)
    del made["metrics"]["AP75"]
    write_json(results / "table2-compact" / "proposed-seed0.json", made)
    sentence = beside(results / "table2-compact" / "proposed-seed1.json", results).sentence
    assert sentence.endswith("nothing is known of their spread. Without a figure: AP75.")


def test_the_row_is_that_of_the_network(results):
    assert beside(mine(results, 0.71, attention_form="residual"), results).row.key == "residual"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention_width": 8}, "attention_width"),
        ({"photographs": "x"}, "photographs"),
        ({"epochs": 9}, "epochs"),
    ],
)
def test_what_is_of_no_row_is_told_the_nearest(results, changes, told):
    path = mine(results, 0.61, **changes)
    with pytest.raises(InputError, match=f"nearest is table./proposed, others are .*{told}"):
        beside(path, results)
    found = beside(path, results, "table2/proposed")
    assert any(told in name for name in found.differences)
    assert "not the same run" in found.sentence


def test_other_rows_and_files_are_refused(results, tmp_path, capsys):
    with pytest.raises(InputError, match="'table9/x' is no row"):
        beside(mine(results, 0.61), results, "table9/x")
    write_json(tmp_path / "odd.json", {"metrics": {}, "per_class": {}})
    with pytest.raises(InputError, match=r"odd.json: is no record .*\(its config"):
        beside(tmp_path / "odd.json", results)
    write_json(tmp_path / "odd.json", record(0.6) | {"training": {"data": ["a"]}})
    with pytest.raises(InputError, match=r"odd.json: is no record .*\(its training.data"):
        beside(tmp_path / "odd.json", results)
    main(["tables", "compare", str(mine(results, 0.61)), "--results", str(results)])
    said = capsys.readouterr().out
    assert "mine.json: table" in said and "VOC AP" in said and "within" in said
