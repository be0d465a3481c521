"""The documentation site: every link holds, and lists and tables are what GitHub shows."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import als

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built strictly: a link to no file, page or heading ends it."""
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


class Counted(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.ids |= {value for name, value in attrs if name == "id"}


def test_every_page_is_there_once_and_what_it_links_to(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.parent.name for path in site.glob("*/index.html")}
    assert (site / "app.png").read_bytes() == (ROOT / "docs" / "app.png").read_bytes()
    record = "results/compact/shipped.json"
    assert (site / record).read_bytes() == (ROOT / record).read_bytes()
    assert (site / "als/config.py").is_file() and not (site / "site_pages.py").exists()


def test_lists_and_tables_follow_a_line_as_on_github(site):
    """Markdown's first dialect wants an empty line before them; the pages have none."""
    scale = Counted(site / "scale" / "index.html")
    assert scale.tags.count("table") >= 4
    assert "- <code>checkpoints/last.ckpt" not in (site / "scale" / "index.html").read_text()


def test_the_reference_has_all_exported_names(site):
    ids = Counted(site / "reference" / "index.html").ids
    wanted = {"load", "Predictor", "Prediction", "evaluate", "train", "ModelConfig", "InputError"}
    missing = [
        name
        for name in {*als.__all__} - {"explain"}
        if not any(one.endswith(f".{name}") for one in ids if one)
    ]
    assert not missing and wanted <= {*als.__all__}
