"""The exported files find what the detector finds; each format is loaded back from its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import lively_detector
from torchvision.transforms.functional import resize

from als.checkpoint import save_checkpoint
from als.cli import main
from als.errors import InputError
from als.export import (
    FORMATS,
    OUTPUTS,
    TOLERANCE,
    WholeDetector,
    check,
    export,
    photographs,
    runner,
)
from als.images import as_rgb
from als.inference import load
from als.model.grid import map_to_image

SIZE = (70, 100)  # resized to 64 x 91, in a batch of 64 x 96
ANIMALS = Path(__file__).parents[2] / "shared" / "data" / "voc-animals" / "VOC2012" / "JPEGImages"
LIGHT = {"backbone": "resnet18", "fold_batch_norm": True}  # few steps to export


def detector_of(**changes):
    return lively_detector(0, **(LIGHT | changes)).float()


def needs(format):
    if format == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package, reason=f"needs the package {package}, the extra 'export'")


def eager(detector, image):
    encoding = detector.encode([image])
    found = detector.detect(encoding)[0].as_dict()
    maps = [map_to_image(grid, encoding) for grid in (encoding.a_loc, encoding.a_cls)]
    return [found[name] for name in OUTPUTS[:3]] + [torch.from_numpy(m) for m in maps]


@pytest.fixture(scope="module")
def detector():
    return detector_of(score_threshold=0.2, detections_per_image=8)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, detector, tmp_path_factory):
    """(format, path of the file, the difference that was told)."""
    needs(request.param)
    path = tmp_path_factory.mktemp("export") / "model.bin"
    return request.param, path, export(detector, path, request.param, SIZE)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": False},
        {"attention": False, "separation": False},
        {"attention_form": "residual", "pool": "max"},
        {"rpn_post_nms_test": 5, "nms_threshold": 0.2, "detections_per_image": 4},
    ],
)
def test_the_straight_line_is_the_detector(changes):
    detector = lively_detector(0, score_threshold=0.2, **changes)  # float64
    whole = WholeDetector(detector, SIZE)
    for image in photographs(SIZE):
        image = image.double()
        found, expected = whole(image), detector([image])[0]
        assert len(found) == (5 if detector.config.attention else 3)
        assert len(expected["scores"]) > 1
        for ours, name in zip(found, OUTPUTS[:3], strict=False):
            # torchvision scales boxes back to the image in float32, whatever their type.
            torch.testing.assert_close(ours, expected[name], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_file_finds_what_the_detector_finds(exported, detector):
    format, path, difference = exported
    run = runner(path, format)
    counts = []
    # Pictures that the file has not seen, among them one without content.
    images = [photographs((100, 70))[i].transpose(1, 2).contiguous() for i in range(3)]
    for image in [*images, torch.full((3, *SIZE), 0.5)]:
        expected = eager(detector, image)
        for ours, theirs in zip(run(image), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
        counts.append(len(expected[0]))
    assert min(counts) < 2 < max(counts), "a graph with a fixed number of detections would pass"
    assert 0 <= difference < 1e-3
    assert [file.name for file in path.parent.iterdir()] == ["model.bin"]


@torch.no_grad()
@pytest.mark.parametrize("format", FORMATS)
def test_the_shipped_detector_is_itself_on_photographs_that_export_does_not_check(format, tmp_path):
    needs(format)
    if not ANIMALS.is_dir():
        pytest.skip("needs the photographs in ../shared/data/voc-animals, which are not here")
    detector, size, found = load().detector, (192, 256), 0
    export(detector, tmp_path / "shipped", format, size)
    run = runner(tmp_path / "shipped", format)
    for path in sorted(ANIMALS.glob("*.jpg"))[::500]:
        pixels = np.array(as_rgb(path).resize((size[1], size[0])), np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        expected = eager(detector, image)
        for ours, theirs in zip(run(image), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
        found += len(expected[0])
    assert found > 5


@torch.no_grad()
@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_a_file_may_find_nothing(format, tmp_path):
    sure = detector_of(score_threshold=0.9999)
    path = tmp_path / "sure.bin"
    export(sure, path, format, SIZE)
    boxes, labels, scores, *maps = runner(path, format)(photographs(SIZE)[0])
    assert boxes.shape == (0, 4) and len(labels) == len(scores) == 0
    assert [tuple(values.shape) for values in maps] == [SIZE, SIZE]


def test_a_file_has_its_batch_norm_in_the_convolutions(tmp_path):
    detector = detector_of(fold_batch_norm=False)
    assert "trunk.0.1.running_var" in detector.state_dict()
    export(detector, tmp_path / "model.ts", "torchscript", SIZE)
    names = torch.jit.load(tmp_path / "model.ts").state_dict()
    assert len(names) > 50 and not [name for name in names if "running" in name]
    assert "trunk.0.1.running_var" in detector.state_dict()


def test_a_file_of_another_detector_is_found_out(detector, exported):
    format, path, _ = exported
    changed = detector_of(score_threshold=0.2, detections_per_image=8)
    with torch.no_grad():
        changed.attention_cls[4].bias += 0.1
    assert check(changed, path, format, SIZE) > 1e-3
    few = detector_of(score_threshold=0.2, detections_per_image=2)
    assert check(few, path, format, SIZE) == float("inf")


def test_a_file_that_gives_no_numbers_is_found_out(detector, exported, monkeypatch):
    format, path, _ = exported
    run = runner(path, format)

    def lost(image):
        return [t * float("nan") if t.is_floating_point() else t for t in run(image)]

    monkeypatch.setattr("als.export.runner", lambda *_: lost)
    assert not check(detector, path, format, SIZE) <= TOLERANCE


def test_what_differs_is_not_kept(detector, tmp_path, monkeypatch):
    monkeypatch.setattr("als.export.TOLERANCE", -1.0)
    path = tmp_path / "model.ts"
    with pytest.raises(InputError, match="model.ts: the exported model differs"):
        export(detector, path, "torchscript", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_export_leaves_the_detector_as_it_was(detector, tmp_path):
    mine = detector_of().train().to(memory_format=torch.channels_last)
    export(mine, tmp_path / "m.ts", "torchscript", SIZE)
    assert mine.training and any(p.requires_grad for p in mine.parameters())
    weight = mine.trunk[1][0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_command_writes_a_file_and_tells_the_difference(tmp_path, capsys):
    checkpoint, out = tmp_path / "m.safetensors", tmp_path / "m.ts"
    save_checkpoint(detector_of(), checkpoint)
    command = ["export", str(checkpoint), "--format", "torchscript", "--out", str(out)]
    main([*command, "--size", "64", "80"])
    told = capsys.readouterr().out
    assert "64 x 80 pixels" in told and "differs from PyTorch by at most" in told
    image = resize(photographs(SIZE)[0], [64, 80])
    assert runner(out, "torchscript")(image)[3].shape == (64, 80)
    # Of more than twice max_size `als predict` averages pixels first, which the file does not.
    longest = 2 * detector_of().config.max_size
    for size in ("8", "80"), ("64", str(longest + 1)):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--size", *size])
        told = capsys.readouterr().err
        assert stop.value.code == 2 and f"sides of 32 to {longest} pixels" in told
