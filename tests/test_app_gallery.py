"""Several photographs in the app: their outcomes, and why an object was missed."""

import json
import re
import shutil
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from app_server import VALUES, Click, only_network, scene, tiny_predictor

from als.errors import InputError
from als.evaluation.missed import SAYS
from als.ui.gallery import COLOURS, MAX_PHOTOGRAPHS, ORDERS, read_gallery
from als.ui.handlers import EVERY_CLASS, NO_GALLERY, Handlers
from als.ui.session import SessionStore

THRESHOLD = VALUES[0]
WORST, *_, GIVEN = ORDERS
TINY_OBJECT = (1, 1, 3, 3)  # too small for any proposal


def payload(path) -> dict:
    return {"path": str(path), "orig_name": path.name}


def xml_of(objects) -> str:
    """Objects as (class, x1, y1, x2, y2), 0-based and half-open."""
    told = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    return f"<annotation>{told}</annotation>"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three photographs: of the first everything is found but a tiny dog, of the second nothing is
    annotated, the third has no annotation."""
    folder = tmp_path_factory.mktemp("gallery")
    for name, seed in (("a.png", 5), ("b.png", 6), ("c.png", 7)):
        scene(seed).save(folder / name)
    found = tiny_predictor().predict(folder / "a.png")
    sure = [(found.names[i], *found.boxes[i]) for i in np.flatnonzero(found.scores >= THRESHOLD)]
    (folder / "a.xml").write_text(xml_of([*sure, ("dog", *TINY_OBJECT)]))
    (folder / "b.xml").write_text(xml_of([]))
    (folder / "notes.txt").write_text("of another kind")
    return [payload(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def gallery(files):
    *_, (gallery, left) = read_gallery(tiny_predictor(), files)
    assert left == 0
    return gallery


@pytest.fixture
def listed(files):
    """Handlers with the gallery on the page, the request of its session, and what was said."""
    tab, request = Handlers(tiny_predictor(), None, SessionStore()), gr.Request(session_hash="g")
    said = list(tab.load_gallery(request, files))
    said.append(tab.list_gallery(request, EVERY_CLASS, WORST, *VALUES))
    return tab, request, said


def test_true_false_and_missed_by_hand(gallery):
    assert gallery.notes == ["1 of the files are of other kinds and left out: notes.txt."]
    by_name = {t.photograph.name: t for _, t in gallery.tallies(THRESHOLD, None, GIVEN)}
    found = {name: int(t.found.sum()) for name, t in by_name.items()}
    counts = {n: [t.count(kind) for kind in COLOURS] for n, t in by_name.items() if t.outcomes}
    assert counts == {"a.png": [found["a.png"], 0, 1], "b.png": [0, found["b.png"], 0]}
    assert by_name["c.png"].outcomes is None and found["b.png"] > 1


def test_orders_and_the_filter_by_class_and_score(gallery):
    def names(threshold, name, order):
        return [t.photograph.name for _, t in gallery.tallies(threshold, name, order)]

    assert names(THRESHOLD, None, WORST)[:2] == ["b.png", "a.png"]
    assert names(THRESHOLD, None, "most missed first")[0] == "a.png"
    assert names(THRESHOLD, None, GIVEN) == ["a.png", "b.png", "c.png"]
    assert names(1.0, "dog", WORST) == ["a.png"], "nothing is found, and a dog is missed in one"
    for label, name in enumerate(gallery.classes, start=1):
        for _, tally in gallery.tallies(THRESHOLD, name, GIVEN):
            labels = tally.photograph.found.labels
            assert set(labels[tally.found].tolist()) <= {label}
    every = sum(t.count("false") for _, t in gallery.tallies(THRESHOLD, None, GIVEN))
    each = [t.count("false") for n in gallery.classes for _, t in gallery.tallies(0.3, n, GIVEN)]
    assert sum(each) == every


def test_boxes_are_drawn_in_the_colour_of_what_became_of_them(gallery):
    def colours(place):
        (tally,) = [t for i, t in gallery.tallies(THRESHOLD, None, GIVEN) if i == place]
        pixels = {tuple(p) for p in np.asarray(gallery.drawn(tally)).reshape(-1, 3).tolist()}
        rgb = {k: tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for k, c in COLOURS.items()}
        return {kind for kind, colour in rgb.items() if colour in pixels}

    assert colours(0) == {"true", "missed"} and colours(1) == {"false"}


def test_a_gallery_is_said_to_grow_and_is_then_shown(listed):
    _, _, said = listed
    assert len(said) == 5 and "1 of 3 photographs are done" in str(said[0])
    page = said[-1]["gallery"]
    assert re.findall(r"<strong>(\w\.png)</strong>", page)[:2] == ["b.png", "a.png"]
    assert page.count("data:image/jpeg") == 3 and "in the 2 with an annotation" in page
    assert "no annotation" in page and said[-2]["gallery_status"] == ""


def test_a_place_that_is_emptied_takes_its_own_photographs_away_alone(listed, files):
    tab, request, _ = listed
    list(tab.load_gallery(request, files, place="folder"))
    told = list(tab.load_gallery(request, None, place="multiple"))
    assert told == [{"gallery_status": ""}] and tab.store.get("g").gallery is not None
    assert list(tab.load_gallery(request, None, place="folder"))[0]["gallery"] == NO_GALLERY
    assert tab.store.get("g").gallery is None


def test_another_threshold_class_or_order_needs_no_network(listed, monkeypatch):
    tab, request, said = listed
    runs = only_network(monkeypatch, tab.predictor)
    strict = tab.list_gallery(request, EVERY_CLASS, WORST, 1.0, *VALUES[1:])["gallery"]
    assert "0 detections" in strict and strict != said[-1]["gallery"] and runs == []
    with pytest.raises(InputError, match="load the page again"):
        tab.list_gallery(request, "unicorn", WORST, *VALUES)


def test_a_click_opens_the_photograph_and_tells_why_an_object_was_missed(listed, tmp_path):
    tab, request, _ = listed
    page = tab.open_listed(request, Click(row=0), *VALUES)
    assert page["tabs"]["selected"] == "Explain" and page["photo"].endswith("a.png")
    tab.open_photo(request, payload_of(page["photo"]), *VALUES)
    shown = tab.refresh(request, *VALUES)
    assert "a.png" in shown["sentence"]
    assert "Why 1 object was missed" in shown["missed"] and SAYS["RPN"] in shown["missed"]
    x1, y1, x2, y2 = TINY_OBJECT
    seen = tab.predictor.predict(page["photo"])
    for values in (seen.localization_map, seen.classification_map):
        there = f"{values[y1:y2, x1:x2].mean():.2f} ({values.mean():.2f})"
        assert f"<td>{there}</td>" in shown["missed"]
    chosen = tab.pick_missed(request, Click(row=0), *VALUES)
    assert "Explaining the box" in chosen["sentence"] and "dog" in chosen["sentence"]
    assert chosen["name"] == "dog" and chosen["views"].count("<img") == 5
    again = tab.open_listed(request, Click(row=0), *VALUES)
    assert "photo" not in again and "Explaining the box" in again["sentence"]
    # Another photo of the same name is not that of the gallery.
    other = shutil.copy(page["photo"], tmp_path)
    other = tab.open_photo(request, payload_of(other), *VALUES)
    assert other["missed"] == "" and tab.refresh(request, *VALUES)["missed"] == ""


def test_of_two_quick_choices_each_photograph_keeps_its_annotation(listed):
    tab, request, _ = listed
    pages = [tab.open_listed(request, Click(row=row), *VALUES) for row in (1, 0)]
    for page in pages:
        tab.open_photo(request, payload_of(page["photo"]), *VALUES)
    assert "Why 1 object was missed" in tab.refresh(request, *VALUES)["missed"]


def test_a_proposal_under_a_pixel_is_refused_and_the_choice_stays(listed):
    tab, request, _ = listed
    page = tab.open_listed(request, Click(row=0), *VALUES)
    tab.open_photo(request, payload_of(page["photo"]), *VALUES)
    study = tab.store.get("g").photo
    ((row, lost),), _ = study.losses(THRESHOLD)
    study.lost[row, THRESHOLD] = replace(lost, roi=np.array([1, 1, 1.5, 3], np.float32))
    page = tab.pick_missed(request, Click(row=0), *VALUES)
    assert "less than a pixel" in page["box_status"] and "name" not in page
    assert study.choice == study.best
    assert "Explaining detection 1" in tab.refresh(request, *VALUES)["sentence"]


def payload_of(path: str) -> dict:
    return {"path": path, "orig_name": path.rsplit("/", 1)[1]}


def test_every_missed_object_is_told_at_a_threshold_that_nothing_passes(listed):
    tab, request, _ = listed
    page = tab.open_listed(request, Click(row=0), *VALUES)
    tab.open_photo(request, payload_of(page["photo"]), *VALUES)
    missed = tab.refresh(request, 1.0, *VALUES[1:])["missed"]
    study = tab.store.get("g").photo
    told, count = study.losses(1.0)
    assert count == len(study.truth.boxes) and f"Why {count} objects" in missed
    assert {one.step for _, one in told} == {"RPN", "class"}
    for row, lost in told:
        if lost.step == "class":
            assert lost.scores[study.truth.labels[row]] < 1 and lost.iou >= 0.5


@pytest.mark.parametrize("row", [None, -1, 3, "0", 2.5])
def test_what_is_not_in_the_gallery_cannot_be_opened(listed, row):
    tab, request, _ = listed
    page = tab.open_listed(request, Click(row=row), *VALUES)
    assert "no longer kept" in page["gallery_status"] and "photo" not in page


def test_a_photograph_that_was_swept_is_said_to_be_gone(listed, tmp_path):
    tab, request, _ = listed
    photographs = tab.store.get("g").gallery.photographs
    photographs[0] = replace(photographs[0], path=tmp_path / "gone.png")
    page = tab.open_listed(request, Click(row=0), *VALUES)
    assert "upload it again" in page["gallery_status"]


def test_bad_uploads_get_a_sentence_and_no_network(tmp_path, files, monkeypatch):
    tab, request = Handlers(tiny_predictor(), None, SessionStore()), gr.Request(session_hash="b")
    runs = only_network(monkeypatch, tab.predictor)
    broken = tmp_path / "a.xml"
    broken.write_text("<annotation>")
    photo = files[0]
    many = [photo | {"orig_name": f"{i}.png"} for i in range(MAX_PHOTOGRAPHS + 1)]
    for given, says in (
        (many, "51 photographs and 0 annotation files: at most 50"),
        ([photo, payload(broken)], "a.xml: the XML cannot be read"),
        ([photo, photo], "a.png: two files have this name"),
        ([payload(broken)], "no photograph among these files"),
        ({"path": "a.png"}, "upload them again"),
        (["a.png"], "upload them again"),
    ):
        (page,) = tab.load_gallery(request, given)
        assert says in page["gallery_status"] and "No photographs yet" in page["gallery"]
    assert runs == []
    (page,) = tab.load_gallery(request, None)
    assert "No photographs yet" in page["gallery"]


def test_an_unreadable_photograph_is_left_out_and_said(tmp_path, files):
    (tmp_path / "no.jpg").write_text("no photo")
    *_, (gallery, _) = read_gallery(tiny_predictor(), [payload(tmp_path / "no.jpg"), files[0]])
    assert [p.name for p in gallery.photographs] == ["a.png"]
    assert len(gallery.notes) == 1 and gallery.notes[0].startswith("no.jpg: not an image")


def test_a_long_name_still_finds_its_annotation(tmp_path):
    """A name is cut to a line where it is shown, and nowhere else."""
    scene(5).save(tmp_path / "a.jpeg")
    (tmp_path / "a.xml").write_text(xml_of([("dog", *TINY_OBJECT)]))
    image = {"id": 1, "file_name": f"{'long' * 40}.jpeg", "width": 160, "height": 120}
    dog = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0}
    coco = {"images": [image], "annotations": [dog], "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "a.json").write_text(json.dumps(coco))
    photo = payload(tmp_path / "a.jpeg") | {"orig_name": f"{'long' * 40}.jpeg"}
    for suffix in ("xml", "json"):
        beside = payload(tmp_path / f"a.{suffix}") | {"orig_name": f"{'long' * 40}.{suffix}"}
        *_, (gallery, _) = read_gallery(tiny_predictor(), [photo, beside])
        (photograph,) = gallery.photographs
        assert len(photograph.truth.boxes) == 1 and gallery.notes == []
        assert len(photograph.name) == 80


def test_a_gallery_counts_in_the_memory_of_its_session(listed):
    tab, _, _ = listed
    session = tab.store.get("g")
    assert session.bytes() == session.gallery.bytes() == 3 * 4 * 160 * 120


def test_a_photograph_that_is_clicked_twice_keeps_its_annotation(listed):
    tab, request, _ = listed
    for page in [tab.open_listed(request, Click(row=0), *VALUES) for _ in range(2)]:
        tab.open_photo(request, payload_of(page["photo"]), *VALUES)
    assert "was missed" in tab.refresh(request, *VALUES)["missed"]
