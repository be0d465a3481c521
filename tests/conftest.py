"""Data that several tests share."""

import json
import warnings
from pathlib import Path

import pytest

from als.data.toy import write_toy

# Files whose tests train, export, serve, study, or detect many times: marked slow, and left out by
# `make quick`.
SLOW = """
    attack_page app_launch app_server app_tabs benchmarks benchmarks_training browser cli
    data_dataset evaluation_calibration evaluation_coco_split export gpu_check inference_objects
    model_backbone model_detector model_roi_heads model_stage2 notebooks package site study
    study_changes study_photos tables_choices tables_plan tables_render training training_broken
    training_ddp training_families training_maps training_reliability training_resume
    training_loggers training_tensorboard
""".split()
SHARED_VOC = Path(__file__).parents[2] / "shared" / "data" / "voc-animals"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data set (24 images), written once. Read only: copy it to change it."""
    root = tmp_path_factory.mktemp("data") / "toy"
    write_toy(root)
    return root


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 small toy images, 6 of them to train on in seconds. Read only."""
    root = tmp_path_factory.mktemp("data") / "small"
    write_toy(root, images=12, seed=3, size=(64, 80))
    return root


@pytest.fixture(scope="session")
def toy_coco(toy_root, tmp_path_factory) -> Path:
    """The toy data in COCO's layout; ids with gaps, so that a label is not a category id."""
    from als.data.convert import to_coco

    out = tmp_path_factory.mktemp("data") / "toy"
    to_coco(toy_root / "VOC2012", ["trainval"], out)
    path = out / "annotations" / "instances_trainval.json"
    content = json.loads(path.read_text())
    for part, key in (("categories", "id"), ("annotations", "category_id")):
        for entry in content[part]:
            entry[key] = entry[key] * 10 + 3
    path.write_text(json.dumps(content))
    return out


@pytest.fixture
def no_warnings():
    """Silence what lightning says of a training without progress bar, workers or GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def shared_voc() -> Path:
    """The root of the VOC animal photographs, which are not a part of the repository."""
    if not SHARED_VOC.is_dir():
        pytest.skip("needs the photographs in ../shared/data/voc-animals, which are not here")
    return SHARED_VOC


@pytest.fixture
def scene_file(tmp_path) -> str:
    """A photo of drawn objects as somebody uploads it."""
    from app_server import scene

    scene(5).save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


@pytest.fixture
def tab(scene_file):
    """The app's handlers with a photo on the page, and the requests of its session."""
    import gradio as gr
    from app_server import VALUES, tiny_predictor

    from als.ui.handlers import Handlers
    from als.ui.session import SessionStore

    handlers = Handlers(tiny_predictor(), tiny_predictor(attention=False), SessionStore())
    request = gr.Request(session_hash="a")
    handlers.open_photo(request, {"path": scene_file, "orig_name": "scene.png"}, *VALUES)
    return handlers, request
