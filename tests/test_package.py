"""What users install: sdist and wheel, put into an environment of their own, and tried there."""

import ast
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_app_launch import PATIENCE, answer_of

import als
from als.checkpoint import SHIPPED
from als.photographs import NAMES

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PACKAGES = sysconfig.get_paths()["purelib"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """As `python -m build` does: the wheel is built from what the sdist has.

    The sdist is built from a copy without what runs and tests left in the checkout.
    """
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

    def build(kind: str, cwd: Path) -> None:  # as pip calls it, without pip
        call = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
        command = [sys.executable, "-c", call]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    build("sdist", source)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    build("wheel", unpacked)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Variables under which the checkout is not found."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def installed(wheel, environment, tmp_path_factory) -> Path:
    """An environment with the wheel, which sees this one's packages, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    pip += ["--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, env=environment)
    # A line of a .pth file is a path; the packages of this environment come after the own ones.
    (site_of(folder) / "below.pth").write_text(PACKAGES + "\n")
    return folder


def site_of(env: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return env / "lib" / version / "site-packages"


def needs(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (one for one in file.namelist() if one.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(file.read(name).decode()).get_all("Requires-Dist")
    return [Requirement(one) for one in told]


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of an app that a command starts in a folder, when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = subprocess.Popen([*command, "--port", port], cwd=folder, env=environment)
    try:
        answer_of(f"http://127.0.0.1:{port}/", server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_the_wheel_has_all_that_is_needed_and_nothing_else(wheel):
    assert wheel.name.startswith(f"attentive_layer_separation-{als.__version__}-py3")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    source = wheel.parent / "source"
    package = {path.relative_to(source) for path in (source / "als").rglob("*") if path.is_file()}
    runs = {path.relative_to(source) for path in (source / "configs").rglob("*") if path.is_file()}
    assert {Path("als/weights/README.md"), Path("als/ui/space/requirements.txt")} < package
    assert ours == {path.as_posix() for path in package} | {f"als/{path}" for path in runs}


def test_what_is_imported_is_required(wheel, installed):
    """The environments of these tests have every package, so that a forgotten one goes unseen."""
    modules = set()
    for path in (site_of(installed) / "als").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    packages = packages_distributions()
    imported = {
        canonicalize_name(packages[module][0])
        for module in modules - sys.stdlib_module_names - {"als"}
    }
    required = {canonicalize_name(one.name) for one in needs(wheel) if one.marker is None}
    assert {"torch", "pyyaml", "pillow"} < imported
    assert imported <= required


def test_its_configs_are_listed_and_copied(installed, environment, tmp_path):
    def configs(*options: str) -> subprocess.CompletedProcess:
        command = [str(installed / "bin" / "als"), "configs", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )

    files = {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*") if path.is_file()}
    listed = {Path(line) for line in configs().stdout.splitlines()}
    assert listed == {file for file in files if file.suffix == ".yaml"}
    assert configs("--copy", "mine").returncode == 0
    copied = tmp_path / "mine"
    assert {path.relative_to(copied) for path in copied.rglob("*") if path.is_file()} == files
    changed = copied / "twenty.yaml"
    changed.write_text("mine")
    again = configs("--copy", "mine")
    assert again.returncode == 2 and "mine: is there already" in again.stderr
    assert changed.read_text() == "mine"


def test_its_app_starts_in_an_empty_folder_and_detects(installed, environment, tmp_path):
    python = str(installed / "bin" / "python")
    folder, temporary = tmp_path / "empty", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    environment = environment | {"TMPDIR": str(temporary)}
    where = [python, "-c", "import als; print(als.__file__)"]
    done = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True)
    assert str(site_of(installed)) in done.stdout
    with started([str(installed / "bin" / "als"), "app"], folder, environment) as url:
        page = httpx.get(url)
        assert page.status_code == 200 and SHIPPED.name in page.text
        blocks = httpx.get(f"{url}config").json()["components"]
        (samples,) = (one["props"]["samples"] for one in blocks if one["type"] == "dataset")
        assert tuple(sample["orig_name"] for (sample,) in samples) == NAMES
        cat = handle_file(samples[0][0]["path"])
        client = Client(url, verbose=False, download_files=tmp_path / "downloaded")
        record, _, _ = client.predict(cat, api_name="/analyse")
    assert record["detections"][0]["class"] == "cat"
    assert not list(folder.iterdir())


def test_uv_runs_its_app_without_an_installation(wheel, environment, tmp_path):
    """As `uvx --from attentive-layer-separation als app` will, but for the packages that are
    required: they are this environment's, for they are gigabytes."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv: pip install uv")
    left_out = sorted({one.name for one in needs(wheel)})
    never = [f'{name}; sys_platform == "none"\n' for name in left_out]
    (tmp_path / "left-out.txt").write_text("".join(never))
    command = [uv, "tool", "run", "--isolated", "--offline", "--no-cache"]
    command += ["--python", sys.executable, "--overrides", str(tmp_path / "left-out.txt")]
    environment = environment | {"PYTHONPATH": PACKAGES}
    with started([*command, "--from", str(wheel), "als", "app"], tmp_path, environment) as url:
        page = httpx.get(url)
        assert page.status_code == 200 and SHIPPED.name in page.text
