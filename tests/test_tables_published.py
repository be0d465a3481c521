"""The published figures against the paper itself, cell by cell."""

import re
from pathlib import Path

import pytest

from als.tables.measured import published

PAPER = Path(__file__).parents[2] / "shared" / "paper" / "attentive-layer-separation.md"
MARKS = {"X": "no", "\u0425": "no", "/": "yes", "-": "-"}  # one cross is a Cyrillic letter
COLUMNS = {"APs": "APS", "$AP_M$": "APM", "$AP_L$": "APL"}
SPANNING = "Proposed Method"  # table 2 prints it once, in the middle of its three rows


def test_the_first_and_the_last_cell_by_hand():
    table = published("table1").set_index(["key", "column"])["value"]
    assert table["proposed", "mAP"] == "80.1" and table["proposed", "tv"] == "82.2"
    assert table["faster-rcnn-vgg16", "aero"] == "76.5"
    assert published("table3").set_index(["key", "column"])["value"]["proposed", "APS"] == "19.7"


def test_a_cell_is_there_once():
    cells = published()
    assert not cells.duplicated(["table", "key", "column"]).any()
    assert cells.groupby("table").size().to_dict() == {"table1": 189, "table2": 12, "table3": 20}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_cell_is_the_papers(number):
    if not PAPER.is_file():
        pytest.skip("needs the paper in ../shared/paper, which is not here")
    table = published(f"table{number}")
    ours = [
        (name, backbone, dict(zip(rows["column"], rows["value"], strict=True)))
        for (_, name, backbone), rows in table.groupby(["key", "row", "backbone"], sort=False)
    ]
    assert ours == _rows_of_the_paper(number)


def _rows_of_the_paper(number: int) -> list[tuple[str, str, dict[str, str]]]:
    """(method, backbone, column -> value) of each line below 'Table N.', in order."""
    lines = iter(PAPER.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(f"**Table {number}.**"):
            break
    header = next(line for line in lines if "\t" in line).split("\t")
    found, backbone = [], ""
    for line in lines:
        if "\t" not in line:
            return found
        cells = dict(zip(header, line.split("\t"), strict=True))
        method = cells.pop("method") or SPANNING
        backbone = cells.pop("backbone", "") or backbone
        values = {COLUMNS.get(name, name): _plain(cell) for name, cell in cells.items()}
        found.append((method, backbone, values))
    return found


def _plain(cell: str) -> str:
    cell = re.sub(r"^\$\\boldsymbol\{(.*)\}\$$", r"\1", cell.strip())
    return MARKS.get(cell, cell)
