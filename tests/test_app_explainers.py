"""The last view's explainers: those of the registry, without a word of them in the app."""

import numpy as np
import pytest
from app_server import VALUES, scene, served, tiny_predictor
from gradio_client import Client, handle_file

from als.explain import EXPLAINERS, Explainer, make_maps
from als.ui.handlers import NO_VIEWS
from als.views.panels import captions, figures_of, last_title, panels_of
from als.views.photo_study import Choice, Settings, offered, study_photo

MIDDLE = VALUES[:-1]


def _rows(scene, kind):
    """Brighter from row to row, but only for the kind of scalar that was asked for."""
    ramp = np.linspace(0, len(kind), scene.size[0], dtype=np.float32)
    return np.repeat(ramp[:, None], scene.size[1], 1)[None].repeat(len(scene.boxes), 0)


@pytest.fixture
def added(monkeypatch):
    """An explainer more in the registry."""
    monkeypatch.setitem(EXPLAINERS, "rows", Explainer("By rows", _rows, kind="logit"))


@pytest.fixture
def study(scene_file):
    return study_photo(tiny_predictor(), scene_file, "scene.png")


def test_what_the_page_offers(monkeypatch):
    names = set(offered(tiny_predictor()))
    assert {"gradact", "gradcam", "gradcam_box", "objectness", "random"} <= names
    assert not names & {"localization", "classification", "drise"}
    missing = Explainer("From afar", _rows, package="a_package_that_nobody_has")
    monkeypatch.setitem(EXPLAINERS, "afar", missing)
    monkeypatch.setitem(EXPLAINERS, "gated", Explainer("Gated", _rows, needs_attention=True))
    assert "afar" not in offered(tiny_predictor()) and "gated" in offered(tiny_predictor())
    assert "gated" not in offered(tiny_predictor(attention=False))


@pytest.mark.parametrize("name", offered(tiny_predictor()))
def test_each_makes_the_last_view_and_its_numbers(study, name):
    settings = Settings(explainer=name)
    panel, title = panels_of(study, settings)[-1], last_title(settings)
    assert panel.title == title and panel.picture is not None
    assert title in captions(settings) and title in figures_of(study, settings)["share_inside_box"]


@pytest.mark.parametrize("name", offered(tiny_predictor()))
def test_a_caption_says_whether_all_boxes_have_one_map(study, name):
    maps = make_maps(name, study.predictor.scene(study.analysis, [0, 3]))
    same = np.array_equal(*maps)
    assert same == (not EXPLAINERS[name].per_object)


@pytest.mark.parametrize("other", [Settings(opacity=0.2), Settings(colour_map="gray"), Settings()])
def test_what_was_drawn_before_is_not_seen_in_the_pictures(study, scene_file, other):
    """The panels of the two maps are kept from choice to choice, without the box."""
    panels_of(study, Settings())
    fresh = study_photo(study.predictor, scene_file, "scene.png")
    study.choice = fresh.choice = Choice(detection=1)
    for one, two in zip(panels_of(study, other), panels_of(fresh, other), strict=True):
        assert one.picture == two.picture


def test_milliseconds_are_of_what_is_shown(study):
    steps = [
        figures_of(study, Settings(explainer=name))["milliseconds"] for name in ("odam", "random")
    ]
    assert [set(told) & {"ODAM, class score and box", "Random"} for told in steps] == [
        {"ODAM, class score and box"},
        {"Random"},
    ]


def test_the_choice_of_a_scalar_is_for_those_that_explain_one(study):
    for name, kind, target in (
        ("gradact", "width (dw)", "dw"),
        ("gradcam_softmax", "class score", "softmax"),
        ("gradcam_softmax", "height (dh)", "dh"),
        ("gradcam_box", "class score", "logit"),
        ("random", "width (dw)", None),
    ):
        assert Settings(kind=kind, explainer=name).target == target
    said = captions(Settings(kind="width (dw)", explainer="random"))["Random"]
    assert "choice of a score or side does not apply" in said and "Not learnt" in said
    assert Settings(explainer="odam").target is None  # it explains a score and all sides
    assert "no score" not in captions(Settings(explainer="odam"))[EXPLAINERS["odam"].title]
    layer = Settings(kind="width (dw)", explainer="gradcam_F")
    assert last_title(layer) == "Grad-CAM, width (dw), layer F"
    assert "width (dw) of the chosen box" in captions(layer)[last_title(layer)]


def test_choosing_one_sets_the_choice_of_its_scalar(tab):
    kinds = [tab[0].pick_explainer(name)["kind"] for name in ("gradcam_box", "gradact", "random")]
    assert [k["value"] for k in kinds] == ["width (dw)", "class score", "class score"]
    assert [k["interactive"] for k in kinds] == [True, True, False]


def test_a_second_model_without_such_a_map_says_so(scene_file, monkeypatch):
    monkeypatch.setitem(EXPLAINERS, "gated", Explainer("Gated", _rows, needs_attention=True))
    without = study_photo(tiny_predictor(attention=False), scene_file, "scene.png")
    settings = Settings(explainer="gated")
    panel = panels_of(without, settings)[-1]
    assert panel.picture is None and "no map of this model" in panel.note
    assert list(figures_of(without, settings)["share_inside_box"]) == ["Grad-CAM"]


def test_one_that_is_added_to_the_registry_is_on_the_page(added, tab):
    tab, request = tab
    before = tab.refresh(request, *VALUES)
    page = tab.refresh(request, *MIDDLE, "rows")
    assert "<h3>By rows</h3>" in page["views"] and page["views"] != before["views"]
    assert "<h3>By rows</h3>" not in before["views"] and "By rows" in page["numbers"]
    assert page["views"] != NO_VIEWS


def test_one_that_is_added_to_the_registry_is_served(added, tmp_path):
    scene(5).save(tmp_path / "scene.png")
    with served(tmp_path / "cache") as url:
        client = Client(url, verbose=False)
        (page,) = [
            c for c in client.config["components"] if c["props"].get("elem_id") == "explainer"
        ]
        assert ["By rows", "rows"] in [list(choice) for choice in page["props"]["choices"]]
        record, _, maps = client.predict(
            handle_file(tmp_path / "scene.png"),
            per_box_target="width (dw)",
            explainer="rows",
            api_name="/analyse",
        )
    assert record["explained"]["explainer_of_per_box_map"] == "rows"
    assert record["explained"]["target_of_per_box_map"] == "dw"
    assert "By rows, width (dw)" in record["share_inside_box"]
    arrays = np.load(maps)
    assert "gradient_x_activation" not in arrays.files
    assert np.array_equal(arrays["rows"][:, 0], np.linspace(0, 2, 120, dtype=np.float32))
