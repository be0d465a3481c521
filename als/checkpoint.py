"""The one builder of the network, and its checkpoints: .safetensors with the config inside."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from als.baselines.led import LEDDetector
from als.baselines.mrcnn import MRCNNDetector
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
SHIPPED = WEIGHTS / "animals-parts.safetensors"
BY_NAME = {
    "shipped": SHIPPED,
    "animals-parts": SHIPPED,
    "animals": WEIGHTS / "compact.safetensors",
    "twenty": WEIGHTS / "twenty.safetensors",
}
ATTENTION_PREFIXES = ("attention_loc.", "attention_cls.")
# Of the RoI heads: one row (cls_score) or four (bbox_pred) for the background and each class.
ROWS_BY_CLASS = {
    f"roi_heads.{layer}.{part}"
    for layer in ("cls_score", "bbox_pred")
    for part in ("weight", "bias")
}
# Outputs of the RPN and the RoI heads, of R-FCN, of SSD, and after LED.
IN_FLOAT32 = {"cls_logits", "cls_score", "bbox_pred", "score_maps", "box_maps"}
IN_FLOAT32 |= {"classification_head", "regression_head", "quality_head"}
# The features, in whose type anchors are made.
IN_FLOAT32 |= {"trunk", "attention_loc", "attention_cls"}
# Options that must agree before weights are averaged; shapes tell the others.
OF_WEIGHTS = ("classes", "family", "backbone", "attention", "separation", "attention_cls_biased")
OF_WEIGHTS += ("attention_form", "attention_source", "fold_batch_norm", "pool", "pool_size")
OF_WEIGHTS += ("anchor_sizes", "anchor_ratios")
FAMILIES: dict[Family, type[AnyDetector]] = {
    "als": Detector,
    "rfcn": RFCNDetector,
    "mrcnn": MRCNNDetector,
    "ssd": SSDDetector,
    "led": LEDDetector,
}


def build_detector(config: ModelConfig, pretrained: bool = True) -> AnyDetector:
    """A detector as configured; `pretrained=False` skips the ImageNet weights.

    Raises:
        InputError: no classes, or weights that cannot be used.
    """
    if not config.classes:
        raise InputError("model.classes is empty; name the classes to detect.")
    detector = FAMILIES[config.family](config, build_backbone(config, pretrained))
    _give_float32(detector)
    return detector


def _give_float32(detector: nn.Module) -> None:
    """Under autocast too scores, box deltas and features leave their layers in float32.

    torchvision decodes boxes in the type of the deltas and makes anchors in that of the features:
    in bfloat16 a box at 500 pixels could only lie on every second pixel.
    """
    for name, part in detector.named_modules():
        if name.rpartition(".")[2] in IN_FLOAT32:
            part.register_forward_hook(_in_float32)


def _in_float32(layer: nn.Module, inputs, output: torch.Tensor) -> torch.Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))


def save_checkpoint(
    detector: AnyDetector, path: Path, info: dict | None = None, half: bool = False
) -> None:
    """Write tensors, config and `info` (data, figures, revision) as one .safetensors file.

    The file appears whole or not at all. `half` stores float16 (loading gives float32 back), but
    not a tensor with a value over its 65,504.
    """
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    if half:
        halved = {name: t.half() for name, t in tensors.items() if t.is_floating_point()}
        tensors |= {name: t for name, t in halved.items() if t.isfinite().all()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(detector.config.to_dict()),
        "info": json.dumps(info or {}),
    }
    with atomic_write(path, durable=True) as aside:
        save_file(tensors, aside, metadata)


class _WithoutInit(TorchFunctionMode):
    """What is random at the start of a network is left out; torch has no such switch."""

    def __torch_function__(self, func, types, args: tuple[Any, ...] = (), kwargs=None):
        kwargs = kwargs or {}
        draws = func.__name__ in ("normal_", "uniform_")
        if draws or getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def empty_detector(config: ModelConfig) -> AnyDetector:
    """The network as configured, on torch's meta device: shapes without memory.

    With `load_state_dict(..., assign=True)` it is the whole detector: what is no tensor of the
    state, as anchors, is made on the CPU.
    """
    with torch.device("meta"), _WithoutInit():
        return build_detector(config, pretrained=False)


def read_checkpoint(path: str | Path) -> tuple[AnyDetector, dict, dict[str, torch.Tensor]]:
    """(empty detector of its config, info, float32 tensors) of a checkpoint; nothing is unpickled.

    A few bytes of config can ask for any memory, so the tensors are read once the file's head says
    that they are those of the config's network.

    path: a file, or a name of `BY_NAME`, in the package.

    Raises:
        InputError: missing, truncated, altered, not finite, or not a checkpoint of this project.
    """
    path = BY_NAME.get(str(path), Path(path))
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such checkpoint; give an ALS .safetensors file.")
        with path.open("rb"):  # safetensors says of each failure that there is no such file
            pass
        with safe_open(path, framework="pt") as file:
            detector, info = _read_metadata(path, file.metadata() or {})
            _compare_shapes(path, detector, file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror}); mend its mode.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({error}).") from error
    tensors = {  # copies: the file may be written over
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(
            f"{path}: its weights are not finite, the first in {broken[0]}; train again with a "
            "lower rate, or copy the file again."
        )
    return detector, info, tensors


def _read_metadata(path: Path, metadata: dict[str, str]) -> tuple[AnyDetector, dict]:
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: not an ALS checkpoint; give a file written by `als train`.")
    try:
        config, info = (json.loads(metadata[name]) for name in ("config", "info"))
        if not isinstance(info, dict):
            raise ValueError("info is no object")
        return empty_detector(ModelConfig.from_dict(config)), info
    except (KeyError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise InputError(
            f"{path}: its config or info is missing or no JSON ({reason}); copy the file again."
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _compare_shapes(path: Path, detector: AnyDetector, file) -> None:
    """Raise InputError unless the tensors in the file's head are those of the detector."""
    network = detector.state_dict()
    there = {}
    for name in file.keys():
        head = file.get_slice(name)
        there[name] = (head.get_shape(), head.get_dtype().startswith(("F", "BF")))
    wanted = {name: (list(t.shape), t.is_floating_point()) for name, t in network.items()}
    odd = sorted(name for name in {**there, **wanted} if there.get(name) != wanted.get(name))
    if odd:
        raise InputError(
            f"{path}: its tensors are not those of its own config, the first is {odd[0][:100]}; "
            "the file was altered, copy it again or use another version of ALS."
        )


@torch.inference_mode(False)  # else its tensors could never take a gradient
def load_checkpoint(path: str | Path) -> tuple[AnyDetector, dict]:
    """(detector in evaluation mode on the CPU, info), rebuilt from the file alone.

    Raises InputError as `read_checkpoint` does.
    """
    detector, info, tensors = read_checkpoint(path)
    detector.load_state_dict(tensors, strict=True, assign=True)
    return detector.eval(), info


def weights_digest(detector: AnyDetector) -> str:
    """16 hex digits that tell the weights from any others."""
    digest = hashlib.sha256()
    for tensor in detector.state_dict().values():
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def average_checkpoints(
    paths: Sequence[str | Path], shares: Sequence[float] | None = None
) -> tuple[AnyDetector, dict]:
    """The last checkpoint (detector, info) with the mean of all their weights, a model soup.

    Of one training, or of trainings that began at one checkpoint (Wortsman et al. 2022); the mean
    of others detects nothing. `info` says of which files, not how they were calibrated or judged.

    shares: how much each counts, in any unit; by default all count alike.

    Raises:
        InputError: as `read_checkpoint`, less than two files, a share that is not positive, or
            other networks.
    """
    if len(paths) < 2:
        raise InputError("average: give at least two checkpoints.")
    shares = [1.0] * len(paths) if shares is None else shares
    if len(shares) != len(paths) or not all(0 < share < math.inf for share in shares):
        raise InputError(f"shares {shares}: give each of {len(paths)} checkpoints one over 0.")
    detector, info = load_checkpoint(paths[-1])
    mean = {
        name: torch.zeros_like(t, dtype=torch.float64) for name, t in detector.state_dict().items()
    }
    for path, share in zip(paths, shares, strict=True):
        other, _, tensors = read_checkpoint(path)
        odd = [n for n in OF_WEIGHTS if getattr(other.config, n) != getattr(detector.config, n)]
        odd += [n for n in mean if n not in tensors or tensors[n].shape != mean[n].shape]
        if odd:
            raise InputError(f"{path}: has another {odd[0]} than {paths[-1]}; average one network.")
        for name, tensor in tensors.items():
            mean[name] += tensor.double() * (share / sum(shares))
    detector.load_state_dict(mean)
    averaged = [[str(path), share] for path, share in zip(paths, shares, strict=True)]
    kept = {n: v for n, v in info.items() if n not in ("calibration", "figures")}  # not its own
    return detector, kept | {"averaged": averaged}


def load_weights(detector: AnyDetector, path: str | Path) -> list[str]:
    """Start `detector` from a checkpoint: of stage 1, or of other classes to fine-tune from.

    Attention layers may be new; those of another form of attention start anew, since a map that
    multiplies a feature does not add to one. Of a network without separation both branches start
    from its one conv5. Of the RoI heads a class that both know keeps its rows, by its name; other
    classes start anew. Families other than als keep their classes.

    Returns:
        Names of the tensors that keep their start values, all of them or some rows.

    Raises:
        InputError: any other tensor is missing, left over or of another shape, or a family other
            than als has other classes.
    """
    start, _, tensors = read_checkpoint(path)
    classes = tuple(start.config.classes)
    own = detector.state_dict()
    wanted = detector.config
    if wanted.attention and start.config.attention_form != wanted.attention_form:
        tensors = {n: t for n, t in tensors.items() if not n.startswith(ATTENTION_PREFIXES)}
    if wanted.separation and not start.config.separation:
        conv5 = {n: t for n, t in tensors.items() if n.startswith("roi_heads.conv5_cls.")}
        tensors |= {n.replace("conv5_cls", "conv5_loc"): t for n, t in conv5.items()}
    new = sorted(own.keys() - tensors.keys())
    odd = [name for name in new if not name.startswith(ATTENTION_PREFIXES)]
    odd += sorted(tensors.keys() - own.keys())
    if classes != wanted.classes and not odd:
        if wanted.family != "als":  # where its rows of a class lie is not known
            raise InputError(
                f"{path}: its classes are {', '.join(classes)[:200]}; family {wanted.family} "
                "starts only from a checkpoint of the same classes in the same order."
            )
        for name in sorted(tensors.keys() & ROWS_BY_CLASS):
            tensors[name] = _rows_by_class(name, tensors[name], classes, detector)
            new.append(name)
    odd += [n for n, t in tensors.items() if n in own and own[n].shape != t.shape]
    if odd:
        raise InputError(
            f"{path}: {len(odd)} tensors do not fit this network, the first is {odd[0]}; "
            "use the same family, backbone and fold_batch_norm; the same separation or a start "
            "without it; the same attention_width and attention_cls_biased or a start without "
            "attention."
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
