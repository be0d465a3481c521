"""How long the app takes, seen from the browser, and whether its memory grows.

    python -m benchmarks.app_latency [--checkpoint FILE] [--out results/app_latency.json]

Measured on a warm server: from the upload to the first pictures (aim: 1.5 s on two cores), to all
five views and numbers, and from choosing another detection to its views (aim: 0.5 s); then the
server's resident memory over 200 API requests.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import skimage
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page

from als.files import write_json
from als.machine import machine, revision
from benchmarks.app_browser import App, app, browser, open_page, upload

PHOTO = Path(skimage.__file__).parent / "data" / "astronaut.png"
REPEATS, REQUESTS, REQUESTS_BEFORE = 7, 200, 50
LARGE = (4000, 3000)  # pixels: what a phone takes


def measure_page(page: Page, photo: Path) -> dict[str, float]:
    """Seconds of one visit: first pictures, everything, another detection."""
    started = time.perf_counter()
    upload(page, photo)
    page.locator("#views img").nth(2).wait_for()
    first = time.perf_counter() - started
    page.locator("#numbers table").first.wait_for()
    everything = time.perf_counter() - started
    page.locator("#threshold input[type=number]").fill("0.05")
    page.locator("#threshold input[type=number]").press("Enter")
    rows = page.locator("#detections tr[data-row]")
    rows.first.wait_for()
    page.wait_for_timeout(1000)  # the new threshold is drawn
    seconds = {"first pictures": first, "all views": everything}
    if rows.count() > 1:
        started = time.perf_counter()
        rows.nth(1).locator("button").click()
        page.locator("#sentence", has_text="detection 2").wait_for()
        seconds["another detection"] = time.perf_counter() - started
    page.close()
    return seconds


def measure_latency(served: App, photo: Path) -> dict[str, dict[str, float]]:
    """Median and worst seconds of each step, over visits after a first one that warms up."""
    with browser() as chromium:
        visits = [measure_page(open_page(chromium, served.url), photo) for _ in range(REPEATS + 1)][
            1:
        ]
    steps = [step for step in visits[0] if all(step in visit for visit in visits)]
    values = {step: [visit[step] for visit in visits] for step in steps}
    return {s: {"median": statistics.median(v), "worst": max(v)} for s, v in values.items()}


def measure_memory(served: App, photo: Path) -> dict[str, float]:
    """Resident megabytes after 50 requests, which fill caches, and after 200 more."""
    client = Client(served.url, verbose=False)
    for i in range(REQUESTS_BEFORE + REQUESTS):
        if i == REQUESTS_BEFORE:
            before = served.memory()
        client.predict(handle_file(photo), 0.3, api_name="/analyse")
    after = served.memory()
    return {"before": before, "after": after, "growth": after - before, "requests": REQUESTS}


def main() -> None:
    """Measure, print a table and, if asked, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="default: the one that ships")
    parser.add_argument("--out", type=Path, help="where the JSON record goes")
    given = parser.parse_args()
    record = {"machine": machine(), "revision": revision(), "seconds": {}}
    with tempfile.TemporaryDirectory() as folder, app(given.checkpoint) as served:
        large = Path(folder) / "large.jpg"
        Image.open(PHOTO).convert("RGB").resize(LARGE).save(large, quality=90)
        for name, photo in (("512 x 512", PHOTO), ("4000 x 3000", large)):
            record["seconds"][name] = measure_latency(served, photo)
        record["megabytes"] = measure_memory(served, PHOTO)
    for name, steps in record["seconds"].items():
        for step, value in steps.items():
            print(f"{name:12} {step:20} {value['median']:6.2f} s, worst {value['worst']:.2f} s")
    memory = record["megabytes"]
    print(
        f"memory over {REQUESTS} requests: {memory['growth']:+.0f} MB from {memory['before']:.0f}"
    )
    if given.out is not None:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
