"""The page's choice of a model: the same photo, that model's boxes and classes."""

from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest
from app_server import VALUES, Click, scene, tiny_predictor
from tiny import lively_detector

from als.checkpoint import save_checkpoint
from als.errors import InputError
from als.inference import load
from als.photographs import package_photographs
from als.ui import build_app
from als.ui.handlers import EVERY_CLASS, MODELS, NO_CLASS, NO_GALLERY, Handlers, lowest_of
from als.ui.session import SessionStore
from als.views.photo_study import Choice, offered

CAT = package_photographs()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tab():
    return Handlers(load("shipped"), None, SessionStore(), "shipped")


def opened(tab, name: str) -> gr.Request:
    request = gr.Request(session_hash=name)
    tab.open_photo(request, {"path": str(CAT), "orig_name": CAT.name}, *VALUES)
    return request


def test_the_photo_stays_and_is_seen_by_the_chosen_model(tab):
    request = opened(tab, "a")
    page, twenty = tab.choose_model(request, "twenty", *VALUES), load("twenty")
    found, session = twenty.predict(CAT), tab.store.get("a")
    assert session.photo.prediction.boxes == pytest.approx(found.boxes, abs=1e-3)
    assert f"<td>{found.scores[0]:.3f}</td>" in page["table"] and CAT.name in page["sentence"]
    assert "twenty.safetensors" in page["about"]
    assert page["name"]["choices"][1:] == list(twenty.classes)
    label = twenty.classes.index("sofa") + 1
    tab.pick_class(request, "sofa", *VALUES)
    assert session.photo.choice == Choice(label=label)
    # Another tab keeps its own.
    opened(tab, "b")
    assert len(tab.store.get("b").photo.predictor.classes) == 6
    # Back again, by the model that is there already.
    back = tab.choose_model(request, "shipped", *VALUES)
    assert session.photo.predictor is tab.predictor
    assert back["name"]["value"] == NO_CLASS and session.photo.choice.label is None


def test_two_pages_that_ask_for_a_model_at_once_share_it(tab):
    fresh = Handlers(tab.predictor, None, SessionStore(), "shipped")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fresh._named, ["twenty"] * 4))
    assert all(one is found[0] for one in found)


def test_where_nothing_is_found_another_model_is_suggested(tab):
    alone = Handlers(tab.predictor, None, SessionStore())
    for handlers, suggested in ((tab, True), (alone, False)):
        table = handlers.refresh(opened(handlers, "n"), 1.0, *VALUES[1:])["table"]
        assert "Nothing passes the threshold of 1.00" in table
        assert ("choose another model" in table) == suggested


def test_without_a_photo_the_next_one_is_seen_by_it(tab):
    request = gr.Request(session_hash="c")
    page = tab.choose_model(request, "twenty", *VALUES)
    assert "No photo yet" in page["views"]
    opened(tab, "c")
    assert len(tab.store.get("c").photo.predictor.classes) == 20


def test_a_page_that_was_forgotten_says_which_model_sees_its_next_photo(tab):
    tab.choose_model(gr.Request(session_hash="i"), "twenty", *VALUES)
    tab.store.drop("i")
    given = {"path": str(CAT), "orig_name": CAT.name}
    page = tab.open_photo(gr.Request(session_hash="i"), given, *VALUES)
    assert "animals-parts.safetensors" in page["about"] and page["model"] == "shipped"
    assert page["name"]["choices"] == [NO_CLASS, *tab.predictor.classes]


def test_a_link_names_the_model_and_an_address_may(tab):
    request = opened(tab, "d")
    assert "model=" not in tab.refresh(request, *VALUES)["sentence"]
    page = tab.choose_model(request, "twenty", *VALUES)
    assert "example=chelsea.png&amp;model=twenty" in page["sentence"]
    query = {"example": CAT.name, "model": "twenty", "class": "sofa"}
    page = tab.follow_link(gr.Request(session_hash="e", query_params=query))
    assert page["model"] == "twenty" and page["name"]["value"] == "sofa"
    assert "sofa" in page["name"]["choices"]
    alone = tab.follow_link(gr.Request(session_hash="f", query_params={"model": "twenty"}))
    assert alone["model"] == "twenty" and "photo" not in alone
    wrong = {"model": "twenty", "example": "mine.jpg"}
    refused = tab.follow_link(gr.Request(session_hash="w", query_params=wrong))
    assert "alert" in refused["status"] and refused["model"] == tab.store.get("w").model == "twenty"


def test_no_address_takes_a_page_from_its_owners_model(tab):
    alone = Handlers(tab.predictor, None, SessionStore())
    page = alone.follow_link(gr.Request(session_hash="o", query_params={"model": "twenty"}))
    assert list(page) == ["status"] and "one model" in page["status"]
    assert alone.model_of(alone.store.get("o")) is tab.predictor


def test_one_of_them_is_the_second_model_until_a_file_is_given(tab, tmp_path):
    request = opened(tab, "s")
    tab.open_tab(request, Click(value="Compare"), *VALUES)
    page = tab.choose_second(request, "animals", *VALUES)
    assert "compact.safetensors" in page["second"] and page["compare_views"].count("<img") == 10
    assert tab.store.get("s").compared.predictor is tab.models["animals"]
    save_checkpoint(lively_detector(0).float(), tmp_path / "mine.safetensors", {})
    given = {"path": str(tmp_path / "mine.safetensors"), "orig_name": "mine.safetensors"}
    page = tab.load_second(request, given, *VALUES)
    assert "mine.safetensors" in page["second"] and page["second_model"] is None
    tab.choose_second(request, "animals", *VALUES)
    assert tab.load_second(request, None, *VALUES) == {}  # the unused file is taken off the page
    assert tab.store.get("s").second is tab.models["animals"]


@pytest.mark.parametrize("name", ["/etc/passwd", "compact.safetensors", "", None, ["twenty"]])
def test_no_file_is_a_model_of_the_page(tab, name):
    for choose in (tab.choose_model, tab.choose_second):
        with pytest.raises(InputError, match="no such model"):
            choose(gr.Request(session_hash="g"), name, *VALUES)
    assert tab.store.get("g").model is tab.store.get("g").second is None


def test_the_threshold_begins_at_a_hundredth_that_the_model_keeps(tab):
    page = tab.choose_model(opened(tab, "t"), "twenty", *VALUES)
    own = load("twenty").detector.config.score_threshold
    assert (
        own <= page["threshold"]["minimum"] == round(page["threshold"]["minimum"], 2) < own + 0.01
    )
    assert page["threshold"]["minimum"] < lowest_of(tab.predictor) == 0.05


def test_photographs_are_listed_by_one_model(tab, tmp_path):
    request, path = gr.Request(session_hash="h"), tmp_path / "scene.png"
    scene(0).save(path)
    payload = [{"path": str(path), "orig_name": path.name}]
    reading = tab.load_gallery(request, payload, "multiple")
    next(reading)
    page = tab.choose_model(request, "twenty", *VALUES)
    assert list(reading) == [] and tab.store.get("h").gallery is None
    other = list(tab.load_gallery(request, payload, "directory", anew=True))
    assert other == [{}] and tab.store.get("h").gallery is None
    list(tab.load_gallery(request, payload, "multiple", anew=True))
    assert len(tab.store.get("h").gallery.classes) == 20
    page = tab.choose_model(request, "animals", *VALUES)
    assert page["gallery"] == NO_GALLERY and tab.store.get("h").gallery is None
    assert page["listed"]["value"] == EVERY_CLASS and len(page["listed"]["choices"]) == 7


def test_a_gallery_is_read_by_the_model_that_was_chosen_last():
    """Gradio would drop the second choice while the photographs are read for the first."""
    fns = build_app(tiny_predictor(), None).fns.values()
    assert {fn.trigger_mode for fn in fns if fn.name == "load_gallery"} == {"always_last"}


def test_every_model_is_offered_the_last_views_that_the_page_began_with():
    assert len({tuple(offered(load(name))) for name in MODELS}) == 1


def test_the_choice_is_there_for_the_package_s_own_models_alone():
    for model, shown in (("shipped", True), (None, False)):
        page = build_app(tiny_predictor(), model=model)
        (chooser,) = (b for b in page.blocks.values() if getattr(b, "elem_id", "") == "model")
        assert chooser.parent.parent.visible == shown and chooser.value == model


def test_a_page_that_was_forgotten_says_which_model_reads_its_photographs(tab):
    request, payload = gr.Request(session_hash="lost"), {"path": str(CAT), "orig_name": CAT.name}
    tab.choose_model(request, "twenty", *VALUES)
    tab.store.drop("lost")
    *_, page = tab.load_gallery(request, [payload])
    assert page["model"] == "shipped" and "animals-parts.safetensors" in page["about"]
    assert page["listed"]["choices"] == [EVERY_CLASS, *tab.predictor.classes]


def test_no_threshold_is_below_what_is_kept(tab):
    rocket = next(path for path in package_photographs() if path.name == "rocket.jpg")
    request, low = gr.Request(session_hash="t"), (0.02, *VALUES[1:])
    tab.choose_model(request, "twenty", *low)
    tab.open_photo(request, {"path": str(rocket), "orig_name": rocket.name}, *low)
    tab.choose_second(request, "shipped", *low)
    tab.open_tab(request, Click(value="Compare"), *low)
    own = tab.predictor.predict(rocket, score_threshold=0.02)
    assert tab.store.get("t").compared.shown(0.02) == len(own.scores) > 0
    page = tab.choose_model(request, "shipped", *low)
    assert page["threshold"]["value"] == lowest_of(tab.predictor) == 0.05
    assert "the threshold of 0.05" in page["table"]
