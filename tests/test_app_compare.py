"""The second tab, without a server: two models on one photo, and checkpoints that do not fit."""

import gradio as gr
from app_server import VALUES, Click, only_network, scene, tiny_predictor
from tiny import tiny_config

from als.checkpoint import build_detector, save_checkpoint
from als.drawing import RULES
from als.inference import Predictor
from als.views.panels import colours_of
from als.views.photo_study import Choice, study_photo


def test_the_second_model_explains_the_same_object(scene_file):
    study = study_photo(tiny_predictor(), scene_file, "scene.png")
    other = study_photo(tiny_predictor(), scene_file, "scene.png")
    study.choice = Choice(detection=2)
    assert other.same_choice(study) == Choice(detection=2), "the same model, the same box"
    without = study_photo(tiny_predictor(attention=False), scene_file, "scene.png")
    without.choice = without.same_choice(study)
    assert without.class_map().name == study.class_map().name


def compare(tab, request, *values):
    """The page when its second tab is opened."""
    return tab.open_tab(request, Click(value="Compare"), *(values or VALUES))


def test_comparison_has_two_rows_and_runs_the_second_model_once(tab, monkeypatch):
    tab, request = tab
    tab.other = Predictor(tab.other.detector, {}, source="other.safetensors")
    runs = only_network(monkeypatch, tab.other)
    page = compare(tab, request)
    assert page["compare_views"].count("<h2") == 2 == page["compare_numbers"].count("<h2")
    assert page["compare_views"].count("<img") == 8
    compare(tab, request)
    assert runs.count("analyse") == 1
    above, below = tab.store.get("a").photo, tab.store.get("a").compared
    assert colours_of(above).items() <= colours_of(below).items(), "a class has one colour"


def test_the_comparison_follows_the_chosen_detection(tab, monkeypatch):
    tab, request = tab
    assert "compare_views" not in tab.refresh(request, *VALUES), "its tab is not open"
    before = compare(tab, request)
    session = tab.store.get("a")
    last = len(session.photo.prediction.boxes) - 1
    after = tab.pick(request, Click(row=last), *VALUES)
    name, score = session.photo.prediction.names[last], session.photo.prediction.scores[last]
    assert f"First: {name} {score:.2f}" in after["compare_status"]
    assert before["compare_status"] != after["compare_status"]
    assert session.compared.choice == session.compared.same_choice(session.photo)
    runs = [only_network(monkeypatch, each) for each in (tab.predictor, tab.other)]
    look = (0.3, "class score", 0.1, "cividis", RULES[0], "gradact")
    drawn = tab.refresh(request, *look)
    assert drawn["compare_views"] != after["compare_views"]
    assert runs == [[], []], "how maps are drawn needs no network"


def test_what_was_changed_on_one_tab_shows_on_the_next(tab):
    tab, request = tab
    compare(tab, request)
    drawn = tab.pick(request, Click(row=1), *VALUES)
    assert "sentence" not in drawn, "the first tab is not on the screen"
    page = tab.open_tab(request, Click(value="Explain"), *VALUES)
    assert "Explaining detection 2" in page["sentence"]


def test_a_new_photo_leaves_nothing_of_the_last_comparison(tab, tmp_path):
    tab, request = tab
    before = compare(tab, request)
    scene(6).save(tmp_path / "new.png")
    page = tab.open_photo(request, {"path": str(tmp_path / "new.png")}, *VALUES)
    assert "<img" not in page["compare_views"]
    assert page["compare_status"] == page["compare_numbers"] == ""
    after = tab.refresh(request, *VALUES)  # the tab is open: the comparison follows
    assert after["compare_views"].count("<img") == 8
    assert after["compare_views"] != before["compare_views"]
    page = tab.open_photo(request, None, *VALUES)
    assert page["x1"] is None, "there is no box any more"
    assert "Choose a photo" in page["compare_views"]


def test_comparison_without_photo_or_second_model_says_what_to_do(tab):
    tab, request = tab
    nobody = gr.Request(session_hash="b")
    assert "Choose a photo" in compare(tab, nobody)["compare_views"]
    tab.other = None
    assert "No second checkpoint" in compare(tab, request)["compare_views"]
    assert "No second checkpoint" in compare(tab, nobody)["compare_views"]


def test_a_checkpoint_of_somebody_else_is_refused_with_one_sentence(tab, tmp_path):
    tab, request = tab
    compare(tab, request)
    (tmp_path / "other.safetensors").write_bytes(b"not tensors")
    payload = {"path": str(tmp_path / "other.safetensors"), "orig_name": "other.safetensors"}
    page = tab.load_second(request, payload, *VALUES)
    said = page["compare_status"]
    assert 'role="alert"' in said and "other.safetensors" in said and str(tmp_path) not in said
    assert page["compare_views"].count("<img") == 8 and "tiny.safetensors" in page["second"]
    tab.other = None
    page = tab.load_second(request, payload, *VALUES)
    assert "No second checkpoint" in page["compare_views"] and page["second"] == ""


def test_a_checkpoint_that_cannot_be_explained_is_refused_too(tab, tmp_path):
    tab, request = tab
    plain = {"attention": False, "separation": False}
    detector = build_detector(tiny_config(family="rfcn", attention_width=2048, **plain))
    save_checkpoint(detector, tmp_path / "rfcn.safetensors")
    payload = {"path": str(tmp_path / "rfcn.safetensors"), "orig_name": "rfcn.safetensors"}
    said = tab.load_second(request, payload, *VALUES)["compare_status"]
    assert 'role="alert"' in said and "family rfcn" in said


def test_an_uploaded_checkpoint_is_compared(tab, tmp_path):
    tab, request = tab
    compare(tab, request)
    save_checkpoint(tab.predictor.detector, tmp_path / "x.safetensors")
    payload = {"path": str(tmp_path / "x.safetensors"), "orig_name": "mine.safetensors"}
    page = tab.load_second(request, payload, *VALUES)
    assert page["compare_views"].count("<img") == 10, "this one has attention"
    assert "mine.safetensors" in page["second"] and "mine.safetensors" in page["compare_views"]


def test_the_second_row_of_an_export_explains_what_is_chosen_now(tab, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    tab, request = tab
    compare(tab, request)
    tab.open_tab(request, Click(value="Explain"), *VALUES)
    tab.pick_class(request, "person", *VALUES)
    tab.download(request, *VALUES)
    assert tab.store.get("a").compared.class_map().name == "person"


def test_the_comparison_says_which_box_of_the_second_model_is_shown(tab):
    tab, request = tab
    tab.explain_box(request, 40, 30, 120, 60, *VALUES)
    assert "of the same box." in compare(tab, request)["compare_status"]
    session = tab.store.get("a")
    session.second = Predictor(tab.other.detector, {})
    session.second.classes = ("horse", "cow", "bird")
    session.compared = None
    said = tab.pick(request, Click(row=0), *VALUES)["compare_status"]
    first, second = session.photo, session.compared
    assert f"its own best, as it does not know {first.class_map().name}." in said
    # Nothing of an earlier choice stays.
    second.choice = Choice(label=2)
    assert second.same_choice(first) == second.best
    first.choice = Choice(label=1, box=(40, 30, 120, 60))
    assert second.same_choice(first) == Choice(box=(40, 30, 120, 60))


def test_a_second_model_that_comes_late_leaves_the_open_tab(tab):
    tab, request = tab
    tab.open_tab(request, Click(value="Compare"), *VALUES)
    tab.open_tab(request, Click(value="Explain"), *VALUES)
    tab.load_second(request, None, *VALUES)  # the upload ends
    assert "Explaining detection 2" in tab.pick(request, Click(row=1), *VALUES)["sentence"]
