"""The address of an example with its settings: what is written comes back, and nothing else."""

from urllib.parse import parse_qsl

import gradio as gr
import pytest
from app_server import VALUES, Click, tiny_predictor
from tiny import lively_detector

from als.errors import InputError
from als.inference import Predictor
from als.photographs import package_photographs
from als.ui.example_link import asked_for, example_of, link_of
from als.ui.handlers import Handlers
from als.ui.session import SessionStore
from als.views.photo_study import Choice, Settings

CAT = package_photographs()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))


@pytest.fixture
def linked():
    tab, request = Handlers(tiny_predictor(), None, SessionStore()), gr.Request(session_hash="l")
    tab.open_photo(request, {"path": str(CAT), "orig_name": CAT.name}, *VALUES)
    return tab, request


def test_a_link_brings_back_the_example_its_settings_and_its_choice(linked):
    tab, request = linked
    study = tab.store.get("l").photo
    settings = Settings(0.35, "width (dw)", 0.25, "magma", VALUES[4], "gradcam_F")
    for choice in (Choice(detection=0), Choice(detection=1), Choice(label=3)):
        study.choice = choice
        query = dict(parse_qsl(link_of(study, settings).removeprefix("?")))
        path, again, chosen = asked_for(query, tab.predictor)
        assert path.read_bytes() == CAT.read_bytes() and path.name == CAT.name
        assert again == settings and chosen in (choice, Choice() if choice.detection == 0 else None)
    assert link_of(study, Settings()).count("=") == 2, "what is usual needs no word"


def test_a_page_that_is_opened_by_a_link_shows_it(linked):
    tab, _ = linked
    study = tab.store.get("l").photo
    study.choice = Choice(label=2)
    query = dict(parse_qsl(link_of(study, Settings(threshold=0.4)).removeprefix("?")))
    request = gr.Request(session_hash="new", query_params=query)
    page = tab.follow_link(request)
    assert (page["threshold"], page["name"]["value"]) == (0.4, "dog")
    opened = tab.open_photo(request, {"path": page["photo"], "orig_name": CAT.name}, *VALUES)
    assert opened["name"]["value"] == "dog", "the page goes on to say what is explained"
    shown = tab.refresh(request, *VALUES)
    assert tab.store.get("new").photo.choice == Choice(label=2)
    assert "example=chelsea.png" in shown["sentence"] and "class=dog" in shown["sentence"]
    tab.pick(request, Click(row=1), *VALUES)
    again = {"path": str(CAT), "orig_name": CAT.name}
    tab.open_photo(request, again, *VALUES)
    assert tab.store.get("new").photo.choice.label is None, "the link counts once"


def test_no_link_leads_to_an_upload(tab, tmp_path):
    tab, request = tab
    assert "example=" not in tab.refresh(request, *VALUES)["sentence"]
    fake = tmp_path / CAT.name
    fake.write_bytes((tmp_path / "scene.png").read_bytes())
    assert example_of(fake, CAT.name) is None and example_of(CAT, CAT.name) == CAT.name


@pytest.mark.parametrize(
    "query",
    [
        {"example": "../../etc/passwd"},
        {"example": "mine.jpg"},
        {"example": CAT.name, "threshold": "high"},
        {"example": CAT.name, "kind": "taste"},
        {"example": CAT.name, "explainer": "drise"},
        {"example": CAT.name, "class": "unicorn"},
        {"example": CAT.name, "detection": "first"},
    ],
)
def test_an_address_that_asks_for_what_is_not_there_gets_a_sentence(query):
    with pytest.raises(InputError):
        asked_for(query, tiny_predictor())
    tab = Handlers(tiny_predictor(), None, SessionStore())
    page = tab.follow_link(gr.Request(session_hash="x", query_params=query))
    assert list(page) == ["status"] and "alert" in page["status"]


def test_an_address_without_an_example_changes_nothing():
    tab = Handlers(tiny_predictor(), None, SessionStore())
    assert tab.follow_link(gr.Request(session_hash="x", query_params={"threshold": "1"})) == {}


@pytest.mark.parametrize("detection", ["0", "-3", "9999"])
def test_a_detection_that_is_not_there_is_the_best_one(detection):
    tab = Handlers(tiny_predictor(), None, SessionStore())
    request = gr.Request(
        session_hash="x", query_params={"example": CAT.name, "detection": detection}
    )
    path = tab.follow_link(request)["photo"]
    tab.open_photo(request, {"path": path, "orig_name": CAT.name}, *VALUES)
    assert tab.store.get("x").photo.choice == Choice(detection=0)


def test_a_link_to_a_detection_shows_a_photo_in_which_there_is_none():
    predictor = Predictor(lively_detector(0, score_threshold=0.9999).float(), {})
    tab, request = Handlers(predictor, None, SessionStore()), gr.Request(session_hash="x")
    tab.store.get("x").asked = Choice(detection=0)
    tab.open_photo(request, {"path": str(CAT), "orig_name": CAT.name}, *VALUES)
    study = tab.store.get("x").photo
    assert len(study.prediction.boxes) == 0 and study.choice == Choice()
    assert tab.refresh(request, *VALUES)["views"].count("<img") == 5
