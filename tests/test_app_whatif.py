"""The third tab, without a server: maps replaced, and what became of the boxes."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from app_server import VALUES, scene, tiny_predictor
from PIL import Image

from als.ui import whatif_tab
from als.ui.explain_tab import ExplainTab
from als.ui.session import Choice, SessionStore, study_photo


@pytest.fixture
def what_if(tmp_path, monkeypatch):
    """The tab with a photo on the page, and the requests of its session."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    scene(5).save(tmp_path / "scene.png")
    store, request = SessionStore(), gr.Request(session_hash="a")
    payload = {"path": str(tmp_path / "scene.png"), "orig_name": "scene.png"}
    ExplainTab(tiny_predictor(), store).open_photo(request, payload, *VALUES)
    return whatif_tab.WhatIfTab(store), request


def test_ones_and_swapped_maps_change_what_is_found(what_if):
    tab, request = what_if
    session = tab.store.get("a")
    made = session.photo.prediction
    tab.run(request, whatif_tab.ONES, whatif_tab.ONES, None, *VALUES)
    for used in ("localization_map", "classification_map"):
        assert np.allclose(getattr(session.changed.prediction, used), 1, rtol=0, atol=1e-6)
    assert not np.array_equal(session.changed.prediction.scores, made.scores)
    tab.run(request, whatif_tab.SWAP, whatif_tab.SWAP, None, *VALUES)
    swapped = session.changed.prediction
    assert np.allclose(swapped.localization_map, made.classification_map, atol=1e-6)
    assert np.allclose(swapped.classification_map, made.localization_map, atol=1e-6)


def test_keeping_both_maps_changes_nothing(what_if):
    tab, request = what_if
    tab.run(request, whatif_tab.KEEP, whatif_tab.KEEP, None, *VALUES)
    session = tab.store.get("a")
    for before, after in ((session.photo.prediction, session.changed.prediction),):
        assert np.array_equal(before.boxes, after.boxes)
    rows = whatif_tab.changes_of(session.photo, session.changed, 0.3)
    assert rows and all(first == second and both == "1.00" for _, first, second, both in rows)


def test_painted_strokes_become_the_map(what_if):
    tab, request = what_if
    strokes = np.zeros((120, 160, 4), np.uint8)
    strokes[:, :80, 3] = 255
    painting = {"background": None, "layers": [strokes], "composite": None}
    page = tab.run(request, whatif_tab.ONLY, whatif_tab.KEEP, painting, *VALUES)
    used = tab.store.get("a").changed.prediction.localization_map
    assert used[:, :40].min() > 0.99 and used[:, 120:].max() < 0.01
    assert page[1].count("<img") == 6
    made = tab.store.get("a").photo.prediction.localization_map
    tab.run(request, whatif_tab.NEVER, whatif_tab.KEEP, painting, *VALUES)
    used = tab.store.get("a").changed.prediction.localization_map
    assert used[:, :40].max() < 0.01 and np.abs(used - made)[:, 120:].mean() < 0.1


def test_the_chosen_box_can_be_filled_without_a_pointer(what_if):
    tab, request = what_if
    session = tab.store.get("a")
    found = session.photo.prediction
    x1, y1, x2, y2 = found.boxes[session.photo.choice.detection or 0].round().astype(int)
    tab.run(request, whatif_tab.KEEP, whatif_tab.INSIDE, None, *VALUES)
    used = session.changed.prediction.classification_map
    outside = np.ones_like(used, bool)
    outside[y1:y2, x1:x2] = False
    # Not 1 and 0: the grid's cells of 16 pixels blur the box's edge.
    assert used[~outside].mean() > 0.5 > 2 * used[outside].mean()
    tab.run(request, whatif_tab.KEEP, whatif_tab.OUTSIDE, None, *VALUES)
    used = session.changed.prediction.classification_map
    assert used[y1:y2, x1:x2].mean() < found.classification_map[y1:y2, x1:x2].mean()


def test_strokes_stay_until_there_is_another_photo(what_if):
    tab, request = what_if
    session = tab.store.get("a")
    shown = tab.tab_opened(request)
    assert shown["layers"] == []
    with Image.open(shown["background"]) as background:
        assert np.array_equal(background, session.photo.display)
    assert tab.tab_opened(request) == gr.skip(), "a new canvas would lose the strokes"
    session.open(session.photo)
    assert Path(tab.tab_opened(request)["background"]).is_file()
    session.open(None)
    assert tab.tab_opened(request) is None


def test_no_canvas_rewrites_a_photo_that_a_browser_may_be_reading(what_if):
    tab, request = what_if
    editor = gr.ImageEditor(type="numpy")
    paths = [Path(editor.postprocess(tab.canvas(request)).background.path) for _ in range(2)]
    assert paths[0] != paths[1] and paths[0].read_bytes() == paths[1].read_bytes()


def test_the_box_of_a_chosen_class_is_the_one_that_is_filled(what_if):
    tab, request = what_if
    study = tab.store.get("a").photo
    label = int(study.prediction.labels[study.choice.detection])
    study.choice = Choice(label=label % 3 + 1)  # another class than the best detection's
    x1, y1, x2, y2 = study.class_map().box.round().astype(int)
    region = whatif_tab.chosen_box(study)
    assert region[y1:y2, x1:x2].all() and region.sum() == (x2 - x1) * (y2 - y1)
    assert not np.allclose(study.class_map().box, study.prediction.boxes[0], atol=1)


def test_strokes_on_a_photo_chosen_while_the_tab_is_open_stay(what_if):
    tab, request = what_if
    session = tab.store.get("a")
    tab.tab_opened(request)
    session.open(study_photo(tiny_predictor(), scene(6), "other.png"))
    assert tab.canvas(request) is not None  # the new photo comes while the editor is shown
    tab.tab_left(request)
    assert tab.tab_opened(request) == gr.skip(), "the strokes are lost"


def test_an_opened_photo_clears_only_what_was_made_of_the_last_one(what_if):
    tab, request = what_if
    assert tab.photo_opened(request) == ("", whatif_tab.NOTHING_YET, "")
    tab.run(request, whatif_tab.ONES, whatif_tab.KEEP, None, *VALUES)
    assert tab.photo_opened(request) == [gr.skip()] * 3


@pytest.mark.parametrize("painting", [None, {"layers": []}, {"layers": [np.zeros((4, 4, 4))]}])
def test_running_without_strokes_asks_for_them(what_if, painting):
    tab, request = what_if
    said = tab.run(request, whatif_tab.ONLY, whatif_tab.KEEP, painting, *VALUES)[0]
    assert "Nothing is painted yet" in said and 'role="alert"' in said


def test_boxes_are_matched_before_and_after(what_if):
    tab, request = what_if
    tab.run(request, whatif_tab.ONES, whatif_tab.KEEP, None, *VALUES)
    session = tab.store.get("a")
    rows = whatif_tab.changes_of(session.photo, session.changed, 0.3)
    before = sum(first != "none" for _, first, _, _ in rows)
    after = sum(second != "gone" for _, _, second, _ in rows)
    assert before == (session.photo.prediction.scores >= 0.3).sum()
    passing = (session.changed.prediction.scores >= 0.3).sum()
    assert after == passing


def seen(*found: tuple[str, float, list[float]]) -> SimpleNamespace:
    """A study with these detections: (class, score, box)."""
    names, scores, boxes = zip(*found, strict=True)
    labels = np.array([1 + ["cat", "dog"].index(name) for name in names])
    prediction = SimpleNamespace(
        names=names, scores=np.array(scores), labels=labels, boxes=np.array(boxes, np.float32)
    )
    return SimpleNamespace(prediction=prediction)


def test_a_box_is_matched_once_and_to_its_class_alone():
    before = seen(
        ("cat", 0.9, [0, 0, 10, 10]), ("cat", 0.8, [0, 0, 10, 9]), ("dog", 0.2, [0, 0, 9, 9])
    )
    after = seen(("dog", 0.7, [0, 0, 10, 10]), ("cat", 0.6, [0, 0, 10, 8]))
    assert whatif_tab.changes_of(before, after, 0.5) == [
        ("cat", "0.900", "0.600", "0.80"),
        ("cat", "0.800", "gone", ""),
        ("dog", "none", "0.700", ""),
    ]
    apart = seen(("cat", 0.6, [6, 0, 16, 10]))
    assert [row[2] for row in whatif_tab.changes_of(before, apart, 0.85)] == ["gone"]
