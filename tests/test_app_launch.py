"""`als app` as a process of its own: what it serves, and what it leaves behind when it ends."""

import asyncio
import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from app_server import scene
from packaging.requirements import Requirement
from tiny import lively_detector

from als.checkpoint import SHIPPED, save_checkpoint
from als.errors import InputError
from als.ui import launch

ROOT = Path(__file__).parents[1]
START = "import sys; from als.cli import main; sys.exit(main())"
PATIENCE = 300  # seconds; the machine may be busy


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(lively_detector(0).float(), path, {"data": {"train": "blocks"}})
    return path


@pytest.fixture
def taken():
    """A socket that listens on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def answer_of(url: str, server: subprocess.Popen) -> str:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            return httpx.get(url).text
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError("the app does not answer")


def test_the_command_serves_a_checkpoint_and_deletes_its_cache(checkpoint, taken, tmp_path):
    port = taken.getsockname()[1]
    taken.close()
    folder = tmp_path / "temporary"
    folder.mkdir()
    arguments = ["app", "--checkpoint", str(checkpoint), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], env=os.environ | {"TMPDIR": str(folder)}
    )
    try:
        page = answer_of(f"http://127.0.0.1:{port}/", server)
        assert "tiny.safetensors" in page and "Trained on blocks" in page
        assert list(folder.glob("als-app-*")), "the cache is elsewhere"
    finally:
        server.terminate()
        server.wait(PATIENCE)
    assert not list(folder.glob("als-app-*"))


def test_without_the_package_mcp_is_refused_in_one_sentence(checkpoint, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mcp is not installed.*\[mcp\]"):
        launch(checkpoint, mcp=True)


@contextmanager
def started(command: list[str], port: int, **environment) -> Iterator[str]:
    """The address of an app in a process of its own, and what its page answers first."""
    server = subprocess.Popen([sys.executable, *command], **environment)
    url = f"http://127.0.0.1:{port}"
    try:
        answer_of(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_the_endpoint_is_a_tool_of_the_model_context_protocol(checkpoint, taken, tmp_path):
    mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")
    from mcp.client.streamable_http import streamablehttp_client

    port = taken.getsockname()[1]
    taken.close()
    buffer = io.BytesIO()
    scene(5).save(buffer, "PNG")
    photo = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    async def talk(url: str) -> tuple:
        async with (
            streamablehttp_client(f"{url}/gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            given = {"image": photo, "score_threshold": 0.3}
            own = {"image": "http://example.org/cat.png"}
            tools = (await session.list_tools()).tools
            return tools, *[await session.call_tool("analyse", one) for one in (given, own)]

    arguments = ["app", "--checkpoint", str(checkpoint), "--port", str(port), "--mcp"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with started(["-c", START, *arguments], port, env=environment) as url:
        (listed,) = httpx.get(f"{url}/gradio_api/mcp/schema").json()
        assert listed["name"] == "analyse" and "score_threshold" in str(listed["inputSchema"])
        (tool,), answer, refused = asyncio.run(talk(url))
    assert tool.name == "analyse" and tool.description.startswith("Detect the objects")
    assert "0 to 1" in tool.inputSchema["properties"]["score_threshold"]["description"]
    assert not answer.isError and "rank_correlation" in str(answer.content)
    assert refused.isError and "not uploaded to this page" in str(refused.content)
    left = [path for path in tmp_path.rglob("gradio/**/*") if path.is_file()]
    assert not left, "a photo lies outside the cache"


def test_the_space_starts_in_its_own_folder_and_answers_to_its_name(taken, tmp_path):
    folder = ROOT / "als" / "ui" / "space"
    port = taken.getsockname()[1]
    taken.close()
    own = {"SPACE_HOST": "user-als.hf.space", "GRADIO_SERVER_PORT": str(port)}
    own |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with started(["app.py"], port, cwd=folder, env=os.environ | own) as url:
        page = httpx.get(url, headers={"Host": "user-als.hf.space"})
        assert page.status_code == 200 and SHIPPED.name in page.text
        assert httpx.get(url, headers={"Host": "other.hf.space"}).status_code == 400


def test_the_space_says_what_the_hub_asks_for():
    folder = ROOT / "als" / "ui" / "space"
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["sdk"] == "gradio" and (folder / told["app_file"]).is_file()
    assert len(told["short_description"]) <= 60
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (folder / "requirements.txt").read_text().splitlines()
    needed = [Requirement(line) for line in lines if not line.startswith("--")]
    extras = project["optional-dependencies"]
    declared = {Requirement(one).name for extra in extras.values() for one in extra}
    names = {one.name for one in needed}
    assert project["name"] in names and names <= declared | {project["name"]}
    assert {extra for one in needed for extra in one.extras} <= set(extras)
    (gradio,) = [one for one in project["dependencies"] if one.startswith("gradio")]
    lowest = gradio.removeprefix("gradio>=").split(".")
    assert [*map(int, told["sdk_version"].split("."))] >= [*map(int, lowest)]


def test_a_port_that_is_taken_is_said_in_one_sentence(checkpoint, taken, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that it is put back
    before = signal.getsignal(signal.SIGTERM)
    port = taken.getsockname()[1]
    try:
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: .*--port"):
            launch(checkpoint, port=port)
        with pytest.raises(InputError, match="127.0.0.1:99999: .*--port"):
            launch(checkpoint, port=99999)
    finally:
        signal.signal(signal.SIGTERM, before)
