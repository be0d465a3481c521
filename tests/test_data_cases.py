"""Data as people export it, ten cases of it: check and evaluation agree, and the figures are right.

The photographs are scikit-image's cat and astronaut, which `animals` finds with certainty; the
IoU is of its map.
"""

import json
from pathlib import Path

import pytest

from als.cli import main

CASES = Path(__file__).parents[2] / "shared" / "cases"
RIGHT = {
    "classes-txt-with-background": {"AP50_area": 1, "loc_iou_with_mask": 0.67},
    "coco-annotation-id-0": {"COCO_AP": 1},
    "coco-area-null": {"COCO_AP": 1},
    "coco-bom": {"COCO_AP": 1},
    "coco-string-annotation-ids": {"COCO_AP": 1},
    "coco-subfolders": {"AP50_area": 1, "COCO_AP": 1},
    "exif-portrait-90": {"AP50_area": 1},
    "exif-turned-180": {"AP50_area": 1},
    "id-twice": {"AP50_area": 1},
    "pixels-sixteen-bit": {"AP50_area": 1},
    "voc-name-with-space": {"AP50_area": 1},
}


@pytest.mark.filterwarnings("ignore:.*taken:UserWarning", "ignore:.*counts once:UserWarning")
@pytest.mark.parametrize("case", RIGHT)
def test_a_case_is_sound_and_its_figures_are_right(case, tmp_path, capsys):
    if not CASES.is_dir():
        pytest.skip("needs the data sets in ../shared/cases, which are not here")
    main(["data", "check", str(CASES / case)])
    assert "no broken file" in capsys.readouterr().out
    given = ["--root", str(CASES / case), "--data", "set:val", "--workers", "0"]
    out = tmp_path / "r.json"
    main(["evaluate", "animals", *given, "--out", str(out)])
    record = json.loads(out.read_text())
    figures = record["metrics"] | record["maps"]
    assert {name: figures[name] for name in RIGHT[case]} == pytest.approx(RIGHT[case], abs=0.006)


def test_every_case_is_tried():
    if not CASES.is_dir():
        pytest.skip("needs the data sets in ../shared/cases, which are not here")
    assert {path.name for path in CASES.iterdir() if path.is_dir()} == set(RIGHT)
