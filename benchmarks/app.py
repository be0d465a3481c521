"""The app in a process of its own and a browser on it: its latency, and its screenshots."""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from als.errors import InputError
from als.photographs import package_photographs
from benchmarks.recording import options, save
from benchmarks.timing import resident_megabytes

START = "import sys; from als.ui import launch;launch(sys.argv[1] or None, port=int(sys.argv[2]))"
PATIENCE = 300  # seconds to import everything on a slow machine
BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP = {"width": 1440, "height": 900}
REPEATS, REQUESTS, REQUESTS_BEFORE = 7, 200, 50
LARGE = (4000, 3000)  # pixels: what a phone takes


@contextmanager
def served(checkpoint: Path | None = None, log: IO | None = None) -> Iterator[tuple[str, int]]:
    """(address, process) of the app on a free port; no checkpoint is the one that ships."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START, str(checkpoint or ""), str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    url, end = f"http://127.0.0.1:{port}/", time.monotonic() + PATIENCE
    try:
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > end:
                raise InputError("The app did not start; its own message stands above.")
            time.sleep(0.5)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise InputError("There is no chromium; install it with apt-get install chromium.")
    with sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=BROWSER_OPTIONS)
        yield chromium
        chromium.close()


def open_page(chromium: Browser, url: str) -> Page:
    """A fresh page of the app, ready for a photo."""
    page = chromium.new_page(viewport=DESKTOP)
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(url)
    page.locator("#photo input[type=file]").wait_for(state="attached")
    page.wait_for_timeout(2000)  # the page has settled: what it still draws is not the photo's
    return page


# Chooses the second detection; the seconds until it is told, by the page's own clock: a click of
# the driver would first wait until its place has stood still.
CHOOSE = """() => new Promise((done) => {
  const started = performance.now();
  document.querySelectorAll('#detections tr[data-row] button')[1].click();
  const look = () => {
    if (document.querySelector('#sentence').textContent.includes('detection 2'))
      done((performance.now() - started) / 1000);
    else requestAnimationFrame(look);
  };
  look();
})"""


def visit(page: Page, photo: Path) -> dict[str, float]:
    """Seconds to the first pictures, to everything, and of another detection.

    What is waited for is looked for in each frame of the page; a locator looks less and less often.
    """
    started = time.perf_counter()
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_function("document.querySelectorAll('#views img').length > 2")
    seconds = {"first pictures": time.perf_counter() - started}
    page.wait_for_function("document.querySelector('#numbers table')")
    seconds["all views"] = time.perf_counter() - started
    page.locator("#threshold input[type=number]").fill("0.05")
    page.locator("#threshold input[type=number]").press("Enter")
    rows = page.locator("#detections tr[data-row]")
    rows.first.wait_for()
    page.wait_for_timeout(1000)  # the new threshold is drawn
    if rows.count() > 1:
        seconds["another detection"] = page.evaluate(CHOOSE)
    page.close()
    return seconds


def latency(url: str, photo: Path) -> dict[str, dict[str, float]]:
    """Median and worst seconds of each step, over visits after a first one that warms up."""
    with browser() as chromium:
        _, *visits = (visit(open_page(chromium, url), photo) for _ in range(REPEATS + 1))
    steps = [step for step in visits[0] if all(step in one for one in visits)]
    values = {step: [one[step] for one in visits] for step in steps}
    return {s: {"median": statistics.median(v), "worst": max(v)} for s, v in values.items()}


def server_memory(url: str, process: int, photo: Path) -> dict[str, float]:
    """Resident megabytes after 50 requests, which fill caches, and after 200 more."""
    client = Client(url, verbose=False)
    for i in range(REQUESTS_BEFORE + REQUESTS):
        if i == REQUESTS_BEFORE:
            before = resident_megabytes(process)
        client.predict(handle_file(photo), 0.3, api_name="/analyse")
    after = resident_megabytes(process)
    return {"before": before, "after": after, "growth": after - before, "requests": REQUESTS}


def app_latency(arguments: list[str]) -> None:
    """How long the app takes, seen from the browser, and whether its memory grows.

    On a warm server: from the upload to the first pictures (aim: 0.6 s on two cores), to all views
    and numbers, and from choosing another detection to its views (aim: 0.25 s).
    """
    given = options(app_latency, "results/app_latency.json").parse_args(arguments)
    photo = package_photographs()[1]  # two people: there is another detection to choose
    record: dict = {"seconds": {}}
    with tempfile.TemporaryDirectory() as folder, served() as (url, process):
        large = Path(folder) / "large.jpg"
        Image.open(photo).convert("RGB").resize(LARGE).save(large, quality=90)
        for name, one in (("512 x 512", photo), ("4000 x 3000", large)):
            record["seconds"][name] = latency(url, one)
        memory = record["megabytes"] = server_memory(url, process, photo)
    for name, steps in record["seconds"].items():
        for step, value in steps.items():
            print(f"{name:12} {step:20} {value['median']:6.2f} s, worst {value['worst']:.2f} s")
    print(f"memory: {memory['growth']:+.0f} MB over {REQUESTS} requests")
    save(given.out, record)


def app_screenshots(arguments: list[str]) -> None:
    """The app's pictures in the README: app.png and app-what-if.png."""
    given = options(app_screenshots, "docs").parse_args(arguments)

    def take(page: Page, name: str, ready: str) -> None:
        page.locator(ready).first.wait_for()
        page.wait_for_timeout(800)  # animations of the page end
        page.screenshot(path=given.out / name, full_page=True)

    with served() as (url, _), browser() as chromium:
        page = open_page(chromium, url)
        page.set_input_files("#photo input[type=file]", package_photographs()[0])
        take(page, "app.png", "#numbers table")
        page.get_by_role("tab", name="What if").click()
        page.get_by_role("button", name="Run with these maps").click()
        take(page, "app-what-if.png", "#whatif-status p")
