"""What the files around the code promise: set-up, README, configs, public names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentError, ArgumentParser

import als
from als.checkpoint import BY_NAME
from als.cli import COMMANDS
from als.config import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def _read_config(text: str) -> TrainConfig:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    return TrainConfig(**parser.instantiate(parser.parse_string(text)).as_dict())


def test_conda_installs_what_pip_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == [f"python{project['requires-python']}", "pip"]
    assert pip["pip"] == [*project["dependencies"], "--editable ."]
    extras = project["optional-dependencies"]
    assert set(extras["export"]) < set(extras["test"]), "the tests of ONNX would skip"


def test_no_record_names_a_folder_of_the_machine_that_made_it():
    records = sorted((ROOT / "results").rglob("*.json"))
    assert records and [r for r in records if re.search(r'"(/|[A-Z]:\\)', r.read_text())] == []


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"app", "test"} <= shown <= targets
    commands = set(re.findall(r"(?:^|`)als ([a-z]+)", README, re.MULTILINE))
    assert {"train", "evaluate", "predict"} <= commands <= set(COMMANDS)


def test_a_commit_is_linted_by_what_make_lint_runs():
    """A version of its own would judge, and format, by other rules."""
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for repo in repos for hook in repo["hooks"]] == ["make lint"]
    assert [repo["repo"] for repo in repos] == ["local"], "it would bring a ruff of its own"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_whole(path):
    config = _read_config(path.read_text())
    assert config.model.classes, "the classes to detect are not named"


def test_a_config_takes_no_misspelt_key():
    text = CONFIGS[0].read_text()
    for section in (None, "model", "data", "optimizer"):
        values = yaml.safe_load(text)
        part = values if section is None else values.setdefault(section, {})
        part["epohcs"] = 1
        with pytest.raises(ArgumentError, match="epohcs"):
            _read_config(yaml.safe_dump(values))


def test_second_stages_start_from_a_first_stage():
    configs = [_read_config(path.read_text()) for path in CONFIGS]
    written = {f"{config.out}/model.safetensors" for config in configs}
    assert len(written) == len(configs), "two configs write to one folder"
    for config in configs:
        start = config.start_from
        assert start is None or start in written or start in BY_NAME


def test_second_stages_keep_the_network_of_their_first():
    configs = [_read_config(path.read_text()) for path in CONFIGS]
    by_file = {f"{config.out}/model.safetensors": config.model.to_dict() for config in configs}
    for config in configs:
        if config.start_from in by_file:
            first, second = by_file[config.start_from], config.model.to_dict()
            changed = {name for name in first if first[name] != second[name]}
            assert second["attention"]  # turned on here, or before: stage 2 may end with another
            # What a later stage may change: its start, its second look, pixels and anchors.
            free = ("weights", "attention", "lambda_part", "min_size", "max_size", "rpn_pre_nms")
            assert all(name.startswith(free) or name == "separation" for name in changed)
            assert second["separation"] or not first["separation"]


# Those beside them are the compact model's own two stages.
OF_ROWS = [path for path in CONFIGS if path.parent.name != "configs"]


@pytest.mark.parametrize("path", OF_ROWS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_config_of_a_row_says_how_and_what_to_expect(path):
    head = " ".join(re.findall(r"^# ?(.*)", path.read_text(), re.MULTILINE))
    assert f"als train {path.relative_to(ROOT)} " in head
    assert re.search(r"[Aa]t least [\d.]+ GiB.* h of a V100", head)
    assert re.search(r"Expected AP.*: .*\d.*(paper|model zoo|README)|No figure is published", head)


def test_import_als_is_light_and_its_names_resolve():
    heavy = "{'torch', 'lightning', 'gradio', 'matplotlib'}"
    script = f"import als, sys; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
    for name in als.__all__:
        assert getattr(als, name).__name__ in (name, f"als.{name}")  # a subpackage has its own
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        als.laod  # noqa: B018
