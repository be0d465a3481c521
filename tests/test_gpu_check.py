"""The one command for a GPU machine, on the CPU at tiny size, with what such a machine has."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny import thin_vgg16
from torchvision import models

from als.checkpoint import build_detector
from als.config import Family
from benchmarks import gpu_check
from benchmarks.__main__ import main
from benchmarks.gpu_peaks import peak_tflops
from benchmarks.timing import counted

ROOT = Path(__file__).parents[1]
ABSENT = ("captum", "gradio", "jsonargparse", "pycocotools", "skimage")


def test_it_checks_measures_and_writes(tmp_path, capsys):
    out = tmp_path / "gpu_check.json"
    with pytest.raises(SystemExit) as ended:
        main(["gpu_check", "--device", "cpu", "--tiny", "--out", str(out)])
    assert ended.value.code == 0, capsys.readouterr().out
    record = json.loads(out.read_text())
    assert [row["equal"] for row in record["equal"]] == [True, True]
    assert [row["falls"] for row in record["train"]] == [True]
    assert len(record["speed"]) == 4  # ALS and Faster R-CNN, train and detect
    for row in record["speed"]:
        assert row["images_per_second"] > 0 and row["gflop_an_image"] > 0
        assert row["peak_megabytes"] is None and row["share_of_peak"] is None
    table = out.with_suffix(".md").read_text()
    assert "| ALS | yes |" in table and table.count("| compact | 64 |") == 4


def test_a_wrong_device_is_noticed(monkeypatch):
    """A network that differs in one weight by a hundredth is not equal."""

    class Wrong:
        """deepcopy, as a device would do it whose arithmetic is off."""

        def __new__(cls, detector):
            copy = deepcopy(detector)
            with torch.no_grad():
                copy.attention_loc[0].weight[0] *= 1.01
            return copy

    monkeypatch.setattr(gpu_check, "deepcopy", Wrong)
    row = gpu_check.check_equal("ALS", {}, torch.device("cpu"))
    assert not row["equal"] and row["errors"]["gradients"] > gpu_check.TOLERANCE


def test_training_and_the_check_need_little():
    """They import on a machine that has torch, torchvision and lightning alone."""
    script = (
        "import sys\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "import als.model, als.training.train, benchmarks.gpu_check\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_every_case_of_a_whole_check_builds():
    cases = list(gpu_check.speed_cases(torch.device("cuda"), tiny=False))
    assert len({tuple(case.items()) for case in cases}) == len(cases)
    assert {case["trunk"] for case in cases if case["compiled"]} == {
        "resnet50",
        "resnet101",
        "compact",
    }
    for changes in gpu_check.VARIANTS.values():
        with torch.device("meta"):
            build_detector(gpu_check.network_of(changes))
    families = {gpu_check.network_of(changes).family for changes in gpu_check.VARIANTS.values()}
    assert families == set(get_args(Family)), "every family is checked"


@pytest.mark.parametrize("name", ["Faster R-CNN, VGG16", "SSDLite"])
def test_the_rows_beside_are_checked_too(name, monkeypatch):
    """The CPU agrees with itself: nothing is drawn that a device would draw anew."""
    monkeypatch.setattr(models, "vgg16", thin_vgg16)
    row = gpu_check.check_equal(name, gpu_check.VARIANTS[name], torch.device("cpu"))
    assert row["equal"] and max(row["errors"].values()) < 1e-12
    assert {"loss_cls", "gradients", "detected boxes"} <= row["errors"].keys()


def test_flops_are_counted_by_hand():
    """A 1x1 convolution of 3 to 5 channels on 4 x 6 cells: 2 operations a multiplication."""
    layer, image = torch.nn.Conv2d(3, 5, 1), torch.rand(1, 3, 4, 6)
    assert counted(lambda: layer(image))[1] == 2 * 3 * 5 * 4 * 6


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", None),
        ("Tesla T4", None),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_peaks_by_the_names_that_gpus_give(name, bf16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_tflops(torch.device("cuda"), "bf16") == bf16
