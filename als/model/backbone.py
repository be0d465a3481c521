"""Trunk (conv1 to conv4, shared) and semantic layers (conv5, one a task) of torchvision networks.

Paper, section 2: 'the conv1~conv4 and conv5 of ResNet-101 are used as less semantics layers and
semantics layers'. In MobileNetV2 features 0 to 13 (stride 16) are the trunk, 14 to 17 are conv5.
In VGG16, as Faster R-CNN uses it, conv1 to conv5_3 are the trunk and fc6, fc7 take conv5's part.
A network more is an entry of `BACKBONES` and its name in `als.config.Backbone`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from als.config import ModelConfig
from als.errors import InputError
from als.model.frozen_norm import apply_in_convolutions, fold_batch_norm

STRIDE = 16  # pixels of the input a cell of the conv4 feature, for every backbone here


@dataclass
class Backbone:
    """The parts of a classification network that the detector is assembled from.

    trunk: image [B, 3, H, W] -> feature F [B, trunk_channels, H / 16, W / 16].
    semantic: RoI feature [R, trunk_channels, P, P] -> vector [R, semantic_channels]; copy it for
    each task. Its first module ends with the last feature that has height and width.
    """

    trunk: nn.Sequential
    semantic: nn.Sequential
    trunk_channels: int
    semantic_channels: int


def build_backbone(config: ModelConfig, pretrained: bool = True) -> Backbone:
    """Cut the network of `config.backbone` into trunk and conv5, frozen and folded as configured.

    Args:
        pretrained: load `config.weights`; False where a checkpoint replaces every tensor anyway.

    Raises:
        InputError: the weights' file is missing, unreadable or of another network.
    """
    entry = BACKBONES[config.backbone]
    norm = {"norm_layer": FrozenBatchNorm2d} if entry.batch_norm else {}
    network = getattr(models, config.backbone)(weights=None, **norm)
    if pretrained and config.weights is not None:
        _load_classifier_weights(network, config)
    backbone = entry.cut(network)
    if config.frozen_blocks > len(backbone.trunk):
        raise InputError(
            f"frozen_blocks {config.frozen_blocks}: the trunk of {config.backbone} has "
            f"{len(backbone.trunk)} blocks; choose 0 to {len(backbone.trunk)}."
        )
    join_norm = fold_batch_norm if config.fold_batch_norm else apply_in_convolutions
    join_norm(backbone.trunk)
    join_norm(backbone.semantic)
    backbone.trunk[: config.frozen_blocks].requires_grad_(False)
    return backbone


def _cut_resnet(network: models.ResNet) -> Backbone:
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    trunk = nn.Sequential(stem, network.layer1, network.layer2, network.layer3)
    semantic = nn.Sequential(network.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone(trunk, semantic, network.fc.in_features // 2, network.fc.in_features)


def _cut_mobilenet(network: models.MobileNetV2) -> Backbone:
    """Features 0 to 13 are the trunk, 14 to 17 conv5; 18 widens for the classifier alone."""
    trunk, layers = network.features[:14], network.features[14:18]
    semantic = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Backbone(trunk, semantic, trunk[-1].out_channels, layers[-1].out_channels)


def _cut_convnext(network: models.ConvNeXt) -> Backbone:
    """The last stage and the step down to it are conv5, with the classifier's normalisation."""
    trunk, layers = network.features[:6], network.features[6:]
    norm, _, classifier = network.classifier
    semantic = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), norm, nn.Flatten())
    return Backbone(trunk, semantic, classifier.in_features // 2, classifier.in_features)


def cut_vgg(network: models.VGG) -> Backbone:
    """conv1 to conv5 with the pooling after each but the last; fc6, fc7 with their dropout."""
    blocks: list[list[nn.Module]] = [[]]
    for layer in network.features[:-1]:
        blocks[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
    trunk = nn.Sequential(*(nn.Sequential(*block) for block in blocks))
    # Dropout is off in evaluation; the last of the seven layers is ImageNet's classifier.
    semantic = nn.Sequential(nn.Identity(), nn.Flatten(), *network.classifier[:6])
    channels = [layer.out_channels for layer in trunk[-1] if isinstance(layer, nn.Conv2d)]
    return Backbone(trunk, semantic, channels[-1], network.classifier[3].out_features)


@dataclass(frozen=True)
class BackboneEntry:
    """What is to be known of a torchvision network.

    cut: the network -> trunk of stride 16 and conv5.
    unused: beginnings of the names of tensors that are not needed: the classifier.
    batch_norm: whether it has batch normalisation, which is frozen.
    """

    cut: Callable[[Any], Backbone]
    unused: tuple[str, ...]
    batch_norm: bool = True


_RESNET = BackboneEntry(_cut_resnet, ("fc.",))
# By the name of torchvision's builder; `als.config.Backbone` lists the names.
BACKBONES: dict[str, BackboneEntry] = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "mobilenet_v2": BackboneEntry(_cut_mobilenet, ("classifier.", "features.18.")),
    "vgg16": BackboneEntry(cut_vgg, ("classifier.6.",), batch_norm=False),
    "convnext_tiny": BackboneEntry(_cut_convnext, ("classifier.2.",), batch_norm=False),
}


def _load_classifier_weights(network: nn.Module, config: ModelConfig) -> None:
    """Fill the network from torchvision's ImageNet weights or a local file with the same keys."""
    published = _published(config)
    if published is not None:
        state = _download(published)
    else:
        state = _read_tensors(Path(config.weights))
    # Batch counters, which the file may have, do not exist in a frozen BN.
    unused = BACKBONES[config.backbone].unused
    wanted = {
        name: tensor for name, tensor in network.state_dict().items() if not name.startswith(unused)
    }
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise InputError(
            f"{config.weights}: {len(missing)} tensors of {config.backbone} are not in the file, "
            f"the first is {missing[0]}; give a file with torchvision's keys."
        )
    wrong = [name for name, tensor in wanted.items() if tensor.shape != state[name].shape]
    if wrong:
        raise InputError(
            f"{config.weights}: tensor {wrong[0]} has shape {tuple(state[wrong[0]].shape)}, "
            f"{config.backbone} needs {tuple(wanted[wrong[0]].shape)}."
        )
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _published(config: ModelConfig) -> models.WeightsEnum | None:
    """The weights of torchvision that `config.weights` names; None where it is a file."""
    name = config.weights
    if name == "imagenet":
        # Of ResNet the first: the rates of the public detection recipes were found with such.
        name = "IMAGENET1K_V1" if config.backbone.startswith("resnet") else "DEFAULT"
    return models.get_model_weights(config.backbone).__members__.get(name)


def _download(weights: models.WeightsEnum) -> dict[str, torch.Tensor]:
    """torchvision's ImageNet weights, from torch's cache or the net; they are not unpickled."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:  # no net, wrong hash, damaged
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{weights.url}: the ImageNet weights cannot be had ({reason}); remove the file from "
            f"{torch.hub.get_dir()}/checkpoints if it is there, or give a local file as `weights`."
        ) from error


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; `weights` is 'imagenet', a name of torchvision's as "
            "IMAGENET1K_V1, a .safetensors or .pth file, or null."
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # either library raises its own types for a broken file
        state, reason = None, type(error).__name__
    else:
        reason = type(state).__name__
    if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); give a .safetensors file, or a .pth "
            "file that holds a state dict of tensors."
        )
    return state
