"""README's walk-through and the tutorial run as they are written, on toy data."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from als.cli import main
from als.data.toy import TOY_CLASSES, next_commands
from als.training.options import read_options

ROOT = Path(__file__).parents[1]
# Of a training: so short that it is quick, and without a download.
SHORT = ["--model.weights=null", "--epochs=1", "--data.batch_size=4", "--data.workers=0"]
SHORT += ["--model.min_size=96", "--model.max_size=128", "--data.min_sizes=[96]"]
SHORT += ["--data.max_size=128", "--trainer.enable_progress_bar=false"]


def commands_of(page: str, first: str) -> list[str]:
    """The commands in the blocks of a page that begin with `first`."""
    block = "".join(re.findall(rf"```sh\n({first}.*?)```", (ROOT / page).read_text(), re.S))
    lines = re.sub(r"\\\n\s*|#.*", " ", block)
    lines = re.sub(r" {2,}", " ", lines)
    return [line for line in lines.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_walk_through_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    commands = commands_of("README.md", "als data toy ")
    assert [line.split()[1] for line in commands] == (
        ["data", "data", "train", "train", "evaluate", "predict"]
    )
    for line in commands:
        _, *arguments = shlex.split(line)
        main([*arguments, *(SHORT if arguments[0] == "train" else [])])
    assert (tmp_path / "record.json").exists()
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 24


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs(toy_root, tmp_path, monkeypatch):
    """From VOC files without splits, as an export has them, to a study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(toy_root / "VOC2012", "export", ignore=shutil.ignore_patterns("ImageSets"))
    commands = commands_of("docs/tutorial.md", "als ")
    assert [line.split()[1] for line in commands] == (
        ["data", "data", "train", "evaluate", "predict", "study"]
    )
    shorter = {"train": SHORT, "study": ["--limit=1"]}
    for line in commands:
        _, *arguments = shlex.split(line)
        main([*arguments, *shorter.get(arguments[0], [])])
    assert json.loads(Path("record.json").read_text())["data"]["split"] == "mine:test"
    assert list(Path("predictions").glob("*.png")) and Path("study/summary.json").exists()


def test_what_toy_tells_to_do_next_fits_the_toy_set(toy, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    check, train, evaluate, predict = (shlex.split(x)[1:] for x in next_commands(toy))
    main(check)
    config, _, _ = read_options(train[1:])
    assert config.model.classes == TOY_CLASSES
    assert config.data.root == str(toy)
    assert evaluate[1] == predict[1] == f"{config.out}/model.safetensors"
    assert evaluate[evaluate.index("--root") + 1] == str(toy)
    assert Path(predict[2]).is_dir()
