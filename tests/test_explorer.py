"""The widget of a notebook without its browser: what it gives, and what it need not compute."""

import sys
import types

import numpy as np
import pytest
import torch
from app_server import only_network, scene, tiny_predictor
from PIL import Image

import als
from als.drawing import RULES
from als.errors import InputError
from als.model.grid import map_to_image
from als.views import explorer
from als.views.explorer import explore


@pytest.fixture
def folder(tmp_path):
    scene(5).save(tmp_path / "b.png")
    scene(6).save(tmp_path / "c.png")
    (tmp_path / "a.jpg").write_text("no photo\n")
    return tmp_path


@pytest.fixture
def widget(folder):
    made = explore(folder, tiny_predictor())
    made.photo = 1
    made.threshold = 0.3
    return made


def test_prediction_is_what_the_predictor_gives(widget, folder):
    expected = tiny_predictor().predict(folder / "b.png", score_threshold=0.3)
    seen = widget.prediction
    assert seen.names == expected.names and len(seen.names) > 1
    assert np.allclose(seen.boxes, expected.boxes, atol=1e-3)
    assert np.allclose(seen.localization_map, expected.localization_map, atol=1e-6)
    assert np.allclose(seen.classification_map, expected.classification_map, atol=1e-6)


@pytest.mark.parametrize("explainer", ["gradcam", "gradcam_box", "gradact", "objectness"])
@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ({"detection": 1}, {"detection": 1}),
        ({"explain_class": "person"}, {"label": 3}),
        ({"box": [20.0, 30.0, 90.0, 100.0]}, {"box": (20, 30, 90, 100)}),
    ],
)
def test_explanation_is_what_the_predictor_gives(widget, folder, explainer, choice, asked):
    predictor = tiny_predictor()
    expected = predictor.explain(predictor.analyse(folder / "b.png"), explainer=explainer, **asked)
    widget.explainer = explainer
    widget.set_trait(*next(iter(choice.items())))
    told = widget.explanation
    assert np.allclose(told.map, expected.map, atol=1e-5) and told.name == expected.name
    assert told.box.tolist() == pytest.approx(expected.box.tolist(), abs=1e-3)
    assert told.score == pytest.approx(expected.score, abs=1e-4)


def test_only_a_photo_runs_the_network_and_only_a_choice_explains(widget, monkeypatch):
    runs = only_network(monkeypatch, widget._predictor)
    read = []
    original = explorer.cell_shares
    monkeypatch.setattr(explorer, "cell_shares", lambda *args: read.append(1) or original(*args))
    before = [panel["picture"] for panel in widget.panels]
    widget.opacity, widget.rule, widget.colour_map = 0.2, RULES[0], "magma"
    after = [panel["picture"] for panel in widget.panels]
    assert after[0] == before[0] and all(a != b for a, b in zip(after[1:], before[1:], strict=True))
    assert runs == [] == read
    widget.threshold = float(widget.prediction.scores[0])  # fewer RoIs are shown
    assert runs == [] and read == [1]
    widget.detection = 1
    assert runs == ["explain"] * 2
    widget.photo = 2
    assert runs.count("analyse") == 1


def test_one_choice_takes_the_place_of_another(widget):
    widget.explain_class = "dog"
    assert widget.detection is None and "best-scoring proposal" in widget.said["sentence"]
    widget.box = [20.0, 30.0, 90.0, 100.0]
    assert widget.explain_class == "dog" and widget.explanation.name == "dog"
    assert "Explaining the box" in widget.said["sentence"]
    widget.detection = 1
    assert widget.box is None and widget.explain_class == ""
    assert "detection 2" in widget.said["sentence"]
    widget.explain_class = "dog"
    widget.explain_class = ""
    assert widget.detection == 0
    widget.detection = None
    assert widget.detection == 0 and "detection 1" in widget.said["sentence"]


def test_a_click_explains_the_smallest_box_there_and_a_drag_its_own(widget):
    boxes, (height, width) = widget.prediction.boxes, widget.prediction.size
    x, y = (boxes[1, 0] + boxes[1, 2]) / 2, (boxes[1, 1] + boxes[1, 3]) / 2
    holds = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    smallest = int(np.where(holds, areas, np.inf).argmin())
    widget.box = [20.0, 30.0, 90.0, 100.0]
    for _ in range(2):  # the second click finds it chosen
        widget._gestured(widget, {"x": x / width, "y": y / height}, [])
        assert widget.detection == smallest and widget.box is None
    widget._gestured(widget, {"box": [5, 5, 90, 100]}, [])
    assert widget.explanation.box.tolist() == [5, 5, 90, 100]
    widget._gestured(widget, {"box": [5, 5, 5.2, 100]}, [])  # dragged, but too thin
    assert "less than a pixel" in widget.said["sentence"] and widget.box == [5, 5, 90, 100]


def test_cells_hold_the_values_of_the_maps(widget):
    """Against the grids of the network itself, away from the padding."""
    encoding, cells = widget._seen.analysis.encoding, widget.cells
    values = np.frombuffer(cells["values"], np.float32).reshape(-1, *cells["shape"])
    assert cells["titles"][:2] == ["Localization map", "Classification map"] and len(values) == 4
    height, width = encoding.images.image_sizes[0]
    rows, columns = height // 16 - 1, width // 16 - 1
    for shown, grid in zip(values, (encoding.a_loc, encoding.a_cls), strict=False):
        expected = grid[0, 0].numpy()
        inside = np.s_[1:rows, 1:columns]
        assert np.abs(shown[inside] - expected[inside]).max() < 0.05 * np.ptp(expected)


def test_every_roi_that_is_shown_says_what_it_reads(widget):
    def shares():
        given, shape = widget.reading, widget.cells["shape"]
        return np.frombuffer(given["shares"], np.float32).reshape(-1, *shape), given

    read, given = shares()
    assert len(read) == len(given["names"]) == len(widget.prediction.names)
    assert given["chosen"] == 0 and np.allclose(read.sum((1, 2)), 1, atol=1e-3)
    widget.box = [0.0, 0.0, 40.0, 30.0]
    more, given = shares()
    assert np.array_equal(more[:-1], read) and given["chosen"] == len(read)
    assert given["boxes"][-1] == pytest.approx([0, 0, 40 / 160, 30 / 120], abs=0.01)
    middle_of_mass = (more[-1].sum(0) * np.arange(more.shape[2])).sum()
    assert middle_of_mass < 2


def test_a_photo_that_cannot_be_read_is_said_and_another_can_be_chosen(folder):
    widget = explore(folder, tiny_predictor())  # a.jpg comes first
    assert widget.said["refused"] and "a.jpg: not an image" in widget.said["sentence"]
    assert widget.panels == [] and "image/jpeg" not in widget._repr_mimebundle_()[0]
    for ask in (lambda: widget.prediction, lambda: widget.explanation, lambda: widget.save(folder)):
        with pytest.raises(InputError, match="a.jpg: not an image"):
            ask()
    widget.explain_class = "dog"
    widget.explain_class = ""
    assert widget.detection is None and widget.said["refused"]
    widget.photo = 1
    assert "refused" not in widget.said and len(widget.panels) == 5
    with pytest.raises(InputError, match="a.jpg: not an image"):
        explore(folder / "a.jpg", tiny_predictor())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("photo", 3, "photo 3 is unknown"),
        ("explain_class", "horse", "explain_class 'horse' is unknown"),
        ("explainer", "drise", "explainer 'drise' is unknown"),
        ("rule", "", "rule '' is unknown"),
        ("opacity", 1.5, "opacity 1.5: give a number from 0 to 1"),
        ("threshold", float("nan"), "threshold nan"),
        ("detection", 99, "detection 99: this image has"),
        ("box", [5.0, 5.0, 5.5, 90.0], "less than a pixel"),
    ],
)
def test_what_does_not_exist_is_refused_and_all_stays(widget, name, value, says):
    before = widget.said, widget.panels, getattr(widget, name)
    with pytest.raises(InputError, match=says):
        setattr(widget, name, value)
    assert (widget.said, widget.panels, getattr(widget, name)) == before


def test_a_saved_notebook_keeps_a_picture(widget):
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["image/jpeg"].startswith(b"\xff\xd8")


def test_save_writes_what_is_seen(widget, tmp_path):
    widget.box = [20.0, 30.0, 90.0, 100.0]
    picture, record, maps = widget.save(tmp_path / "kept" / "here")
    assert Image.open(picture).width > 1000
    assert als.files.read_json(record)["explained"]["box"] == [20, 30, 90, 100]
    with np.load(maps) as kept:
        assert np.allclose(kept["gradient_x_activation"], widget.explanation.map, atol=1e-5)
        encoding = widget._seen.analysis.encoding
        assert np.array_equal(kept["localization_map"], map_to_image(encoding.a_loc, encoding))


def test_save_without_a_folder_makes_one_of_the_photos_name(widget, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {path.parent.name for path in widget.save()} == {"b-als"}


def test_colab_is_asked_for_its_manager_of_others_widgets(folder, monkeypatch):
    """As anywidget asks: when it is made, and beside the view. Without that Colab shows nothing."""
    asked, output = [], types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: asked.append(True)
    output._widgets = types.SimpleNamespace(_installed_url="https://colab/manager.js")
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    data, beside = explore(folder, tiny_predictor())._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert asked and view in data
    assert beside[view]["colab"]["custom_widget_manager"] == {"url": "https://colab/manager.js"}


def test_an_image_in_memory_and_a_model_without_attention(folder):
    widget = explore(scene(5), tiny_predictor(attention=False))
    assert "photo, 160 × 120" in widget.said["sentence"]
    assert widget.prediction.localization_map is None
    assert [panel["picture"] is None for panel in widget.panels] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert widget.cells["titles"] == ["Grad-CAM", "Gradient × activation"]
    with pytest.raises(InputError, match="no photo to explore"):
        explore([], tiny_predictor())
    with torch.inference_mode():
        assert explore(np.asarray(scene(5)), tiny_predictor()).explanation.map.max() > 0
