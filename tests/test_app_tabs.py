"""What the first tab answers, without a server: choices, settings, what is kept and exported."""

import re
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import numpy as np
import pytest
from app_server import VALUES, Click, only_network, scene, tiny_predictor

from als.drawing import RULES, Look
from als.ui import parts
from als.ui.explain_tab import NO_CLASS, ExplainTab
from als.ui.export import write_files
from als.ui.numbers import share_inside
from als.ui.panels import explained_sentence, figures_of, panels_of, record_of
from als.ui.session import BOX_KINDS, Choice, SessionStore, detection_at, study_photo
from als.ui.settings import Settings

SETTINGS = Settings(*VALUES)


@pytest.fixture
def study(scene_file):
    return study_photo(tiny_predictor(), scene_file, "scene.png")


def test_a_photo_gives_five_views_that_differ(tab):
    page = tab[0].refresh(tab[1], *VALUES)
    pictures = re.findall(r'src="(data:image/jpeg[^"]+)"', page[3])
    assert len(pictures) == 5 == len(set(pictures))
    assert page[3].count("als-bar") == 4 and "Not a map of the whole object" in page[3]


def test_how_maps_are_drawn_needs_no_network(tab, monkeypatch):
    tab, request = tab
    before = tab.refresh(request, *VALUES)
    runs = only_network(monkeypatch, tab.predictor)
    looks = [
        (0.9, "class score", 0.6, "viridis", RULES[1]),
        (0.3, "class score", 0.1, "viridis", RULES[1]),
        (0.3, "class score", 0.6, "cividis", RULES[1]),
        (0.3, "class score", 0.6, "viridis", RULES[0]),
    ]
    pages = [tab.refresh(request, *look)[3] for look in looks]
    assert runs == []
    assert len({before[3], *pages}) == 5, "a setting changed nothing"


def test_an_emptied_number_is_its_default_and_others_stay_in_range(tab):
    tab, request = tab
    emptied = tab.refresh(request, None, "class score", None, "viridis", RULES[1])
    look = Look()
    assert emptied == tab.refresh(request, 0.5, "class score", look.opacity, "viridis", RULES[1])
    beyond = tab.refresh(request, 7, "class score", -1, "viridis", RULES[1])
    assert beyond == tab.refresh(request, 1.0, "class score", 0.0, "viridis", RULES[1])


def test_another_detection_changes_only_its_own_views(tab, monkeypatch):
    tab, request = tab
    before = tab.refresh(request, *VALUES)
    runs = only_network(monkeypatch, tab.predictor)
    after = tab.pick(request, Click(row=1), *VALUES)
    assert runs == ["explain", "explain"], "one backward pass for each of the two maps"
    assert "detection 2" in after[2] and "detection 1" in before[2]
    assert 'aria-pressed="true"' in after[1].split('data-row="1"')[1].split("</tr>")[0]
    # The two attention maps are of the photo: the same colours and the same scale as before.
    scales = [re.findall(r'class="als-bar"><span>([^<]+)', page[3])[:2] for page in (before, after)]
    assert scales[0] == scales[1]
    tab.pick(request, Click(row=0), *VALUES)
    assert len(runs) == 2, "what was explained before is kept"


def test_eight_sessions_at_once_keep_their_own_photo(tmp_path):
    tab = ExplainTab(tiny_predictor(), SessionStore())

    def use(seed: int) -> list[str]:
        request, path = gr.Request(session_hash=str(seed)), tmp_path / f"{seed}.png"
        scene(seed).save(path)
        tab.open_photo(request, {"path": str(path), "orig_name": path.name}, *VALUES)
        return [tab.refresh(request, *VALUES), tab.pick(request, Click(row=1), *VALUES)]

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(use, range(8)))
    for seed, (first, second) in enumerate(pages):
        found = tiny_predictor().predict(tmp_path / f"{seed}.png")
        assert f"{seed}.png" in first[2] and f"{seed}.png" in second[2]
        for row in range(2):
            assert f"<td>{found.scores[row]:.3f}</td>" in first[1]
        assert f"detection 2: {found.names[1]} {found.scores[1]:.2f}" in second[2]


def test_a_click_chooses_the_smallest_box_around_it(study):
    found = study.prediction
    height, width = found.size
    for row, (x1, y1, x2, y2) in enumerate(found.boxes):
        got = detection_at(study, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, 0.0)
        area = (found.boxes[got, 2:] - found.boxes[got, :2]).prod()
        assert area <= (x2 - x1) * (y2 - y1), row
    assert detection_at(study, 0.5, 0.5, 1.1) is None
    assert detection_at(study, 2.0, 0.5, 0.0) is None


def test_a_click_beside_all_boxes_says_so(tab):
    tab, request = tab
    said, *rest = tab.pick(request, Click(x=2, y=2), *VALUES)
    assert "No detection there" in said and all(update == gr.skip() for update in rest)


def test_the_sentence_about_a_bad_file_outlasts_the_emptied_photo(tab, tmp_path):
    tab, request = tab
    (tmp_path / "notes.jpg").write_text("no photo")
    bad = {"path": str(tmp_path / "notes.jpg"), "orig_name": "notes.jpg"}
    said, *_, photo, _ = tab.open_photo(request, bad, *VALUES)
    assert "notes.jpg: not an image" in said and photo is None
    # Gradio then reports the emptied photo; another sentence may stand there by now.
    assert tab.open_photo(request, None, *VALUES)[0] == gr.skip()
    assert tab.open_photo(request, None, *VALUES)[0] == "", "the user emptied it"


def test_a_class_that_passes_nowhere_is_explained_and_said_to_be(tab):
    tab, request = tab
    page = tab.pick_class(request, "person", 0.999, *VALUES[1:])
    assert "No person passes the threshold of 1.00" in page[2] and "best-scoring" in page[2]
    assert "Nothing passes" in page[1] and page[3].count("<img") == 5
    back = tab.pick_class(request, NO_CLASS, *VALUES)
    assert "Explaining detection 1" in back[2]


def test_an_empty_map_is_called_empty(study, monkeypatch):
    weights = study.predictor.detector.roi_heads.cls_score.weight
    kept = weights.detach().clone()
    weights.data.zero_()  # every logit is now its bias: no feature raises any score
    try:
        panels = panels_of(study, Look(), 0.3, "class score")
        record = record_of(study, 0.3, "class score")
    finally:
        weights.data.copy_(kept)
    for panel in panels[3:]:
        assert "Empty map" in panel.note and panel.bar is None
    assert record["explained"]["empty_maps"] == ["Grad-CAM", "Gradient × activation"]
    page = parts.numbers_table([("", study)], "class score")
    assert "empty map" in page and "nan" not in page


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_numbers_of_every_target(study, kind):
    figures = figures_of(study, kind)
    assert len(figures["share_inside_box"]) == 4 and len(figures["rank_correlation"]) == 6
    assert 0 < figures["box_share_of_image"] <= 1
    assert {"trunk and maps", "Grad-CAM", "gradient x activation"} <= set(figures["milliseconds"])


def test_an_attention_map_of_zeros_is_called_empty(scene_file):
    study = study_photo(tiny_predictor(), scene_file, "scene.png", 0.0)
    for rule in RULES:
        panels = panels_of(study, Look(rule=rule), 0.3, "class score")
        assert panels[1].note == "Empty map: 0 everywhere."


def test_a_model_without_attention_says_that_it_has_no_maps(scene_file):
    study = study_photo(tiny_predictor(attention=False), scene_file, "scene.png")
    panels = panels_of(study, Look(), 0.3, "class score")
    assert [p.picture is None for p in panels] == [False, True, True, False, False]
    assert "no attention" in panels[1].note
    assert len(figures_of(study, "class score")["share_inside_box"]) == 2


def test_names_from_a_checkpoint_or_a_file_cannot_become_markup(scene_file):
    predictor = tiny_predictor()
    study = study_photo(predictor, scene_file, "<img src=x onerror=alert(1)>.png")
    assert "<img" not in parts.status(explained_sentence(study, 0.3))
    shown = parts.model_line(type(predictor)(predictor.detector, {"<b>": "<i>"}, source="<u>.st"))
    assert "<b>" not in shown and "<i>" not in shown and "<u>.st" not in shown


def test_the_model_line_names_checkpoint_data_and_figures():
    folded, shown = parts.model_line(tiny_predictor()).split("</details>")
    assert "tiny.safetensors" in folded and "<td>77</td>" in folded
    assert "Trained on blocks. On lines: AP50 12.5." in shown
    silent = type(tiny_predictor())(tiny_predictor().detector, {}, source="silent.safetensors")
    assert "says nothing of its data" in parts.model_line(silent).split("</details>")[1]


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
        for kind in BOX_KINDS.values():
            study.proposal_map(kind)
    assert len(study.explained) == 12


def test_maps_of_a_large_photo_are_kept_small_and_exported_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    scene(5, (2100, 1400)).save(tmp_path / "large.png")
    study = study_photo(tiny_predictor(), tmp_path / "large.png", "large.png")
    assert study.class_map().map.shape == (683, 1024) == study.prediction.localization_map.shape
    light = figures_of(study, "class score")
    _, _, maps = write_files(study, SETTINGS)
    whole = np.load(maps)
    assert whole["grad_cam"].shape == whole["localization_map"].shape == (1400, 2100)
    exact = share_inside(whole["localization_map"], study.class_map().box)
    assert light["share_inside_box"]["Localization map"] == pytest.approx(exact, abs=0.01)
