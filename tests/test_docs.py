"""What the pages say is so: links, commands and the figures of tables."""

import argparse
import json
import re
import shlex
from pathlib import Path

import jsonargparse
import nbformat
import pytest

from als.cli import main
from als.explain import EXPLAINERS
from als.study.measures import GROUPS, MEASURES
from als.training.options import read_options
from benchmarks.__main__ import main as benchmark

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "docs", "als/weights", "als/ui/space", "benchmarks")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULTS = ROOT / "results"


def text_of(page: Path) -> str:
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def headings(page: Path) -> set[str]:
    """As GitHub makes them: `## A_loc's (1 + A)` is #a_locs-1--a."""
    found = re.findall(r"^#+ (.*)", re.sub(r"(?ms)^```.*?^```", "", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page):
    wrong = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(page)):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (heading and heading not in headings(target)):
            wrong.append(link)
    named = set(re.findall(r"configs/[\w/-]+\.yaml", text_of(page)))
    assert wrong + [name for name in named if not (ROOT / name).exists()] == []


class Taken(Exception):
    """A command line was read; nothing is run."""


def commands() -> list[str]:
    """Of the fenced blocks of all pages."""
    lines = []
    for page in (*PAGES, *NOTEBOOKS):
        for block in re.findall(r"(?ms)^```\w*\n(.*?)^```", text_of(page)):
            joined = re.sub(r"\\\n\s*", "", block)
            lines += re.findall(r"(?m)^(?:als|python -m benchmarks) [^#\n]*", joined)
    return sorted({re.sub(r"[\[\]](?=--|$| )| \.\.\.", "", line.strip()) for line in lines})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_page_is_taken_as_it_is_written(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, *words = shlex.split(line.replace("configs/...", "configs/compact-stage1.yaml"))
    if words[0] == "train":
        read_options(words[1:])
        return

    def stop_after(read):
        def once(parser, arguments=None, *rest, **more):
            given = read(parser, arguments, *rest, **more)
            if parser.prog == "als data":  # it reads the action alone
                return given
            raise Taken(given)

        return once

    monkeypatch.setattr(
        jsonargparse.ArgumentParser,
        "parse_args",
        stop_after(jsonargparse.ArgumentParser.parse_args),
    )
    if words[0] == "-m":
        monkeypatch.setattr(
            argparse.ArgumentParser, "parse_args", stop_after(argparse.ArgumentParser.parse_args)
        )
    with pytest.raises(Taken) as taken:
        benchmark(words[2:]) if words[0] == "-m" else main(words)
    (given,) = taken.value.args
    if words[0] == "study":
        assert set(given.maps or []) <= set(EXPLAINERS)
        assert set(given.measures or []) <= {*MEASURES, *GROUPS}


MAPS = {
    "A_loc": "localization",
    "A_cls": "classification",
    "what a box's class feature is multiplied by": "class_weights",
    "Grad-CAM, class logit": "gradcam",
    "Grad-CAM, softmax score": "gradcam_softmax",
    "gradient x activation, class logit": "gradact",
    "gradient x activation, softmax score": "gradact_softmax",
    "LayerCAM, class logit": "layercam",
    "ODAM, class score and box": "odam",
    "D-RISE": "drise",
    "Gaussian in the box": "box_gaussian",
    "Gaussian in the photograph": "image_gaussian",
    "everywhere alike": "uniform",
    "random pixels": "random",
}
HERE = ("mask_iou", "head_focus", "peak_on_head")
PAIR = ("study-animals-distilled", "study-animals-faster-rcnn")
BUDGET = ("study-proposed-twenty", "study-faster-rcnn")
# Of each table of maps, in the order of the pages: the record and the measure of each column.
COLUMNS = [
    [("study-logit", m) for m in (*HERE, "insertion", "deletion")],
    [("study-parts", m) for m in HERE],
    [("study-everyday", m) for m in ("mask_iou", "mask_iou_best", "pointing", "odi")],
    [(one, m) for m in ("mask_iou_best", "pointing_exact") for one in BUDGET],
    [(one, m) for m in ("mask_iou_best", "pointing_exact", "peak_on_head") for one in PAIR],
    [
        ("study-led", m)
        for m in ("pointing", "mask_iou_best", "peak_on_head", "insertion", "deletion")
    ],
]


def test_the_study_s_tables_are_the_records():
    pages = "".join(text_of(ROOT / "docs" / name) for name in ("study.md", "study-details.md"))
    tables = [rows for rows in re.findall(r"(?m)^\| map \|.*\n((?:\|.*\n)+)", pages)]
    tables = [rows for rows in tables if "| A_loc | neutral" not in rows and "`" not in rows]
    wrong, compared = [], 0
    for rows, columns in zip(tables, COLUMNS, strict=True):
        for line in rows.splitlines()[1:]:
            title, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            for cell, (folder, measure) in zip(cells, columns, strict=False):
                summary = json.loads((RESULTS / folder / "summary.json").read_text())
                digits = max(2, len(cell.split()[0]) - 2)
                value = summary.get(MAPS[title], {}).get(measure)
                told = value and "{mean:.{n}f} [{low:.{n}f}, {high:.{n}f}]".format(
                    n=digits, **value
                )
                wrong += [(title, folder, measure, cell, told)] if cell != (told or "–") else []
                compared += 1
    assert wrong == [] and compared > 200


def test_the_figures_of_the_cards_and_the_readme_are_the_records():
    names = ("AP50_11point", "AP50_area", "AP75", "AP")
    row = re.compile(r"^\| .*? \| (?:\**[\d.]+\** \| ){4}\[json\]\((\S+)\) \|$", re.MULTILINE)
    readme = text_of(ROOT / "README.md")
    shown = [
        (line.group(), json.loads((ROOT / line[1]).read_text())["metrics"])
        for line in row.finditer(readme)
    ]
    card = text_of(ROOT / "als/weights/README.md").split("# Model card")
    for part, record in zip(card[1:3], ("parts", "shipped"), strict=True):
        told = json.loads((RESULTS / f"compact/{record}.json").read_text())
        for name, figures in (told["per_class"] | {"**mean**": told["metrics"]}).items():
            (line,) = re.findall(rf"(?m)^\| {re.escape(name)} \|.*", part)
            shown.append((line, figures))
    assert len(shown) == 5 + 2 * 7
    for line, figures in shown:
        cells = [cell.strip(" *") for cell in line.split("|")[2:6]]
        assert cells == [f"{100 * figures[name]:.1f}" for name in names], line
