"""The second tab, without a server: two models on one photo, and checkpoints that do not fit."""

import gradio as gr
from app_server import VALUES, Click, only_network, tiny_predictor
from tiny import tiny_config

from als.checkpoint import build_detector, save_checkpoint
from als.drawing import RULES
from als.ui.compare_tab import CompareTab
from als.ui.panels import same_choice
from als.ui.session import Choice, SessionStore, study_photo


def test_the_second_model_explains_the_same_object(scene_file):
    study = study_photo(tiny_predictor(), scene_file, "scene.png")
    other = study_photo(tiny_predictor(), scene_file, "scene.png")
    study.choice = Choice(detection=2)
    assert same_choice(study, other) == Choice(detection=2), "the same model, the same box"
    without = study_photo(tiny_predictor(attention=False), scene_file, "scene.png")
    without.choice = same_choice(study, without)
    assert without.class_map().name == study.class_map().name


def test_comparison_has_two_rows_and_runs_the_second_model_once(tab, monkeypatch):
    tab, request = tab
    compare = CompareTab(tiny_predictor(attention=False), tab.store)
    runs = only_network(monkeypatch, compare.other)
    _, views, numbers = compare.refresh(request, *VALUES)
    assert views.count("<h2") == 2 == numbers.count("<h2") and views.count("<img") == 8
    compare.refresh(request, *VALUES)
    assert runs.count("analyse") == 1


def test_the_comparison_follows_the_chosen_detection(tab, monkeypatch):
    tab, request = tab
    compare = CompareTab(tiny_predictor(attention=False), tab.store)
    assert compare.redraw(request, *VALUES) == [gr.skip()] * 3, "not asked for on this photo"
    before = compare.refresh(request, *VALUES)
    session = tab.store.get("a")
    last = len(session.photo.prediction.boxes) - 1
    tab.pick(request, Click(row=last), *VALUES)
    after = compare.redraw(request, *VALUES)
    name, score = session.photo.prediction.names[last], session.photo.prediction.scores[last]
    assert f"First: {name} {score:.2f}" in after[0] and before[0] != after[0]
    assert session.compared.choice == same_choice(session.photo, session.compared)
    runs = [only_network(monkeypatch, each) for each in (tab.predictor, compare.other)]
    drawn = compare.redraw(request, 0.3, "class score", 0.1, "cividis", RULES[0])
    assert drawn[1] != after[1] and runs == [[], []], "how maps are drawn needs no network"


def test_a_new_photo_leaves_nothing_of_the_last_comparison(tab):
    tab, request = tab
    payload = {"path": "new.png"}
    assert "No second" in CompareTab(None, tab.store).photo_changed(request, payload)[1]
    compare = CompareTab(tiny_predictor(), tab.store)
    compare.refresh(request, *VALUES)
    status, views, numbers = compare.photo_changed(request, payload)
    assert "Compare on this photo" in views and "<img" not in views and status == numbers == ""
    assert "photo first" in compare.photo_changed(request, None)[1]


def test_comparison_without_photo_or_second_model_says_what_to_do():
    request = gr.Request(session_hash="b")
    assert "No second checkpoint" in CompareTab(None, SessionStore()).refresh(request, *VALUES)[1]
    compare = CompareTab(tiny_predictor(), SessionStore())
    assert "photo first" in compare.refresh(request, *VALUES)[1]


def test_a_checkpoint_of_somebody_else_is_refused_with_one_sentence(tab, tmp_path):
    tab, request = tab
    (tmp_path / "other.safetensors").write_bytes(b"not tensors")
    compare = CompareTab(None, tab.store)
    payload = {"path": str(tmp_path / "other.safetensors"), "orig_name": "other.safetensors"}
    said = compare.load_checkpoint(request, payload, *VALUES)[0]
    assert 'role="alert"' in said and "other.safetensors" in said and str(tmp_path) not in said
    given = CompareTab(tiny_predictor(attention=False), tab.store)
    said, views, _, line = given.load_checkpoint(request, payload, *VALUES)
    assert 'role="alert"' in said and views.count("<img") == 8 and "tiny.safetensors" in line


def test_a_checkpoint_that_cannot_be_explained_is_refused_too(tab, tmp_path):
    tab, request = tab
    plain = {"attention": False, "separation": False}
    detector = build_detector(tiny_config(family="rfcn", attention_width=2048, **plain))
    save_checkpoint(detector, tmp_path / "rfcn.safetensors")
    payload = {"path": str(tmp_path / "rfcn.safetensors"), "orig_name": "rfcn.safetensors"}
    said = CompareTab(None, tab.store).load_checkpoint(request, payload, *VALUES)[0]
    assert 'role="alert"' in said and "family rfcn" in said
