"""The wheel as a user installs it: built, put into an environment of its own, and tried there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    command = [sys.executable, "-c", build]  # as pip calls it, without pip
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
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
    pip += ["--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, env=environment)
    # A line of a .pth file is a path; the packages of this environment come after the own ones.
    (site / "below.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(str(python.parent / "als"), "configs", "--copy", "mine")
    assert (tmp_path / "mine" / "paper").is_dir()
    assert (tmp_path / "mine" / "compact-stage1.yaml").is_file()
    page = "import als; from als.ui import build_app; build_app(als.load()); print(als.__file__)"
    assert str(site) in run(str(python), "-c", page)


def test_uv_runs_its_command_without_an_installation(wheel, tmp_path):
    """As `uvx --from attentive-layer-separation als` will, but for what `--help` does not import:
    gigabytes of it."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv: pip install uv")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (one for one in file.namelist() if one.endswith(".dist-info/METADATA"))
        needs = Parser().parsestr(file.read(name).decode()).get_all("Requires-Dist")
    left_out = {Requirement(one).name for one in needs} - {"jsonargparse"}
    never = [f'{name}; sys_platform == "none"\n' for name in sorted(left_out)]
    (tmp_path / "left-out.txt").write_text("".join(never))
    command = [uv, "tool", "run", "--isolated", "--python", sys.executable]
    command += ["--overrides", str(tmp_path / "left-out.txt"), "--from", str(wheel)]
    done = subprocess.run(
        [*command, "als", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("als COMMAND") and "  evaluate  " in done.stdout
