"""`als reproduce recipes|variants`: nothing of test is seen, and each run changes one thing."""

import pytest
from test_tables_plan import tiny_settings

from als.errors import InputError
from als.files import read_json
from als.tables.measured import judged
from als.tables.plan import evaluations_of, make_plan, reproduce
from als.tables.render import judged_texts, render, steps
from als.tables.rows import CHOICES, VARIANTS
from als.tables.stage_config import Settings
from als.training.same_config import comparable, differences


@pytest.mark.parametrize("name", list(CHOICES))
def test_choices_are_trained_on_train_and_judged_on_val(name, tmp_path):
    evaluations = evaluations_of(name, Settings("compact", tmp_path, runs=tmp_path))
    assert len(evaluations) == len(CHOICES[name])
    for step in evaluations:
        assert {stage.config.data.train for stage in step.stages} == {"VOC2012:train"}
        assert step.run_of.data.test == "VOC2012:val"


def test_a_variant_differs_from_the_proposed_row_by_one_option(tmp_path):
    evaluations = evaluations_of("variants", Settings("compact", tmp_path, runs=tmp_path))
    configs = {
        step.run_of.name.split("/")[1]: comparable(step.stages[1].config) for step in evaluations
    }
    for key, (_, changes) in VARIANTS.items():
        differ = differences(configs["proposed"], configs[key])
        assert differ == [f"model.{name}" for name in changes] and len(differ) == (
            key != "proposed"
        )
    assert len({step.stages[0].target for step in evaluations}) == 1


def test_recipes_go_on_from_one_first_stage(tmp_path):
    evaluations = evaluations_of("recipes", Settings("compact", tmp_path, runs=tmp_path))
    chains = {step.run_of.name.split("/")[1]: step.stages for step in evaluations}
    assert [len(chain) for chain in chains.values()] == [1, 2, 2, 3]
    assert {chain[0].target for chain in chains.values()} == {chains["stage1"][0].target}
    assert chains["crops-end"][:2] == chains["crops"]
    for chain in chains.values():
        for before, after in zip(chain, chain[1:], strict=False):
            assert after.config.start_from == str(before.checkpoint)


@pytest.fixture(scope="module")
def settings(toy_root, tmp_path_factory) -> Settings:
    """Of two variants, which are run."""
    folder = tmp_path_factory.mktemp("variants")
    settings = tiny_settings(toy_root, folder, rows=("proposed", "residual"), seeds=(100,))
    reproduce(make_plan("variants", settings), [].append)
    return settings


def test_a_choice_is_run_and_told(settings):
    assert not make_plan("variants", settings).todo
    record = read_json(settings.results / "variants-compact/residual-seed100.json")
    assert record["config"]["attention_form"] == "residual"
    assert record["data"]["split"] == "VOC2012:val"
    cells = judged("variants", settings.results).set_index("key")
    assert cells.loc["residual", "AP50"] == pytest.approx(100 * record["metrics"]["AP50_11point"])
    assert cells.loc["residual", "spread of A_cls"] == record["maps"]["cls_spread"]
    texts = judged_texts("variants", settings.results)
    assert texts.loc["The paper's form", "seed"] == "100"
    assert set(texts.loc["Maps start at 0.5"]) == {"–", "not run"}
    # Six rows of eight measures, and seven steps: four measures of four cells each.
    assert render("variants", settings.results).count("not run") == 6 * 8 + 7 * 4 * 4


def test_a_variant_is_held_against_the_papers_form_on_the_same_photographs(toy_root, settings):
    folder = settings.results / "variants-compact"
    found = read_json(folder / "bootstrap.json")
    val = (toy_root / "VOC2012/ImageSets/Main/val.txt").read_text().split()
    assert found["images"] == len(val)
    (step,) = found["steps"]
    assert (step["first"], step["second"]) == ("proposed", "residual")
    for measure in ("AP50_11point", "AP75", "AP"):
        first, second = (
            read_json(folder / f"{key}-seed100.json")["metrics"][measure]
            for key in ("proposed", "residual")
        )
        assert step[measure]["difference"] == pytest.approx(second - first, abs=1e-9)
    shown = steps("variants", settings.results, "AP75")["compact"]
    assert shown["The paper's form → F (1 + A)"] == f"{100 * step['AP75']['difference']:+.1f}"


def test_the_paper_has_no_full_run_of_a_choice(tmp_path):
    with pytest.raises(InputError, match="recipes has no runs at --scale full"):
        make_plan("recipes", Settings("full", tmp_path))
