"""A model in a folder and on a hub (which is stubbed), and predictions for other libraries."""

import shutil

import numpy as np
import pytest
import yaml
from app_server import scene, tiny_predictor

import als
from als import hub
from als.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_predictor().save_pretrained(tmp_path_factory.mktemp("hub") / "model")


def test_a_saved_model_finds_the_same(folder):
    before, after = (p.predict(scene(3)) for p in (tiny_predictor(), load(folder)))
    assert before.names == after.names and len(before.names) > 3
    assert np.array_equal(before.boxes, after.boxes)


def load(folder):
    return als.Predictor.from_pretrained(folder)


def test_the_card_is_what_the_hub_reads(folder):
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "apache-2.0" and told["pipeline_tag"] == "object-detection"
    result = told["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "lines"
    assert [(m["name"], m["value"]) for m in result["metrics"]] == [("AP", 0.125)]
    assert "cat, dog, person" in text and "trained" in text
    assert f'from_pretrained("{folder.name}")' in text


@pytest.mark.parametrize("data", [None, "voc", {}])
@pytest.mark.parametrize("figures", [None, {"AP": 0.5}])
def test_a_checkpoint_that_says_little_has_a_card(data, figures, tmp_path):
    detector = tiny_predictor().detector
    hub.save_pretrained(detector, {"data": data, "figures": figures}, tmp_path / "model")
    _, head, text = (tmp_path / "model/README.md").read_text().split("---\n", 2)
    assert "data that it does not name" in text and "metrics" not in head


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(InputError, match="model.safetensors"):
        load(tmp_path)


def test_what_is_pushed_can_be_loaded_from_there(folder, tmp_path, monkeypatch):
    class Hub:
        def create_repo(self, repository, private, exist_ok):
            assert repository == "me/cats" and private and exist_ok
            return "https://hub/me/cats"

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo, name: str(tmp_path / repo / name))
    assert load(folder).push_to_hub("me/cats", private=True) == "https://hub/me/cats"
    assert load("me/cats").classes == load(folder).classes
    assert 'from_pretrained("me/cats")' in (tmp_path / "me" / "cats" / "README.md").read_text()


def test_a_hub_that_refuses_is_one_sentence(monkeypatch):
    class Hub:
        def create_repo(self, *_, **options):
            raise ConnectionError("[Errno 111] Connection refused\nmore")

    monkeypatch.setattr(hub, "HfApi", Hub)
    with pytest.raises(InputError, match="me/cats.*Connection refused;") as caught:
        tiny_predictor().push_to_hub("me/cats")
    assert "\n" not in str(caught.value)


def test_a_name_without_its_owner_makes_no_repository(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match="cats: cannot be pushed; give a name as USER/MODEL"):
        tiny_predictor().push_to_hub("cats")


def test_the_card_of_this_very_folder_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_predictor().save_pretrained(".")
    assert f'from_pretrained("{tmp_path.name}")' in (tmp_path / "README.md").read_text()


def test_no_such_repository_is_one_sentence():
    with pytest.raises(InputError, match="hub says") as caught:
        load("no/such/repository/name")
    assert "\n" not in str(caught.value)


def test_a_table_and_supervision_hold_what_was_found():
    supervision = pytest.importorskip("supervision")
    found = tiny_predictor().predict(scene(3))
    table = found.to_pandas()
    assert table["name"].tolist() == found.names
    assert np.array_equal(table[["x1", "y1", "x2", "y2"]], found.boxes)
    given = found.to_supervision()
    assert isinstance(given, supervision.Detections) and len(given) == len(found.names)
    assert given["class_name"].tolist() == found.names
    assert (given.class_id == found.labels - 1).all()
    best = given[given.confidence > found.scores[2]]
    assert np.array_equal(best.xyxy, found.boxes[:2])
