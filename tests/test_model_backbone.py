"""Trunk and conv5: the cut, the freezing, BN folding, and where weights come from."""

from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import Payload, tiny_config
from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from als.checkpoint import build_detector
from als.config import Backbone, ModelConfig
from als.errors import InputError
from als.model.attention import FORMS
from als.model.backbone import BACKBONES, build_backbone
from als.model.frozen_norm import NormedConv2d, apply_in_convolutions, fold_batch_norm

IMAGENET = Path(__file__).parents[2] / "shared" / "weights" / "mobilenet_v2_imagenet.safetensors"


def randomize_batch_norm(module: nn.Module, seed: int = 0) -> None:
    """Statistics as of a trained network, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            size = layer.weight.shape
            layer.running_mean.copy_(0.2 * torch.randn(size, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(size, generator=generator))
            layer.weight.copy_(0.5 + torch.rand(size, generator=generator))
            layer.bias.copy_(0.2 * torch.randn(size, generator=generator))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A torchvision MobileNetV2 with random weights and statistics, and its file (.pth)."""
    torch.manual_seed(1)
    network = models.mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d).eval()
    randomize_batch_norm(network)
    path = tmp_path_factory.mktemp("weights") / "network.pth"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.parametrize(
    ("name", "channels", "vector"),
    [
        *(("mobilenet_v2", 96, 320), ("resnet18", 256, 512), ("resnet34", 256, 512)),
        *(("resnet50", 1024, 2048), ("resnet101", 1024, 2048)),
    ],
)
def test_shapes(name, channels, vector):
    with torch.device("meta"):  # shapes only
        backbone = build_backbone(tiny_config(backbone=name))
        assert backbone.trunk(torch.rand(1, 3, 64, 96)).shape == (1, channels, 4, 6)
        assert backbone.semantic(torch.rand(5, channels, 7, 7)).shape == (5, vector)
    assert (backbone.trunk_channels, backbone.semantic_channels) == (channels, vector)


@pytest.mark.parametrize("fold", [False, True])
def test_weights_of_a_file_give_torchvisions_function(classifier, fold):
    network, path = classifier
    backbone = build_backbone(tiny_config(weights=str(path), fold_batch_norm=fold))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        feature = network.features[:14](image)
        vector = network.features[14:18](feature).mean((2, 3))
        assert feature.std() > 0.05
        torch.testing.assert_close(backbone.trunk(image), feature, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(backbone.semantic(feature), vector, rtol=1e-4, atol=1e-4)


def test_resnet_is_torchvisions_function():
    torch.manual_seed(0)
    backbone = build_backbone(tiny_config(backbone="resnet18", weights=None))
    torch.manual_seed(0)
    network = models.resnet18(weights=None, norm_layer=FrozenBatchNorm2d).eval()
    network.fc = nn.Identity()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        vector = backbone.semantic(backbone.trunk(image))
        torch.testing.assert_close(vector, network(image), rtol=1e-5, atol=1e-5)


def test_a_backbone_of_another_stage_layout_is_one_entry():
    """ConvNeXt-T: stages and the steps between them stand in a row, and it has no BN."""
    torch.manual_seed(0)
    detector = build_detector(tiny_config(backbone="convnext_tiny", separation=False)).eval()
    torch.manual_seed(0)
    network = models.convnext_tiny(weights=None).eval()
    network.classifier[2] = nn.Identity()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        feature = detector.trunk(image)
        assert feature.shape == (1, 384, 4, 6)
        vector = detector.roi_heads.conv5_cls(feature)
        torch.testing.assert_close(vector, network(image), rtol=1e-5, atol=1e-5)
        (found,) = detector.detect(detector.encode([image[0]]), threshold=0.0)
    assert len(found.boxes) and found.logits.shape[1] == 4


def test_the_registries_are_what_the_config_knows():
    assert set(BACKBONES) == set(get_args(Backbone))
    forms = next(f for f in fields(ModelConfig) if f.name == "attention_form")
    assert set(FORMS) == set(get_args(forms.type))


@pytest.mark.skipif(not IMAGENET.is_file(), reason=f"needs the ImageNet weights {IMAGENET.name}")
def test_imagenet_weights_are_really_loaded():
    state = load_file(IMAGENET)
    network = models.mobilenet_v2(weights=None)
    loaded = network.load_state_dict(state, strict=False)
    assert not [name for name in loaded.missing_keys if name.startswith("features.")]
    network.eval()  # BatchNorm with the statistics of ImageNet
    image = torch.rand(2, 3, 96, 64)
    for fold in (False, True):
        backbone = build_backbone(tiny_config(weights=str(IMAGENET), fold_batch_norm=fold))
        with torch.no_grad():
            torch.testing.assert_close(
                backbone.trunk(image), network.features[:14](image), rtol=1e-3, atol=1e-3
            )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_folded_batch_norm_is_the_same_function(name):
    torch.manual_seed(0)
    backbone = build_backbone(tiny_config(backbone=name))
    for part, inputs in (
        (backbone.trunk, torch.rand(1, 3, 64, 64)),
        (backbone.semantic, torch.rand(2, backbone.trunk_channels, 4, 4)),
    ):
        randomize_batch_norm(part)
        folded = deepcopy(part)
        fold_batch_norm(folded)
        assert not any(isinstance(layer, FrozenBatchNorm2d) for layer in folded.modules())
        with torch.no_grad():
            expected = part(inputs)
            found = folded(inputs)
            scale = expected.abs().max()
            torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_convolution_with_its_norm_is_torchvisions_pair(name):
    """Output, gradients and state, also of the second of two copies, as conv5 is copied."""
    torch.manual_seed(0)
    network = getattr(models, name)(weights=None, norm_layer=FrozenBatchNorm2d).double().eval()
    randomize_batch_norm(network)
    normed = deepcopy(network)
    apply_in_convolutions(normed)
    copied = deepcopy(normed)
    randomize_batch_norm(normed, seed=1)  # what one copy holds does not reach the other
    assert {type(m) for m in copied.modules()} & {NormedConv2d, nn.Conv2d} == {NormedConv2d}
    image = torch.rand(2, 3, 64, 64).double()
    found, expected = copied(image), network(image)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    for (name, one), other in zip(copied.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    state = network.state_dict()
    assert list(copied.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in copied.state_dict().items())
    assert not torch.allclose(normed(image), expected)


def test_folded_network_round_trips_through_its_state():
    config = tiny_config(fold_batch_norm=True)
    one, two = build_backbone(config), build_backbone(config)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(one.trunk(image), two.trunk(image))
        two.trunk.load_state_dict(one.trunk.state_dict(), strict=True)
        assert torch.equal(one.trunk(image), two.trunk(image))


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 4), ("mobilenet_v2", 14)])
def test_frozen_blocks_are_the_leading_ones(name, blocks, fold):
    for depth in (0, 2, blocks):
        config = tiny_config(backbone=name, frozen_blocks=depth, fold_batch_norm=fold)
        with torch.device("meta"):
            backbone = build_backbone(config)
        trains = [
            {parameter.requires_grad for parameter in block.parameters()}
            for block in backbone.trunk
        ]
        assert trains == [{False}] * depth + [{True}] * (blocks - depth)
        assert all(parameter.requires_grad for parameter in backbone.semantic.parameters())


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 5), ("mobilenet_v2", 15)])
def test_more_frozen_blocks_than_there_are(name, depth):
    said = f"frozen_blocks {depth}.*choose 0 to {depth - 1}"
    with torch.device("meta"), pytest.raises(InputError, match=said):
        build_backbone(tiny_config(backbone=name, frozen_blocks=depth))


def broken_weights(kind: str, folder: Path, classifier) -> tuple[Path, str]:
    """A file that cannot be used, and what the message must say besides its name."""
    network, path = classifier
    if kind == "missing":
        return folder / "nothing.pth", "no such file"
    if kind in ("text.pth", "text.safetensors"):
        path = folder / kind
        path.write_text("weights, honestly")
        return path, "cannot be read"
    if kind == "list":
        torch.save([torch.zeros(2)], folder / "list.pth")
        return folder / "list.pth", "cannot be read"
    if kind == "pickled module":
        torch.save(nn.Linear(2, 2), folder / "module.pth")
        return folder / "module.pth", "cannot be read"
    if kind == "truncated":
        (folder / "half.pth").write_bytes(path.read_bytes()[:100_000])
        return folder / "half.pth", "cannot be read"
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    said = "features.3.conv.0.0.weight"
    if kind == "shape":
        state[said] = torch.zeros(3, 3)
    else:
        del state[said]
    save_file(state, folder / "odd.safetensors")
    return folder / "odd.safetensors", said


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "text.pth", "text.safetensors", "list", "pickled module", "truncated"),
        *("shape", "lacks a tensor"),
    ],
)
def test_weights_that_cannot_be_used(kind, tmp_path, classifier):
    path, said = broken_weights(kind, tmp_path, classifier)
    with pytest.raises(InputError) as caught:
        build_backbone(tiny_config(weights=str(path)))
    message = str(caught.value)
    assert path.name in message and said in message
    assert "\n" not in message and message.endswith(".")


def test_the_downloaded_weights_are_not_unpickled(tmp_path, monkeypatch, classifier):
    """A file that lies where torch keeps its downloads is taken for one of them."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = models.get_model_weights("mobilenet_v2").DEFAULT
    file = tmp_path / "checkpoints" / Path(weights.url).name
    file.parent.mkdir()
    torch.save(classifier[0].state_dict() | {"extra": Payload(tmp_path / "executed")}, file)
    with pytest.raises(InputError, match="ImageNet weights cannot be had") as caught:
        build_backbone(tiny_config(weights="imagenet"))
    assert not (tmp_path / "executed").exists() and "\n" not in str(caught.value)
    torch.save(classifier[0].state_dict(), file)
    backbone = build_backbone(tiny_config(weights="imagenet"))
    first = classifier[0].features[0][0].weight
    assert torch.equal(backbone.trunk[0][0].weight, first)


@pytest.mark.parametrize(
    ("backbone", "name", "published"),
    [
        ("resnet101", "imagenet", models.ResNet101_Weights.IMAGENET1K_V1),
        ("resnet101", "IMAGENET1K_V2", models.ResNet101_Weights.IMAGENET1K_V2),
        ("resnet18", "imagenet", models.ResNet18_Weights.IMAGENET1K_V1),
        ("mobilenet_v2", "imagenet", models.MobileNet_V2_Weights.IMAGENET1K_V2),
        ("vgg16", "imagenet", models.VGG16_Weights.IMAGENET1K_V1),
    ],
)
def test_weights_by_torchvisions_name(backbone, name, published, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / Path(published.url).name
    file.parent.mkdir()
    torch.save({"of": torch.zeros(1)}, file)  # found by its name, and of another network
    config = tiny_config(backbone=backbone, weights=name, pool_size=7)
    with torch.device("meta"), pytest.raises(InputError, match="tensors of .* are not in the file"):
        build_backbone(config)
    file.unlink()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # nobody answers there
    monkeypatch.setenv("no_proxy", "")
    said = rf"{file.name}: the ImageNet weights cannot be had .* give a local file"
    with torch.device("meta"), pytest.raises(InputError, match=said):
        build_backbone(config)


def test_weights_of_another_network(classifier):
    with pytest.raises(InputError, match="resnet18") as caught:
        build_backbone(tiny_config(backbone="resnet18", weights=str(classifier[1])))
    assert "\n" not in str(caught.value)
