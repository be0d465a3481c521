"""`als app` as a process of its own: what it serves, and what it leaves behind when it ends."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from tiny import lively_detector

from als.checkpoint import save_checkpoint
from als.errors import InputError
from als.ui import launch

PATIENCE = 120  # seconds; the machine may be busy


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
    start = "import sys; from als.cli import main; sys.exit(main())"
    arguments = ["app", "--checkpoint", str(checkpoint), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", start, *arguments], env=os.environ | {"TMPDIR": str(folder)}
    )
    try:
        page = answer_of(f"http://127.0.0.1:{port}/", server)
        assert "tiny.safetensors" in page and "Trained on blocks" in page
        assert list(folder.glob("als-app-*")), "the cache is elsewhere"
    finally:
        server.terminate()
        server.wait(PATIENCE)
    assert not list(folder.glob("als-app-*"))


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
