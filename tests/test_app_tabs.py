"""What the first tab answers, without a server: choices, settings, what is kept and exported."""

import html
import re
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import numpy as np
import pytest
from app_server import VALUES, Click, only_network, scene, tiny_predictor
from PIL import Image

from als.drawing import RULES, Look, map_panel, sampled
from als.errors import InputError
from als.explain.map_measures import box_region, energy
from als.ui import build_app, markup, what_if
from als.ui.handlers import NO_CLASS, Handlers
from als.ui.session import SessionStore
from als.ui.takeaway import write_files
from als.ui.what_if import chosen_box
from als.views.panels import explained_sentence, figures_of, panels_of, record_of
from als.views.photo_study import KIND_OF_WORDS, Choice, Settings, study_photo

SETTINGS = Settings(*VALUES)


@pytest.fixture
def study(scene_file):
    return study_photo(tiny_predictor(), scene_file, "scene.png")


def test_a_photo_gives_five_views_that_differ(tab):
    views = tab[0].refresh(tab[1], *VALUES)["views"]
    pictures = re.findall(r'src="(data:image/jpeg[^"]+)"', views)
    assert len(pictures) == 5 == len(set(pictures))
    assert views.count("als-bar") == 4 and "Not a map of the whole object" in views


def test_how_maps_are_drawn_needs_no_network(tab, monkeypatch):
    tab, request = tab
    before = tab.refresh(request, *VALUES)
    runs = only_network(monkeypatch, tab.predictor)
    looks = [
        (0.9, "class score", 0.6, "viridis", RULES[1], "gradact"),
        (0.3, "class score", 0.1, "viridis", RULES[1], "gradact"),
        (0.3, "class score", 0.6, "cividis", RULES[1], "gradact"),
        (0.3, "class score", 0.6, "viridis", RULES[0], "gradact"),
    ]
    pages = [tab.refresh(request, *look)["views"] for look in looks]
    assert runs == []
    assert len({before["views"], *pages}) == 5, "a setting changed nothing"


def test_an_emptied_number_is_its_default_and_others_stay_in_range(tab):
    tab, request = tab
    others = "viridis", RULES[1], "gradact"
    emptied = tab.refresh(request, None, "class score", None, *others)
    assert emptied == tab.refresh(request, 0.5, "class score", Look().opacity, *others)
    beyond = tab.refresh(request, 7, "class score", -1, *others)
    assert beyond == tab.refresh(request, 1.0, "class score", 0.0, *others)


def test_an_event_that_overtook_another_is_the_last(tab):
    tab, request = tab
    refresh, catch_up = tab.in_order(tab.refresh), tab.in_order(tab.catch_up)
    older = [VALUES[0], VALUES[1], 0.9, *VALUES[3:]]
    assert refresh(request, 5.0, *VALUES)["views"]
    assert catch_up(request, 4.0, *older) == refresh(request, 3.0, *older) == {}
    assert catch_up(request, 6.0, *VALUES) == {} and catch_up(request, 7.0, *older)["views"]
    assert refresh(request, "now", *VALUES)["views"], "not sent by a page, but no traceback"
    other = tab.in_order(lambda request: {"gallery": ""}, "gallery")
    assert other(request, 6.0), "another part of the page has an order of its own"
    assert other(request, 5.0) == {}


def test_another_detection_changes_only_its_own_views(tab, monkeypatch):
    tab, request = tab
    before = tab.refresh(request, *VALUES)
    runs = only_network(monkeypatch, tab.predictor)
    after = tab.pick(request, Click(row=1), *VALUES)
    assert runs == ["explain", "explain"], "one backward pass for each of the two maps"
    assert "detection 2" in after["sentence"] and "detection 1" in before["sentence"]
    assert 'aria-pressed="true"' in after["table"].split('data-row="1"')[1].split("</tr>")[0]
    # The two attention maps are of the photo: the same colours and the same scale as before.
    scale = r'class="als-bar"><span>([^<]+)'
    scales = [re.findall(scale, page["views"])[:2] for page in (before, after)]
    assert scales[0] == scales[1]
    tab.pick(request, Click(row=0), *VALUES)
    assert len(runs) == 2, "what was explained before is kept"


def test_eight_sessions_at_once_keep_their_own_photo(tmp_path):
    tab = Handlers(tiny_predictor(), None, SessionStore())

    def use(seed: int) -> list[dict]:
        request, path = gr.Request(session_hash=str(seed)), tmp_path / f"{seed}.png"
        scene(seed).save(path)
        tab.open_photo(request, {"path": str(path), "orig_name": path.name}, *VALUES)
        return [tab.refresh(request, *VALUES), tab.pick(request, Click(row=1), *VALUES)]

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(use, range(8)))
    for seed, (first, second) in enumerate(pages):
        found = tiny_predictor().predict(tmp_path / f"{seed}.png")
        assert f"{seed}.png" in first["sentence"] and f"{seed}.png" in second["sentence"]
        for row in range(2):
            assert f"<td>{found.scores[row]:.3f}</td>" in first["table"]
        assert f"detection 2: {found.names[1]} {found.scores[1]:.2f}" in second["sentence"]


def test_a_click_chooses_the_smallest_box_around_it(study):
    found = study.prediction
    height, width = found.size
    for row, (x1, y1, x2, y2) in enumerate(found.boxes):
        got = study.detection_at((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, 0.0)
        area = (found.boxes[got, 2:] - found.boxes[got, :2]).prod()
        assert area <= (x2 - x1) * (y2 - y1), row
    assert study.detection_at(0.5, 0.5, 1.1) is None
    assert study.detection_at(2.0, 0.5, 0.0) is None


def test_a_click_beside_all_boxes_says_so(tab):
    tab, request = tab
    page = tab.pick(request, Click(x=2, y=2), *VALUES)
    assert "No detection there" in page["status"] and list(page) == ["status"]


def test_the_sentence_about_a_bad_file_outlasts_the_emptied_photo(tab, tmp_path):
    tab, request = tab
    (tmp_path / "notes.jpg").write_text("no photo")
    bad = {"path": str(tmp_path / "notes.jpg"), "orig_name": "notes.jpg"}
    page = tab.open_photo(request, bad, *VALUES)
    assert "notes.jpg: not an image" in page["status"] and page["photo"] is None
    # Gradio then reports the emptied photo; another sentence may stand there by now.
    assert "status" not in tab.open_photo(request, None, *VALUES)
    assert tab.open_photo(request, None, *VALUES)["status"] == "", "the user emptied it"


def test_a_class_that_passes_nowhere_is_explained_and_said_to_be(tab):
    tab, request = tab
    page = tab.pick_class(request, "person", 0.999, *VALUES[1:])
    said = page["sentence"]
    assert "No person passes the threshold of 1.00" in said and "best-scoring" in said
    assert "Nothing passes" in page["table"] and page["views"].count("<img") == 5
    assert "The photo with 1 boxes: person" in page["views"], "the chosen one is drawn"
    back = tab.pick_class(request, NO_CLASS, *VALUES)
    assert "Explaining detection 1" in back["sentence"]


def test_a_detection_that_does_not_pass_is_not_called_the_best_proposal(study):
    study.choice = Choice(detection=len(study.prediction.boxes) - 1)
    name = study.class_map().name
    said = explained_sentence(study, 1.0)
    assert f"No {name} passes the threshold of 1.00; explaining detection" in said
    assert "best-scoring" not in said


def test_an_empty_map_is_called_empty(study, monkeypatch):
    weights = study.predictor.detector.roi_heads.cls_score.weight
    kept = weights.detach().clone()
    weights.data.zero_()  # every logit is now its bias: no feature raises any score
    try:
        panels = panels_of(study, SETTINGS)
        record = record_of(study, SETTINGS)
    finally:
        weights.data.copy_(kept)
    for panel in panels[3:]:
        assert "Empty map" in panel.note and panel.bar is None
    assert record["explained"]["empty_maps"] == ["Grad-CAM", "Gradient × activation"]
    page = markup.numbers_table(study, SETTINGS)
    assert "empty map" in page and "nan" not in page


@pytest.mark.parametrize("kind", KIND_OF_WORDS)
def test_numbers_of_every_target(study, kind):
    figures = figures_of(study, Settings(kind=kind))
    assert len(figures["share_inside_box"]) == 4 and len(figures["rank_correlation"]) == 6
    assert 0 < figures["box_share_of_image"] <= 1
    assert {"trunk and maps", "Grad-CAM", "gradient x activation"} <= set(figures["milliseconds"])


def test_an_attention_map_of_zeros_is_called_empty(scene_file):
    study = study_photo(tiny_predictor(), scene_file, "scene.png", 0.0)
    for rule in RULES:
        panels = panels_of(study, Settings(0.3, rule=rule))
        assert panels[1].note == "Empty map: 0 everywhere."


def test_a_map_off_the_scale_says_so():
    heat, grey = np.array([[0.2, 3.4], [0.5, 1.0]]), Image.new("RGB", (32, 32))
    notes = [map_panel("Grad-CAM", heat, grey, Look(rule=rule)).note for rule in RULES]
    assert notes == ["Values up to 3.4 have the colour of 1 on this scale.", "", ""]


def test_a_photo_that_cannot_be_read_has_its_owners_name(tmp_path):
    file = tmp_path / "cached.jpg"
    file.write_bytes(b"no photo")
    with pytest.raises(InputError, match="^My photo.jpg: "):
        study_photo(tiny_predictor(), file, "My photo.jpg")


def test_a_model_without_attention_says_that_it_has_no_maps(scene_file):
    study = study_photo(tiny_predictor(attention=False), scene_file, "scene.png")
    panels = panels_of(study, SETTINGS)
    assert [p.picture is None for p in panels] == [False, True, True, False, False]
    assert "no attention" in panels[1].note
    assert len(figures_of(study, SETTINGS)["share_inside_box"]) == 2


def test_names_from_a_checkpoint_or_a_file_cannot_become_markup(scene_file):
    predictor = tiny_predictor()
    study = study_photo(predictor, scene_file, "<img src=x onerror=alert(1)>.png")
    assert "<img" not in markup.status(explained_sentence(study, 0.3))
    shown = markup.model_line(type(predictor)(predictor.detector, {"<b>": "<i>"}, source="<u>.st"))
    assert "<b>" not in shown and "<i>" not in shown and "<u>.st" not in shown


def test_the_model_line_names_checkpoint_data_and_figures():
    folded, shown = markup.model_line(tiny_predictor()).split("</details>")
    assert "with attention F A, separate branches" in folded
    assert "tiny.safetensors" in folded and '"seed": 77' in html.unescape(folded)
    assert "Trained on blocks. On lines: AP 0.125." in shown
    silent = type(tiny_predictor())(tiny_predictor().detector, {}, source="silent.safetensors")
    assert "says nothing of its data" in markup.model_line(silent).split("</details>")[1]


def test_the_store_forgets_what_was_used_longest_ago(study):
    store = SessionStore(max_bytes=int(2.5 * study.bytes()), max_sessions=10)
    for key in "abc":
        store.get(key).open(study)
    store.get("a")
    kept = set(store.sessions)
    assert kept == {"a", "c"}
    store.get("a").second = study.predictor
    weights = sum(p.nbytes for p in study.predictor.detector.parameters())
    assert store.get("a").bytes() == study.bytes() + weights, "a checkpoint takes memory too"
    small = SessionStore(max_sessions=3)
    for key in "abcde":
        small.get(key)
    assert list(small.sessions) == ["c", "d", "e"]
    small.drop("d")
    assert list(small.sessions) == ["c", "e"]


def test_explanations_that_are_kept_are_bounded(study):
    for row in range(10):
        study.choice = Choice(label=1 + row % 3)
        for kind in KIND_OF_WORDS:
            study.last_map(Settings(kind=kind))
    assert len(study.explained) == 12


def test_maps_of_a_large_photo_are_kept_small_and_exported_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    scene(5, (2100, 1400)).save(tmp_path / "large.png")
    study = study_photo(tiny_predictor(), tmp_path / "large.png", "large.png")
    assert study.class_map().map.shape == (683, 1024) == study.prediction.localization_map.shape
    light = figures_of(study, SETTINGS)
    _, _, maps = write_files(study, SETTINGS)
    whole = np.load(maps)
    assert whole["grad_cam"].shape == whole["localization_map"].shape == (1400, 2100)
    exact = energy(
        whole["localization_map"], box_region(study.class_map().box, study.prediction.size)
    )
    assert light["share_inside_box"]["Localization map"] == pytest.approx(exact, abs=0.01)


def test_a_thin_box_of_a_large_photo_is_explained(tmp_path):
    """It is less than a pixel of the maps that are kept."""
    scene(5, (4000, 300)).save(tmp_path / "wide.png")
    study = study_photo(tiny_predictor(), tmp_path / "wide.png", "wide.png")
    study.choice = Choice(box=(3999, 10, 4000, 290))
    told = study.class_map()
    assert told.box.tolist() == [3999, 10, 4000, 290]
    assert told.map.shape == study.prediction.localization_map.shape == (77, 1024)
    assert np.array_equal(told.map, sampled(study.class_map(whole=True).map, (77, 1024)))
    region = chosen_box(study)
    assert region.sum() == region[3:74, 1023].sum() == 71
    study.choice = Choice(box=(10, 10, 10.5, 290))
    with pytest.raises(InputError, match="box 10, 10, 10.5, 290: .* photo of 4000 x 300 pixels"):
        study.class_map()


def test_every_answer_that_waits_for_the_network_catches_up(tab):
    fns = build_app(tiny_predictor(), None).fns.values()
    caught = {fn.trigger_after for fn in fns if fn.name == "catch_up"}
    named = {fn.name for fn in fns if fn._id in caught}
    assert {"explain_box", "load_second", "choose_second", "change_maps"} <= named
    tab, request = tab
    tab.open_tab(request, Click(value="What if"), *VALUES)
    tab.refresh(request, 1.0, *VALUES[1:])  # set while the next waits, which was sent before
    tab.change_maps(request, what_if.NEUTRAL, what_if.KEEP, None, *VALUES)
    assert "No box is over" in tab.catch_up(request, 1.0, *VALUES[1:])["changes"]
