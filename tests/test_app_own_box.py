"""A box that somebody draws on the photo, or gives by numbers, is explained."""

import pytest
from app_server import VALUES, Click

from als.ui.handlers import DRAW_A_BOX, STOP_DRAWING
from als.views.photo_study import Choice


def test_two_clicks_in_any_order_explain_the_box_between_them(tab):
    tab, request = tab
    first = tab.draw_box(request)
    assert first["draw"] == STOP_DRAWING and "first corner" in first["box_status"]
    second = tab.pick(request, Click(x=0.75, y=0.5), *VALUES)
    assert "First corner at 120, 60" in second["box_status"] and "views" not in second
    page = tab.pick(request, Click(x=0.25, y=0.25), *VALUES)
    assert page["draw"] == DRAW_A_BOX and page["box_status"] == ""
    assert "Explaining the box 40, 30, 120, 60" in page["sentence"]
    assert page["views"].count("<img") == 5
    assert [page[name] for name in ("x1", "y1", "x2", "y2")] == [40, 30, 120, 60]
    study = tab.store.get("a").photo
    assert study.choice.box == (40, 30, 120, 60)
    # The next click chooses a detection again.
    x1, y1, x2, y2 = study.prediction.boxes[0] / [160, 120, 160, 120]
    page = tab.pick(request, Click(x=float(x1 + x2) / 2, y=float(y1 + y2) / 2), *VALUES)
    assert study.choice.box is None and study.choice.detection is not None
    box = study.prediction.boxes[study.choice.detection]
    assert [page[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(box, abs=0.5)


def test_drawing_can_be_stopped_at_any_corner(tab):
    tab, request = tab
    for clicks in range(2):
        tab.draw_box(request)
        for _ in range(clicks):
            tab.pick(request, Click(x=0.5, y=0.5), *VALUES)
        page = tab.draw_box(request)
        assert page == {"box_status": "", "draw": DRAW_A_BOX}
    assert tab.store.get("a").photo.choice == Choice(detection=0)


def test_two_clicks_on_one_place_are_refused_with_a_sentence(tab):
    tab, request = tab
    tab.draw_box(request)
    for _ in range(2):
        page = tab.pick(request, Click(x=0.5, y=0.5), *VALUES)
    assert page["draw"] == DRAW_A_BOX and "less than a pixel" in page["box_status"]
    assert tab.store.get("a").photo.choice == Choice(detection=0)


def test_numbers_and_a_class_explain_the_same_box(tab):
    tab, request = tab
    page = tab.explain_box(request, 40, 30, 120, 60, *VALUES)
    assert "Explaining the box 40, 30, 120, 60" in page["sentence"]
    for name in ("cat", "person"):
        page = tab.pick_class(request, name, *VALUES)
        assert f"Explaining the box 40, 30, 120, 60: {name}" in page["sentence"]


@pytest.mark.parametrize(
    "box, says",
    [((40, 30, 40, 60), "less than a pixel"), ((900, 900, 950, 950), "less than a pixel"),
     ((1, 2, 3, None), "all four numbers"), ((1, 2, 10**400, 9), "all four numbers")],
)  # fmt: skip
def test_a_box_that_is_none_gets_a_sentence_and_changes_nothing(tab, box, says):
    tab, request = tab
    page = tab.explain_box(request, *box, *VALUES)
    assert says in page["box_status"] and list(page) == ["box_status"]
    assert tab.store.get("a").photo.choice == Choice(detection=0)
    assert tab.pick(request, Click(row=1), *VALUES)["box_status"] == ""  # what was said is over


def test_the_second_model_explains_the_same_box(tab):
    tab, request = tab
    tab.explain_box(request, 40, 30, 120, 60, *VALUES)
    session = tab.store.get("a")
    session.tab = "Compare"
    tab.refresh(request, *VALUES)
    assert session.compared.choice.box == (40, 30, 120, 60)


def test_a_box_of_numbers_leaves_the_drawing_as_it_says(tab):
    tab, request = tab
    asked = tab.draw_box(request)["box_status"]
    assert tab.explain_box(request, 40, 30, 120, 60, *VALUES)["box_status"] == asked
