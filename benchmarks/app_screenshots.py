"""The pictures of the app in the README, made anew from the app as it is.

    python -m benchmarks.app_screenshots [--checkpoint FILE] [--other FILE] [--out docs]

Writes app.png (desktop), app-dark.png, app-phone.png, app-what-if.png and, with --other,
app-compare.png.
"""

import argparse
from pathlib import Path

import skimage
from playwright.sync_api import Browser, Page

from benchmarks.app_browser import app, browser, open_page, upload

PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}


def opened(chromium: Browser, url: str, **options) -> Page:
    """A page with all views of the photo."""
    page = open_page(chromium, url, **options)
    upload(page, PHOTO)
    page.locator("#numbers table").first.wait_for()
    page.wait_for_timeout(800)  # animations of the page end
    return page


def take_all(chromium: Browser, url: str, folder: Path, compare: bool) -> None:
    page = opened(chromium, url)
    page.screenshot(path=folder / "app.png", full_page=True)
    page.get_by_role("tab", name="What if").click()
    page.get_by_role("button", name="Run with these maps").click()
    page.locator("#whatif-status p").wait_for()  # pictures, or that this model has no maps
    page.wait_for_timeout(800)
    page.screenshot(path=folder / "app-what-if.png", full_page=True)
    if compare:
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-numbers table").first.wait_for()
        page.wait_for_timeout(800)
        page.screenshot(path=folder / "app-compare.png", full_page=True)
    opened(chromium, url, color_scheme="dark").screenshot(
        path=folder / "app-dark.png", full_page=True
    )
    opened(chromium, url, **PHONE).screenshot(path=folder / "app-phone.png", full_page=True)


def main() -> None:
    """Take every screenshot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="default: the one that ships")
    parser.add_argument("--other", type=Path, help="a second one, for the tab that compares")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with app(given.checkpoint, given.other) as served, browser() as chromium:
        take_all(chromium, served.url, given.out, compare=given.other is not None)


if __name__ == "__main__":
    main()
