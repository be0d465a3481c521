"""The third tab, without a server: maps replaced, and what became of the boxes."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from app_server import VALUES, Click, scene, tiny_predictor
from PIL import Image
from tiny import lively_detector

from als.inference import Predictor
from als.ui import what_if
from als.ui.handlers import Handlers
from als.ui.session import SessionStore
from als.views.photo_study import Choice, study_photo


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The handlers with a photo on the page, and the requests of its session."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    scene(5).save(tmp_path / "scene.png")
    handlers, request = (
        Handlers(tiny_predictor(), None, SessionStore()),
        gr.Request(session_hash="a"),
    )
    payload = {"path": str(tmp_path / "scene.png"), "orig_name": "scene.png"}
    handlers.open_photo(request, payload, *VALUES)
    return handlers, request


def test_neutral_and_swapped_maps_change_what_is_found(page):
    tab, request = page
    session = tab.store.get("a")
    made = session.photo.prediction
    tab.change_maps(request, what_if.NEUTRAL, what_if.NEUTRAL, None, *VALUES)
    for used in ("localization_map", "classification_map"):
        assert np.allclose(getattr(session.changed.prediction, used), 1, rtol=0, atol=1e-6)
    assert not np.array_equal(session.changed.prediction.scores, made.scores)
    tab.change_maps(request, what_if.SWAP, what_if.SWAP, None, *VALUES)
    swapped = session.changed.prediction
    assert np.allclose(swapped.localization_map, made.classification_map, atol=1e-6)
    assert np.allclose(swapped.classification_map, made.localization_map, atol=1e-6)


def test_keeping_both_maps_changes_nothing(page):
    tab, request = page
    tab.change_maps(request, what_if.KEEP, what_if.KEEP, None, *VALUES)
    session = tab.store.get("a")
    for before, after in ((session.photo.prediction, session.changed.prediction),):
        assert np.array_equal(before.boxes, after.boxes)
    rows = what_if.changes_of(session.photo, session.changed, 0.3)
    assert rows and all(first == second and both == "1.00" for _, first, second, both in rows)


def layer(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 4] as the page sends a layer."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_painted_strokes_become_the_map(page):
    tab, request = page
    strokes = np.zeros((120, 160, 4), np.uint8)
    strokes[:, :80, 3] = 255
    painting = {"layers": [layer(strokes)]}
    drawn = tab.change_maps(request, what_if.ONLY, what_if.KEEP, painting, *VALUES)
    used = tab.store.get("a").changed.prediction.localization_map
    assert used[:, :40].min() > 0.99 and used[:, 120:].max() < 0.01
    assert drawn["changed_views"].count("<img") == 6
    made = tab.store.get("a").photo.prediction.localization_map
    tab.change_maps(request, what_if.NEVER, what_if.KEEP, painting, *VALUES)
    used = tab.store.get("a").changed.prediction.localization_map
    assert used[:, :40].max() < 0.01 and np.abs(used - made)[:, 120:].mean() < 0.1


def test_the_chosen_box_can_be_filled_without_a_pointer(page):
    tab, request = page
    session = tab.store.get("a")
    found = session.photo.prediction
    x1, y1, x2, y2 = found.boxes[session.photo.choice.detection or 0].round().astype(int)
    tab.change_maps(request, what_if.KEEP, what_if.INSIDE, None, *VALUES)
    used = session.changed.prediction.classification_map
    outside = np.ones_like(used, bool)
    outside[y1:y2, x1:x2] = False
    # Not 1 and 0: the grid's cells of 16 pixels blur the box's edge.
    assert used[~outside].mean() > 0.5 > 2 * used[outside].mean()
    tab.change_maps(request, what_if.KEEP, what_if.OUTSIDE, None, *VALUES)
    used = session.changed.prediction.classification_map
    assert used[y1:y2, x1:x2].mean() < found.classification_map[y1:y2, x1:x2].mean()


def opened(tab, request) -> dict:
    """The page when the third tab is opened."""
    return tab.open_tab(request, Click(value="What if"), *VALUES)


def test_strokes_stay_until_there_is_another_photo(page):
    tab, request = page
    session = tab.store.get("a")
    shown = opened(tab, request)["canvas"]
    assert shown["layers"] == []
    with Image.open(shown["background"]) as background:
        assert np.array_equal(background, session.photo.display)
    tab.open_tab(request, Click(value="Explain"), *VALUES)
    assert "canvas" not in opened(tab, request), "a new canvas would lose the strokes"
    session.open(session.photo)
    assert Path(opened(tab, request)["canvas"]["background"]).is_file()
    session.open(None)
    assert opened(tab, request)["canvas"] is None


def test_no_canvas_rewrites_a_photo_that_a_browser_may_be_reading(page):
    tab, request = page
    editor, paths = gr.ImageEditor(type="numpy"), []
    for _ in range(2):
        tab.store.get("a").on_canvas = None
        shown = opened(tab, request)["canvas"]
        paths.append(Path(editor.postprocess(shown).background.path))
    assert paths[0] != paths[1] and paths[0].read_bytes() == paths[1].read_bytes()


def test_the_box_of_a_chosen_class_is_the_one_that_is_filled(page):
    tab, request = page
    study = tab.store.get("a").photo
    label = int(study.prediction.labels[study.choice.detection])
    study.choice = Choice(label=label % 3 + 1)  # another class than the best detection's
    x1, y1, x2, y2 = study.class_map().box.round().astype(int)
    region = what_if.chosen_box(study)
    assert region[y1:y2, x1:x2].all() and region.sum() == (x2 - x1) * (y2 - y1)
    assert not np.allclose(study.class_map().box, study.prediction.boxes[0], atol=1)


def test_strokes_on_a_photo_chosen_while_the_tab_is_open_stay(page, tmp_path):
    tab, request = page
    opened(tab, request)
    scene(6).save(tmp_path / "other.png")
    tab.open_photo(request, {"path": str(tmp_path / "other.png")}, *VALUES)
    assert tab.refresh(request, *VALUES)["canvas"], "the new photo comes on the editor"
    tab.open_tab(request, Click(value="Explain"), *VALUES)
    assert "canvas" not in opened(tab, request), "the strokes are lost"


def test_an_opened_photo_clears_what_was_made_of_the_last_one(page, tmp_path):
    tab, request = page
    tab.change_maps(request, what_if.NEUTRAL, what_if.KEEP, None, *VALUES)
    drawn = tab.open_photo(request, {"path": str(tmp_path / "scene.png")}, *VALUES)
    assert "Choose what becomes of a map" in drawn["changed_views"]
    assert drawn["changed_status"] == drawn["changes"] == ""
    tab.change_maps(request, what_if.NEUTRAL, what_if.KEEP, None, *VALUES)
    assert opened(tab, request)["changed_views"].count("<img") == 6


@torch.no_grad()
def test_neutral_maps_leave_the_feature_alone_whatever_the_form_of_attention(tmp_path):
    scene(5).save(tmp_path / "scene.png")
    for form, neutral in (("product", 1), ("residual", 0)):
        detector = lively_detector(0, attention_form=form).float()
        study = study_photo(Predictor(detector, {}), tmp_path / "scene.png", "scene.png")
        changed = what_if.with_changed_maps(study, what_if.NEUTRAL, what_if.NEUTRAL, None)
        encoding = study.analysis.encoding
        alone = replace(encoding, f_loc=encoding.f, f_cls=encoding.f)
        found = detector.detect(alone)[0]
        assert len(found.boxes) and changed.prediction.labels.tolist() == found.labels.tolist()
        assert np.allclose(changed.prediction.boxes, found.boxes, atol=1e-3)
        assert np.allclose(changed.prediction.scores, found.scores, atol=1e-5)
        assert not np.array_equal(changed.prediction.scores, study.prediction.scores)
        assert np.allclose(changed.prediction.localization_map, neutral)


NOTHING = layer(np.zeros((4, 4, 4), np.uint8))


@pytest.mark.parametrize("painting", [None, {"layers": []}, {"layers": [NOTHING]}])
def test_running_without_strokes_asks_for_them(page, painting):
    tab, request = page
    drawn = tab.change_maps(request, what_if.ONLY, what_if.KEEP, painting, *VALUES)
    said = drawn["changed_status"]
    assert "Nothing is painted yet" in said and 'role="alert"' in said


def test_boxes_are_matched_before_and_after(page):
    tab, request = page
    tab.change_maps(request, what_if.NEUTRAL, what_if.KEEP, None, *VALUES)
    session = tab.store.get("a")
    rows = what_if.changes_of(session.photo, session.changed, 0.3)
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
    assert what_if.changes_of(before, after, 0.5) == [
        ("cat", "0.900", "0.600", "0.80"),
        ("cat", "0.800", "gone", ""),
        ("dog", "none", "0.700", ""),
    ]
    apart = seen(("cat", 0.6, [6, 0, 16, 10]))
    assert [row[2] for row in what_if.changes_of(before, apart, 0.85)] == ["gone"]
