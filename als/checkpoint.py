"""The one builder of the network, and its checkpoints: .safetensors with the config inside."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from als.baselines.rfcn import RFCNDetector
from als.baselines.ssd import SSDDetector
from als.config import Family, ModelConfig
from als.errors import InputError
from als.files import atomic_write
from als.model.backbone import build_backbone
from als.model.detector import Detector
from als.model.interface import AnyDetector

FORMAT = "als-detector-1"
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = WEIGHTS / "compact.safetensors"
BY_NAME = {"shipped": SHIPPED, "animals": WEIGHTS / "compact.safetensors"}
ATTENTION_PREFIXES = ("attention_loc.", "attention_cls.")
# Of the RoI heads: one row (cls_score) or four (bbox_pred) for the background and each class.
ROWS_BY_CLASS = {
    f"roi_heads.{layer}.{part}"
    for layer in ("cls_score", "bbox_pred")
    for part in ("weight", "bias")
}
FAMILIES: dict[Family, type[AnyDetector]] = {
    "als": Detector,
    "rfcn": RFCNDetector,
    "ssd": SSDDetector,
}


def build_detector(config: ModelConfig, pretrained: bool = True) -> AnyDetector:
    """A detector as configured; `pretrained=False` skips the ImageNet weights.

    Raises:
        InputError: no classes, or weights that cannot be used.
    """
    if not config.classes:
        raise InputError("model.classes is empty; name the classes to detect.")
    return FAMILIES[config.family](config, build_backbone(config, pretrained))


def save_checkpoint(
    detector: AnyDetector, path: Path, info: dict | None = None, half: bool = False
) -> None:
    """Write tensors, config and `info` (data, figures, revision) as one .safetensors file.

    The file appears whole or not at all. `half` stores float16 (loading gives float32 back).
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "config": json.dumps(detector.config.to_dict()),
        "info": json.dumps(info or {}),
    }
    with atomic_write(path) as aside:
        save_file(tensors, aside, metadata)


def read_checkpoint(path: str | Path) -> tuple[ModelConfig, dict, dict[str, torch.Tensor]]:
    """(config, info, float32 tensors) of a checkpoint; nothing is unpickled.

    path: a file, or the name of one in the package: "shipped", "animals".

    Raises:
        InputError: missing, truncated, or not a checkpoint of this project.
    """
    path = BY_NAME.get(str(path), Path(path))
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give an ALS .safetensors file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: not an ALS checkpoint; give a file written by `als train`."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({error}).") from error
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    config = ModelConfig.from_dict(json.loads(metadata["config"]))
    return config, json.loads(metadata["info"]), tensors


@torch.inference_mode(False)  # else its tensors could never take a gradient
def load_checkpoint(path: str | Path) -> tuple[AnyDetector, dict]:
    """(detector in evaluation mode on the CPU, info), rebuilt from the file alone."""
    config, info, tensors = read_checkpoint(path)
    detector = build_detector(config, pretrained=False)
    try:
        detector.load_state_dict(tensors, strict=True)
    except RuntimeError as error:  # torch lists every tensor, a line each
        raise InputError(
            f"{path}: its tensors are not those of its own config; the file was altered, copy it "
            "again or use another version of ALS."
        ) from error
    return detector.eval(), info


def load_weights(detector: AnyDetector, path: str | Path) -> list[str]:
    """Start `detector` from a checkpoint: of stage 1, or of other classes to fine-tune from.

    Attention layers may be new. Of the RoI heads a class that both know keeps its rows, by its
    name; other classes start anew.

    Returns:
        Names of the tensors that keep their start values, all of them or some rows.

    Raises:
        InputError: any other tensor is missing, left over or of another shape.
    """
    config, _, tensors = read_checkpoint(path)
    own = detector.state_dict()
    new = sorted(own.keys() - tensors.keys())
    odd = [name for name in new if not name.startswith(ATTENTION_PREFIXES)]
    odd += sorted(tensors.keys() - own.keys())
    if config.classes != detector.config.classes and not odd:
        for name in sorted(tensors.keys() & ROWS_BY_CLASS):
            tensors[name] = _rows_by_class(name, tensors[name], config.classes, detector)
            new.append(name)
    odd += [n for n, t in tensors.items() if n in own and own[n].shape != t.shape]
    if odd:
        raise InputError(
            f"{path}: {len(odd)} tensors do not fit this network, the first is {odd[0]}; "
            "use the same family, backbone, separation and fold_batch_norm (of R-FCN and SSD the "
            "same classes too)."
        )
    detector.load_state_dict(tensors, strict=False)
    return new


def _rows_by_class(
    name: str, rows: torch.Tensor, classes: Sequence[str], detector: AnyDetector
) -> torch.Tensor:
    """The detector's own tensor with the rows of each class (and background) that the file has."""
    own = detector.state_dict()[name].clone()
    own_classes = detector.config.classes
    own_parts = own.unflatten(0, (len(own_classes) + 1, -1))
    parts = rows.unflatten(0, (len(classes) + 1, -1))
    own_parts[0] = parts[0]
    for index, one in enumerate(own_classes, start=1):
        if one in classes:
            own_parts[index] = parts[classes.index(one) + 1]
    return own
