"""Pictures and numbers of the app, against values worked out by hand."""

import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw
from scipy.stats import spearmanr

from als import drawing as views
from als.classes import VOC_CLASSES
from als.drawing import RULES, Look, Panel, comparison
from als.inference import Prediction
from als.views.panels import colours_of, rank_correlations
from als.views.photo_study import Study, iou

RAW, MIN_MAX, PERCENTILE = RULES
GREY = Image.new("RGB", (4, 2), (100, 100, 100))
RAMP = np.array([[0.2, 0.4, 0.6, 0.8]] * 2, np.float32)


def colour(value: float) -> list[int]:
    return views.colours_of("viridis")[round(255 * value)].tolist()


def test_rules_give_the_values_at_the_ends_of_the_scale():
    map = np.linspace(0, 2, 10001, dtype=np.float32).reshape(73, 137)
    assert views.value_range(map, RAW) == (0, 1)
    assert views.value_range(map, MIN_MAX) == (0, 2)
    assert views.value_range(map, PERCENTILE) == pytest.approx((0.02, 1.98), abs=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_a_constant_map_is_shown_by_its_value_and_not_stretched(rule):
    assert views.value_range(np.ones((3, 3), np.float32), rule) == (0, 1)


def test_a_map_of_small_values_or_of_a_small_object_has_a_scale_of_its_own():
    """The gradient of a score near 1 is small everywhere, and no less a map."""
    for rule in (MIN_MAX, PERCENTILE):
        panel = views.map_panel("Grad-CAM, softmax score", RAMP * 1e-7, GREY, Look(rule=rule))
        assert panel.note == "" and panel.bar[1] - panel.bar[0] > 5e-8
    small = np.zeros((100, 100), np.float32)
    small[50, 50:53] = 1, 2, 3
    assert views.value_range(small / 10, PERCENTILE) == pytest.approx((0, 0.3))


def test_overlay_takes_each_colour_from_the_value_under_the_pixel():
    shown = np.asarray(views.overlay(GREY, RAMP, Look(1.0, "viridis", RAW)))
    assert shown[0].tolist() == [colour(v) for v in (0.2, 0.4, 0.6, 0.8)]
    stretched = np.asarray(views.overlay(GREY, RAMP, Look(1.0, "viridis", MIN_MAX)))
    assert stretched[0, 0].tolist() == colour(0) and stretched[0, 3].tolist() == colour(1)


def test_opacity_mixes_map_and_photo():
    assert np.array_equal(views.overlay(GREY, RAMP, Look(0.0)), GREY)
    half = np.asarray(views.overlay(GREY, RAMP, Look(0.5, "viridis", RAW))).astype(int)
    expected = (np.array(colour(0.2)) + 100) / 2
    assert np.abs(half[0, 0] - expected).max() <= 1


def test_a_map_is_sampled_to_the_size_of_the_picture():
    photo = Image.new("RGB", (2, 1))
    shown = np.asarray(views.overlay(photo, RAMP.repeat(50, 0), Look(1.0, "viridis", RAW)))
    assert shown.shape == (1, 2, 3)
    assert shown[0, 0].tolist() == colour(0.4) and shown[0, 1].tolist() == colour(0.8)


def test_boxes_are_drawn_where_they_are():
    photo = Image.new("RGB", (640, 480))
    box = np.array([[100, 200, 300, 400]])
    drawn = np.asarray(views.draw_boxes(photo, box, ["dog"], ["dog 0.50"]))
    changed = np.argwhere(drawn.any(-1))
    expected = ImageColor.getrgb(views.class_colours(["dog"])["dog"])
    assert tuple(drawn[300, 100]) == tuple(drawn[399, 250]) == tuple(drawn[300, 299]) == expected
    assert not drawn[300, 150].any() and not drawn[300, 97].any()
    assert changed[:, 1].min() == 100 and changed[:, 0].max() == 399
    assert photo.getbbox() is None, "the photo itself was drawn on"


def test_classes_of_a_photo_have_colours_apart_as_long_as_there_are_colours():
    own = {name: views.class_colours([name])[name] for name in VOC_CLASSES}
    same = [name for name in VOC_CLASSES if own[name] == own["cat"]]
    assert len(same) > 1, "of two of them the surer one keeps its own"
    names = [same[-1], "person", *same[:-1], "person"][: len(views.CLASS_COLOURS)]
    colours = views.class_colours(names)
    assert colours[names[0]] == own[names[0]]
    assert len(set(colours.values())) == len(colours) == len(set(names))
    for end in range(len(names)):
        before = views.class_colours(names[:end])
        assert before.items() <= colours.items(), "a threshold changes no colour"
    assert set(views.class_colours(VOC_CLASSES)) == set(VOC_CLASSES)


def test_a_class_keeps_its_colour_in_the_row_below():
    """Alone, the surest of the lower row would take the colour that another one has above."""
    own = {name: views.class_colours([name])[name] for name in VOC_CLASSES}
    one, two = next((a, b) for a, b in combinations(VOC_CLASSES, 2) if own[a] == own[b])
    above = colours_of(study_of(one, two))
    below = colours_of(study_of(two, "cat", above=study_of(one, two)))
    assert views.class_colours([two])[two] == above[one] != above[two] == below[two]
    assert len(set(below.values())) == 3


def study_of(*names: str, above: Study | None = None) -> Study:
    found = SimpleNamespace(prediction=SimpleNamespace(names=names))
    return Study(None, found, "photo", above=above)


@pytest.mark.parametrize(
    "box", [[0, 0, 1, 640], [639, 0, 640, 1], [-5, -5, 900, 900], [3, 3, 3, 3]]
)
def test_boxes_at_the_edge_and_without_area_can_be_drawn(box):
    picture = Image.new("RGB", (640, 640))
    drawn = views.draw_boxes(picture, np.array([box]), ["cat"], ["cat"], chosen=0)
    assert drawn.getbbox() is not None


def test_names_of_boxes_over_one_another_stand_at_other_corners(monkeypatch):
    written = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda *a, **k: (written.append(a[2]), text(*a, **k))
    )
    boxes = np.array([[100, 100, 300, 300], [110, 110, 310, 290], [105, 105, 295, 280]], float)
    names = ["cat", "dog", "cow"]
    photo = Image.new("RGB", (400, 400))
    views.draw_boxes(photo, boxes, names, names)
    assert sorted(written) == sorted(names)
    # As many as a box has corners, where all are of one place.
    written.clear()
    views.draw_boxes(photo, boxes[[0] * 6], names * 2, names * 2)
    assert len(written) == 4


@pytest.mark.parametrize(
    "size, display",
    [
        ((1280, 960), (640, 480)),
        ((64, 32), (640, 320)),
        ((5000, 1), (640, 24)),
        ((1, 1), (640, 640)),
    ],
)
def test_photos_are_shown_in_a_size_that_can_be_seen(size, display):
    assert views.to_display(Image.new("RGB", size)).size == display
    whole = views.boxes_to_display(np.array([[0, 0, *size]]), size[::-1])
    assert whole[0].tolist() == [0, 0, *display]


def test_a_name_is_not_wider_than_a_strip():
    strip, box = Image.new("RGB", (60, 640), "white"), np.array([[0, 300, 20, 400]])
    drawn = np.asarray(views.draw_boxes(strip, box, ["dog"], ["horse"]))
    ink = drawn.sum(-1) < 100
    assert ink.any() and not ink[:, -3:].any()


def test_a_long_heading_stays_on_the_sheet():
    rows = [("one", [Panel("A", Image.new("RGB", (640, 320), "red"))])]
    heading = "Explaining detection 1 of a photograph with a long name. " * 3
    one, many = (comparison(rows, Look(), text) for text in ("heading", heading))
    assert many.width == one.width and many.height > one.height
    margin = np.asarray(many)[:, -views.MARGIN :]
    assert (margin == 255).all(), "letters run off the sheet"


def test_rank_correlations_are_scipys_and_see_only_the_order():
    values, other = np.random.default_rng(0).random((2, 96, 96)).astype(np.float32)
    other = np.maximum(values, other).round(1)  # ties
    maps = {"a": values, "b": values**3, "c": other, "d": np.ones_like(values)}
    told = rank_correlations(maps)
    assert list(told) == ["a / b", "a / c", "a / d", "b / c", "b / d", "c / d"]
    assert told["a / b"] == pytest.approx(1)
    assert told["a / c"] == pytest.approx(spearmanr(values.ravel(), other.ravel())[0])
    assert all(math.isnan(told[f"{one} / d"]) for one in "abc")
    assert rank_correlations({"a": values}) == {}


def test_iou_of_boxes():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6]], np.float32)
    assert iou(boxes[0], boxes) == pytest.approx([1, 1 / 7, 0])


def test_the_sheet_holds_every_panel():
    red, blue = Image.new("RGB", (640, 320), "red"), Image.new("RGB", (24, 640), "blue")
    rows = [("one", [Panel("A", red, bar=(0, 1)), Panel("B", blue)])]
    sheet = comparison([*rows, ("two", [Panel("C", None, "no such map")])], Look(), "heading")
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert (pixels == [255, 0, 0]).all(1).sum() == 480 * 240
    assert (pixels == [0, 0, 255]).all(1).sum() == 24 * 640
    last = views.colours_of("viridis")[-1]
    assert (pixels == last).all(1).any(), "the colour bar is missing"


def test_a_pale_map_takes_all_colours_with_its_values_below(tmp_path):
    """The classification map of F (1 + A) ends far below 1: from 0 to 1 it would be dark."""
    panel = views.map_panel("Classification map", RAMP / 8, GREY, Look(opacity=1))
    assert panel.bar == pytest.approx((0.025, 0.1)) and not panel.note
    row = np.asarray(panel.picture)[0]
    assert row[0].tolist() == colour(0) and row[-1].tolist() == colour(1)
    faint = views.map_panel("Classification map", RAMP / 80, GREY, Look())
    assert "stretch small differences" in faint.note

    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], np.zeros(0, np.float32)
    found = Prediction(*nothing, RAMP / 8, RAMP, (2, 4))
    saved = Image.open(views.save_prediction(Path("a.png"), found, tmp_path, GREY))
    last = views.map_panel("", RAMP, views.to_display(GREY), Look()).picture.getpixel((639, 100))
    in_panels = np.asarray(saved)[:400]  # above the colour bars
    columns = (in_panels == last).all(2).any(0).nonzero()[0]
    assert columns.min() < 1008 < columns.max(), "both maps reach the last colour"
