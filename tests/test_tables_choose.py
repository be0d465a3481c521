"""Menus of the table notebooks: what a choice shows, and what a saved notebook shows."""

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from als.files import write_json
from als.tables.charts import classes_measured, rows_per_class, seeds_with_curves, training_curves

SHOW = """from matplotlib.figure import Figure
from als.tables.choose import choose

class Said(Figure):
    def _repr_markdown_(self):
        return self.axes[0].get_title()

def chart(measure="AP", seed=None, row="all"):
    figure = Figure(figsize=(1, 1))
    figure.subplots().set_title(f"{measure} {row}")
    figure.__class__ = Said
    return figure

choose(chart, measure=["AP", "AP50"], seed=[], row={"first": "a", "second": "b"})"""
CHANGE = """from ipywidgets.widgets.widget import _instances
menus = {w.description: w for w in _instances.values() if type(w).__name__ == "Dropdown"}
menus["row"].value = "b"
print(sorted(menus))"""
NOTHING_TO_CHOOSE = "choose(chart, measure=[], seed=[])"


def test_a_choice_draws_anew_and_a_saved_notebook_shows_the_first():
    cells = [nbformat.v4.new_code_cell(source) for source in (SHOW, CHANGE, NOTHING_TO_CHOOSE)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, store_widget_state=False).execute()
    first, second, third = notebook.cells
    menus, chart = first.outputs
    assert menus.data["text/plain"] == "In a running notebook, choose here: measure, row."
    assert "application/vnd.jupyter.widget-view+json" in menus.data
    assert (
        chart.data["text/markdown"] == "AP b" and second.outputs[0].text == "['measure', 'row']\n"
    )
    assert [output.data["text/markdown"] for output in third.outputs] == ["AP all"]


@pytest.fixture
def results(tmp_path):
    for seed in (3, 1):
        curve = {"step": [1, 2], "loss": [2.0, 1.0 + seed]}
        record = {
            "metrics": {},
            "per_class": {"cat": {"AP50_11point": 0.5}, "dog": {"AP50_11point": 0.25}},
            "stages": [{"config_file": "configs/a.yaml", "config": {}, "curve": curve}],
        }
        write_json(tmp_path / "table2-compact" / f"proposed-seed{seed}.json", record)
    return tmp_path


def test_the_curves_are_those_of_the_seed_that_is_chosen(results):
    assert (
        seeds_with_curves("table2", results) == [1, 3]
        and seeds_with_curves("table3", results) == []
    )
    for seed, last in ((None, 2.0), (1, 2.0), (3, 4.0)):
        (axis,) = training_curves("table2", results, seed=seed).axes
        assert axis.get_lines()[0].get_ydata()[-1] == last
    assert "not run" in training_curves("table2", results, seed=2).axes[0].texts[0].get_text()


def test_one_class_of_the_rows_can_be_chosen(results):
    assert classes_measured("table2", results) == ["cat", "dog"]
    (axis,) = rows_per_class("table2", results, "dog").axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["dog"]
    marks, labels = axis.get_legend_handles_labels()
    shown = {name: mark.lines[0].get_ydata() for mark, name in zip(marks, labels, strict=True)}
    assert shown.pop("Separation and attention") == [25]
    assert all(pd.isna(list(values)).all() for values in shown.values())
    (text,) = rows_per_class("table2", results, "horse").axes[0].texts
    assert "not run" in text.get_text()
