"""The app in a process of its own and a browser on it: what latency and screenshots share."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from als.errors import InputError

START = (
    "import sys; from als.ui import launch;"
    "launch(sys.argv[1] or None, port=int(sys.argv[2]), other=sys.argv[3] or None)"
)
PATIENCE = 300  # seconds to import everything on a slow machine
BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class App:
    """A served app: its address and the process that serves it."""

    url: str
    process: int

    def memory(self) -> float:
        """Resident memory of the process, megabytes (Linux)."""
        status = Path(f"/proc/{self.process}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


@contextmanager
def app(checkpoint: Path | None, other: Path | None = None) -> Iterator[App]:
    """Serve the app on a free port until the block ends; no checkpoint is the one that ships."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(checkpoint or ""), str(port), str(other or "")]
    server = subprocess.Popen([sys.executable, "-c", START, *arguments])
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(url, server)
        yield App(url, server.pid)
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise InputError("The app ended before it answered; its own message stands above.")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise InputError(f"The app did not answer within {PATIENCE} seconds.")


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise InputError("There is no chromium; install it with apt-get install chromium.")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=BROWSER_OPTIONS)
        yield browser
        browser.close()


def open_page(browser: Browser, url: str, **options) -> Page:
    """A fresh page of the app, ready for a photo."""
    page = browser.new_page(**({"viewport": {"width": 1440, "height": 900}} | options))
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(url)
    page.locator("#photo input[type=file]").wait_for(state="attached")
    page.wait_for_timeout(500)
    return page


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#photo input[type=file]", photo)
