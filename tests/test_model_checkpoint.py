"""Checkpoints: what is saved comes back, what is not one is told, and writing is atomic."""

import json
import struct
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import lively_detector, random_images, tiny_config

from als.checkpoint import (
    average_checkpoints,
    build_detector,
    load_checkpoint,
    save_checkpoint,
)
from als.cli import main
from als.errors import InputError

INFO = {"data": {"train": "VOC2012:train"}, "epochs": 3, "ap50": 0.5}


@pytest.fixture(scope="module")
def detector():
    return lively_detector(0).float().eval()


@pytest.fixture(scope="module")
def saved(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "new" / "model.safetensors"
    save_checkpoint(detector, path, INFO)
    return path


def test_round_trip_is_exact(detector, saved):
    loaded, info = load_checkpoint(saved)
    assert info == INFO
    assert loaded.config == detector.config
    assert not loaded.training
    expected, found = detector.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    images = random_images(0, dtype=torch.float32)
    with torch.no_grad():
        for one, two in zip(detector(images), loaded(images), strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one)
    frozen = [name for name, p in detector.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, p in loaded.named_parameters() if not p.requires_grad]


def test_round_trip_of_folded_channels_last_weights(tmp_path):
    detector = build_detector(tiny_config(fold_batch_norm=True))
    detector = detector.to(memory_format=torch.channels_last)
    save_checkpoint(detector, tmp_path / "model.safetensors")
    loaded, info = load_checkpoint(tmp_path / "model.safetensors")
    assert info == {}
    expected = detector.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())


def test_half_precision_file(detector, saved, tmp_path):
    path = tmp_path / "half.safetensors"
    save_checkpoint(detector, path, INFO, half=True)
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    loaded, _ = load_checkpoint(path)
    rounded = 0
    largest = max(tensor.abs().max() for tensor in detector.state_dict().values())
    assert largest < 65504, "float16 can hold these weights"
    for name, tensor in detector.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, tensor, rtol=2**-10, atol=1e-6)
        rounded += not torch.equal(found, tensor)
    assert rounded > 0
    assert all(p.dtype == torch.float32 for p in detector.parameters()), "the model is left alone"


def test_half_precision_keeps_what_is_too_large_for_it(tmp_path):
    detector = lively_detector(0).float()
    with torch.no_grad():
        detector.attention_loc[0].weight[0] = 1e5
    save_checkpoint(detector, tmp_path / "half.safetensors", half=True)
    back, _ = load_checkpoint(tmp_path / "half.safetensors")
    assert torch.equal(back.attention_loc[0].weight, detector.attention_loc[0].weight)


def test_the_file_alone_rebuilds_the_network(tmp_path):
    config = tiny_config(weights="a file that is gone.pth", attention_source="F_loc")
    save_checkpoint(build_detector(config, pretrained=False), tmp_path / "model.safetensors")
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.config == config


def foreign(folder):
    save_file({"weight": torch.zeros(3)}, folder / "foreign.safetensors", {"format": "pt"})
    return folder / "foreign.safetensors"


def without_metadata(folder):
    save_file({"weight": torch.zeros(3)}, folder / "bare.safetensors")
    return folder / "bare.safetensors"


def text(folder):
    (folder / "text.safetensors").write_text("This is no checkpoint.\n" * 20)
    return folder / "text.safetensors"


def empty(folder):
    (folder / "empty.safetensors").touch()
    return folder / "empty.safetensors"


def pickled(folder):
    torch.save({"weight": torch.zeros(3)}, folder / "model.pth")
    return folder / "model.pth"


def huge_header(folder):
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return folder / "header.safetensors"


def missing(folder):
    return folder / "missing.safetensors"


def directory(folder):
    (folder / "folder.safetensors").mkdir()
    return folder / "folder.safetensors"


def test_a_file_says_the_name_of_the_weights_it_began_with_and_no_folder(detector, tmp_path):
    config = replace(detector.config, weights=str(tmp_path / "imagenet.safetensors"))
    save_checkpoint(build_detector(config, pretrained=False), tmp_path / "model.safetensors")
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.config == replace(config, weights="imagenet.safetensors")


@pytest.mark.parametrize(
    "make",
    [foreign, without_metadata, text, empty, pickled, huge_header, missing, directory],
)
def test_files_that_are_no_checkpoint(make, tmp_path):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_truncated_file(saved, tmp_path, share):
    whole = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="cut.safetensors: not a whole"):
        load_checkpoint(path)


def rewritten(saved, folder, tensors=None, **metadata):
    with safe_open(saved, framework="pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata() | metadata
    path = folder / "rewritten.safetensors"
    save_file(old if tensors is None else tensors, path, metadata)
    return path


def test_config_of_another_version(saved, tmp_path):
    config = tiny_config().to_dict() | {"heads": 7}
    path = rewritten(saved, tmp_path, config=json.dumps(config))
    with pytest.raises(InputError, match="heads.*another version"):
        load_checkpoint(path)


def test_tensors_that_do_not_fit_the_config(saved, tmp_path):
    path = rewritten(saved, tmp_path, tensors={"trunk.0.0.weight": torch.zeros(2)})
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_left_beside_the_file(saved):
    assert [file.name for file in saved.parent.iterdir()] == ["model.safetensors"]


def test_a_failing_write_leaves_the_old_file(detector, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(detector, path, INFO)
    before = path.read_bytes()

    def disk_full(tensors, target, metadata):
        target.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr("als.checkpoint.save_file", disk_full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(detector, path, {"epochs": 4})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_mean_of_checkpoints_by_hand(saved, detector, tmp_path):
    other = lively_detector(1, min_size=96).float()
    told = INFO | {"calibration": {}, "figures": {"AP": 0.4}, "epochs": 4}
    save_checkpoint(other, tmp_path / "other.safetensors", told)
    given = [str(saved), str(tmp_path / "other.safetensors")]
    main(["average", *given, "--shares", "1", "3", "--out", str(tmp_path / "mean.safetensors")])
    mean, info = load_checkpoint(tmp_path / "mean.safetensors")
    assert mean.config == other.config and not mean.training
    expected = {"averaged": [[given[0], 1], [given[1], 3]], "epochs": 4}
    assert info == INFO | expected, "it is another checkpoint, that nobody calibrated"
    one, two = detector.state_dict(), other.state_dict()
    for name, tensor in mean.state_dict().items():
        torch.testing.assert_close(tensor, (one[name] + 3 * two[name]) / 4)
    same, _ = average_checkpoints([saved, saved])
    for name, tensor in same.state_dict().items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "shares", "told"),
    [
        ({"attention_form": "residual"}, None, "another attention_form than"),
        ({"classes": ("a", "b", "c")}, None, "another classes than"),
        ({"attention_width": 16}, None, "another attention_"),
        ({}, [1], "give each of 2 checkpoints one over 0"),
        ({}, [1, -1], "give each of 2 checkpoints one over 0"),
        ({}, [1, float("inf")], "give each of 2 checkpoints one over 0"),
    ],
)
def test_a_mean_of_other_networks_is_refused(saved, tmp_path, changes, shares, told):
    other = tmp_path / "other.safetensors"
    save_checkpoint(build_detector(tiny_config(**changes)), other)
    with pytest.raises(InputError, match=told):
        average_checkpoints([other, saved], shares)
    with pytest.raises(InputError, match="at least two"):
        average_checkpoints([saved])
