"""The wheel as a user installs it: built, put into an environment of its own, and tried there."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import als

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy without what runs and tests left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_all_that_is_needed_and_nothing_else(wheel):
    assert wheel.name.startswith(f"attentive_layer_separation-{als.__version__}-py3")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert all(name.startswith("als/") for name in ours)
    data = (*(ROOT / "als/weights").glob("*.safetensors"), *(ROOT / "als/views").glob("explorer.*"))
    for path in (*(ROOT / "als").rglob("*.py"), *data):
        assert path.relative_to(ROOT).as_posix() in ours
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"als/{path.relative_to(ROOT).as_posix()}" in ours


def test_it_works_installed_elsewhere(wheel, tmp_path):
    """In an environment that sees this one's packages, but not the checkout."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "env" / "lib" / version / "site-packages"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, env=environment)
    # A line of a .pth file is a path; the packages of this environment come after the own ones.
    (site / "below.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-c", "import als; print(als.__file__)")
    assert str(site) in where
    command = str(python.parent / "als")
    assert "compact-stage1.yaml" in run(command, "configs")
    run(command, "configs", "--copy", "mine")
    assert (tmp_path / "mine" / "paper").is_dir()
    page = "from als.inference import load; from als.ui import build_app; build_app(load())"
    run(str(python), "-c", page)
