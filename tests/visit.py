"""A visit to the app in Debian's chromium, driven by playwright; skips where there is none."""

import re
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs chromium: apt-get install chromium", allow_module_level=True)

PATIENCE = 60_000  # milliseconds; the machine may be busy
COPY_A_PICTURE = """async () => {
  const canvas = document.createElement('canvas');
  canvas.width = 200;
  canvas.height = 150;
  canvas.getContext('2d').fillRect(30, 30, 80, 80);
  const picture = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  await navigator.clipboard.write([new ClipboardItem({'image/png': picture})]);
}"""
expect = playwright.expect
expect.set_options(timeout=PATIENCE)


class Visit:
    """A page of the app, with what its console said and where it sent requests."""

    def __init__(self, browser, url: str, **options):
        self.page = browser.new_page(**({"viewport": {"width": 1440, "height": 900}} | options))
        self.page.set_default_timeout(PATIENCE)
        self.errors, self.elsewhere, self.requests = [], [], []
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda r: self.note_request(r.url, url.partition("?")[0]))
        self.page.on("response", lambda r: r.status >= 400 and self.errors.append(r.url))
        # Gradio asks for the progress of a picture that is pasted before the upload has an id, and
        # gives itself 404 where that takes three seconds.
        done = {"content_type": "text/event-stream", "body": 'data: {"msg": "done"}\n\n'}
        unnamed = re.compile(r"/upload_progress\?upload_id=$")
        self.page.route(unnamed, lambda route: route.fulfill(**done))
        self.page.goto(url)
        self.page.locator("#photo input[type=file]").wait_for(state="attached")

    def note_request(self, target: str, url: str) -> None:
        self.requests.append(target)
        if not target.startswith((url, "data:", "blob:")):
            self.elsewhere.append(target)

    def upload(self, path) -> None:
        self.page.set_input_files("#photo input[type=file]", path)

    def open_photo(self, path) -> None:
        self.upload(path)
        self.page.locator("#numbers table").first.wait_for()
        expect(self.page.locator("#views img")).to_have_count(5)

    def pictures(self) -> list[str]:
        images = self.page.locator("#views img").all()
        return [image.get_attribute("src") for image in images]

    def says(self, text: str) -> None:
        expect(self.page.locator("#sentence")).to_contain_text(text)


def luminance(rgb: str) -> float:
    """Relative luminance (WCAG 2) of a computed style such as 'rgb(1, 2, 3)'."""
    channels = [int(x) / 255 for x in re.findall(r"\d+", rgb)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
