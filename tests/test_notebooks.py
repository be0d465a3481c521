"""Every notebook runs from its first cell to its last on drawn data, and holds what it may hold."""

import ast
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from tiny import lively_detector

from als.checkpoint import BY_NAME, save_checkpoint
from als.config import ModelConfig
from als.data.toy import TOY_CLASSES, write_toy
from als.files import write_json
from als.study import interventions
from als.study.study_command import study
from als.tables.render import render

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_FUNCTION = 5  # lines; what is longer belongs into the package


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A drawn data set, a tiny detector and its study."""
    root = tmp_path_factory.mktemp("notebooks")
    write_toy(root, images=8, size=(64, 96))
    detector = lively_detector(
        classes=TOY_CLASSES, score_threshold=0.0, nms_threshold=0.9, rpn_post_nms_test=200
    )
    save_checkpoint(detector, root / "toy.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interventions, "RESAMPLES", 50)
        study(
            [str(root / "toy.safetensors")],
            "VOC2012:trainval",
            root,
            root / "study",
            ["localization", "classification", "gradcam", "box_gaussian"],
            interventions=True,
        )
    _write_table_records(root / "results")
    return root


def _write_table_records(results: Path) -> None:
    """Records of one row of each table, two seeds of them; the other rows were not run."""
    names = ("AP50_11point", "AP50_area", "AP75", "AP", "COCO_AP", "COCO_AP50", "COCO_APs")
    names += ("COCO_APm", "COCO_APl")
    curve = {"step": [49, 99], "loss": [2.0, 1.0], "loss_rpn": [0.5, 0.2]}
    stage = {"config_file": "configs/compact/als-stage1.yaml", "config": {}, "curve": curve}
    for seed in (0, 1):
        for folder in ("table2-compact", "table3-compact"):
            record = {
                "metrics": dict.fromkeys(names, 0.5 + seed / 10),
                "per_class": {name: {"AP50_11point": 0.5} for name in TOY_CLASSES},
                "stages": [stage, stage],
                "config": ModelConfig(classes=TOY_CLASSES).to_dict(),
            }
            write_json(results / folder / f"proposed-seed{seed}.json", record)


@pytest.fixture(scope="module")
def parameters(toys):
    """What the parameters cell of each notebook is replaced by."""
    checkpoint = f"CHECKPOINT = {str(toys / 'toy.safetensors')!r}"
    images = toys / "VOC2012" / "JPEGImages"
    photographs = [str(p) for p in sorted(images.iterdir())[:2]]
    return {
        "figure3_attention_maps": f"CHECKPOINTS = [{str(toys / 'toy.safetensors')!r}]\n"
        f"FOLDER = {str(images)!r}; MOST = 2; SCORE_THRESHOLD = 0.5",
        "attention_vs_cam": f"{checkpoint}; STUDY = INTERVENTIONS = {str(toys / 'study')!r}\n"
        "COMPARED = ['mask_iou', 'peak_on_head']\n"
        f"PHOTOGRAPHS = {photographs}; LIVE_MAPS = ['localization', 'gradcam']",
        **dict.fromkeys(
            ("table1_voc07", "table2_ablation", "table3_coco"),
            f"{checkpoint}; RESULTS = {str(toys / 'results')!r}\n"
            f"PHOTOGRAPHS = {photographs}; SCORE_THRESHOLD = 0.5\n"
            f"MINE = {str(toys / 'results/table2-compact/proposed-seed1.json')!r}",
        ),
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_on_drawn_data(path, parameters):
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source = parameters[path.stem]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    pictures = [
        output
        for c in notebook.cells
        if c.cell_type == "code"
        for output in c.outputs
        if {"image/png", "image/jpeg"} & set(output.get("data", {}))
    ]
    assert pictures, "a notebook without a picture shows nothing"


def test_the_comparison_reads_an_older_study_and_one_that_found_nothing(toys, tmp_path):
    never = lively_detector(classes=TOY_CLASSES, score_threshold=0.999999)
    save_checkpoint(never.float(), tmp_path / "none.safetensors")
    given = [str(tmp_path / "none.safetensors")], "VOC2012:val", toys
    study(*given, tmp_path / "none", ["uniform"], ["mask_iou"])
    older = shutil.copytree(ROOT / "results/study-logit", tmp_path / "older")
    pairs = pd.read_csv(older / "differences.csv").drop(columns="p_holm")
    pairs.to_csv(older / "differences.csv", index=False)
    (path,) = [path for path in NOTEBOOKS if path.stem == "attention_vs_cam"]
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    live = ("parameters", "als.load", "als.explore")
    code = [c.source for c in code if not any(w in f"{c.source}{c.metadata}" for w in live)]
    assert len(code) > 3
    for folder in (older, tmp_path / "none"):
        names = {"STUDY": str(folder), "INTERVENTIONS": str(folder), "COMPARED": ["mask_iou"]}
        for cell in code:
            exec("\n".join(line for line in cell.splitlines() if line[:1] != "%"), names)


@pytest.mark.parametrize(
    ("stem", "table"),
    [("table1_voc07", "table1"), ("table2_ablation", "table2"), ("table3_coco", "table3")],
)
def test_the_committed_table_is_that_of_the_committed_records(stem, table):
    (path,) = [path for path in NOTEBOOKS if path.stem == stem]
    shown = [
        output["data"]["text/markdown"]
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    assert shown[0].strip() == render(table, ROOT / "results").strip(), "run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_its_outputs_and_is_thin(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run `make notebooks`"
    values = {}
    exec(
        next(cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])), values
    )
    checkpoints = values.get("CHECKPOINTS") or [values["CHECKPOINT"]]
    assert set(checkpoints) <= set(BY_NAME)  # the one parameter that the tests replace untried
    shown = {kind for cell in code for out in cell.outputs for kind in out.get("data", {})}
    assert not any("widget" in kind for kind in (*shown, *notebook.metadata)), (
        "run `make notebooks`"
    )
    for cell in code:
        assert not any(output.output_type == "error" for output in cell.outputs)
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name
