"""`als.explore` in JupyterLab, in Debian's chromium."""

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from visit import CHROMIUM, PATIENCE, expect, playwright

if importlib.util.find_spec("jupyterlab") is None:
    pytest.skip("needs JupyterLab: pip install -e .[lab]", allow_module_level=True)

TESTS = Path(__file__).parent
CELL = """from app_server import scene, tiny_predictor
import als
widget = als.explore(scene(5), tiny_predictor())
widget.threshold = 0.3
widget"""
# Lab's own; it asks its server for what is only there after a build or a first save.
LABS_OWN = ("404", "Failed to load resource")


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook with one cell, and the file."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    (tmp_path / "work").mkdir()
    nbformat.write(notebook, tmp_path / "work" / "try.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex(16)
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    homes += ("JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR")
    environment = os.environ | {name: str(tmp_path / name) for name in homes}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
    ]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path / 'work'}"]
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            yield f"http://127.0.0.1:{port}", token, tmp_path / "work" / "try.ipynb"
        finally:
            server.terminate()


@pytest.fixture
def page():
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(5 * PATIENCE)  # Lab and a kernel start
        yield page
        browser.close()


def open_notebook(page, url, token):
    for _ in range(60):  # until the server is up
        try:
            page.goto(f"{url}/lab/tree/try.ipynb?token={token}")
            break
        except playwright.Error:
            page.wait_for_timeout(1000)
    page.get_by_text("| Idle").wait_for()


@pytest.mark.slow
def test_a_notebook_shows_hovers_draws_and_keeps_a_picture(lab, page):
    url, token, file = lab
    errors, elsewhere = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: m.type == "error" and errors.append(m.text))
    page.on("request", lambda r: r.url.startswith(("http", "ws")) and elsewhere.append(r.url))
    open_notebook(page, url, token)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    pictures = page.locator(".als-explorer figure img")
    pictures.nth(4).wait_for()  # the kernel imports torch
    said, cell = page.locator(".als-sentence"), page.locator(".als-cell")
    expect(said).to_contain_text("Explaining detection 1")

    def place(picture, x, y):
        box = picture.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    page.mouse.move(*place(pictures.nth(1), 0.5, 0.5))
    expect(cell).to_contain_text("Localization map 0.")
    expect(cell).to_contain_text("(explained)")
    assert page.locator("figure").nth(4).locator("rect.als-here").count() == 1

    page.mouse.move(*place(pictures.first, 0.1, 0.2))
    page.mouse.down()
    page.mouse.move(*place(pictures.first, 0.5, 0.7), steps=4)
    page.mouse.up()
    expect(said).to_contain_text("Explaining the box")
    second = page.locator(".als-detections button").nth(1)
    second.click()
    expect(said).to_contain_text("Explaining detection 2")
    expect(second).to_be_focused()  # it is still the same button
    expect(page.locator(".als-waiting")).to_have_count(0)

    before = [picture.get_attribute("src") for picture in pictures.all()]
    page.get_by_label("Opacity").focus()
    expect(page.get_by_label("Opacity")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(pictures.nth(1)).not_to_have_attribute("src", before[1])
    page.get_by_label("Explain").select_option("person")
    expect(said).to_contain_text("best-scoring proposal")

    page.locator(".jp-CodeCell .cm-content").first.click()  # keys in the widget are its own
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    (output,) = nbformat.read(file, as_version=4).cells[0].outputs
    assert output.data["image/jpeg"].startswith("/9j/")  # JPEG, as base64
    assert [url for url in elsewhere if "127.0.0.1" not in url] == []
    assert [text for text in errors if not any(own in text for own in LABS_OWN)] == []
