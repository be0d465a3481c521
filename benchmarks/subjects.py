"""What is measured: ALS and the Faster R-CNN of the same trunk and head, and photographs.

"compact" is the checkpoint that ships; its Faster R-CNN takes over every weight that it has a
place for. "resnet50" is the paper's kind of network with random weights. Random scores are all
alike or all extreme, so its last layers are scaled until maps, boxes and scores vary as trained
ones do and a stated share of the proposals passes the threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from als.checkpoint import build_detector, read_checkpoint
from als.config import ModelConfig
from als.images import as_rgb
from als.inference import SHIPPED
from als.model import Detector
from als.photographs import package_photographs
from benchmarks.twin import torchvision_twin

ENLIVENED = 50  # proposals, evenly by rank, that set the scale of a random network
SHARE = 0.35  # of the proposals of a random network that pass the score threshold
# A photograph is as large as the network's own size: 384 x 512 pixels.
COMPACT = {"rpn_pre_nms_test": 6000}  # so that 300 proposals are left after NMS
RESNET50 = ModelConfig(
    classes=tuple(f"class {i}" for i in range(1, 21)),
    backbone="resnet50",
    weights=None,
    min_size=600,
    max_size=800,
    rois_per_image=64,  # a training step takes long enough
)
# --quick: only to see that everything runs.
QUICK = {"min_size": 64, "max_size": 96, "rpn_post_nms_test": 20, "rpn_post_nms_train": 40}
QUICK_RESNET = QUICK | {"backbone": "resnet18", "attention_width": 16, "pool_size": 4}


@dataclass(frozen=True)
class Setting:
    """device: "cpu" or "cuda". quick: the smallest shapes and one round, to try the code."""

    device: str = "cpu"
    quick: bool = False

    def few(self, count: int) -> int:
        """Rounds, photographs or copies: as many as given, or one."""
        return 1 if self.quick else count


@dataclass
class Subject:
    """als, and base, the same with both parts off: Faster R-CNN; twin is torchvision's of base.

    photos: uint8 [H, W, 3], of the size at which the network works. rounds: of its measurements.
    slow: a call takes seconds, so that the first costs little more than the others.
    """

    name: str
    als: Detector
    base: Detector
    twin: FasterRCNN
    photos: list[np.ndarray]
    rounds: int
    slow: bool
    device: str

    @property
    def tensors(self) -> list[Tensor]:
        """float32 [3, H, W] in 0..1."""
        return [as_tensor(photo).to(self.device) for photo in self.photos]


def build(name: str, setting: Setting) -> Subject:
    """The subject "compact" or "resnet50", in evaluation mode on the setting's device."""
    detectors = {side: build_side(name, side, setting) for side in ("als", "frcnn")}
    count, rounds = (4, 5) if name == "compact" else (1, 3)  # detections of ResNet-50 take seconds
    config = detectors["als"].config
    return Subject(
        name,
        detectors["als"],
        detectors["frcnn"],
        torchvision_twin(detectors["frcnn"]).eval(),
        photographs((config.min_size, config.max_size), setting.few(count)),
        setting.few(rounds),
        name != "compact",
        setting.device,
    )


def build_side(name: str, side: str, setting: Setting) -> Detector:
    """One detector alone: side "als", or "frcnn" for the same without both parts."""
    off = {} if side == "als" else {"attention": False, "separation": False}
    if name == "compact":
        config, _, weights = read_checkpoint(SHIPPED)
        config = replace(config, **COMPACT, **off, **(QUICK if setting.quick else {}))
        detector = build_detector(config, pretrained=False)
        detector.load_state_dict({key: weights[key] for key in detector.state_dict()})
    else:
        torch.manual_seed(0)
        changes = QUICK_RESNET if setting.quick else {}
        detector = build_detector(replace(RESNET50, **off, **changes))
    detector = detector.eval().to(setting.device, memory_format=torch.channels_last)
    if name != "compact":
        config = detector.config
        photo = photographs((config.min_size, config.max_size), 1)[0]
        enliven(detector, as_tensor(photo).to(setting.device))
    return detector


def photographs(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """The first `count` photographs, uint8 [H, W, 3], resized to (height, width)."""
    chosen = package_photographs()[:count]
    sized = (as_rgb(path).resize((size[1], size[0])) for path in chosen)
    return [np.array(photo) for photo in sized]


def as_tensor(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1).float() / 255


@torch.no_grad()
def enliven(detector: Detector, image: Tensor, share: float = SHARE) -> None:
    """Scale the last layers of a random network, in place, on one image [3, H, W].

    Each of their outputs gets mean 0 and a spread near a trained network's; then the background's
    bias is set so that `share` of the proposals has a class over the score threshold.
    """
    encoding, heads, head = detector.encode([image]), detector.roi_heads, detector.rpn.head
    if detector.config.attention:
        _standardize(detector.attention_loc[4], lambda: detector.attention_loc(encoding.f), 1.5)
        detector.attend(encoding)
        _standardize(detector.attention_cls[4], lambda: detector.attention_cls(encoding.f_loc), 1.5)
        detector.attend(encoding)
    f_loc, f_cls = encoding.f_loc, encoding.f_cls
    _standardize(head.cls_logits, lambda: head([f_loc])[0][0], 1.0)
    _standardize(head.bbox_pred, lambda: head([f_loc])[1][0], 0.3)
    rois = detector.propose(encoding)[0]
    rois = [rois[:: max(1, len(rois) // ENLIVENED)]]
    _standardize(heads.cls_score, lambda: heads.classify(f_cls, rois)[0], 1.5)
    _standardize(heads.bbox_pred, lambda: heads.localize(f_loc, rois), 0.7)
    logits = heads.classify(f_cls, rois)[0]
    # A proposal passes while exp(background + shift) is below best / threshold - all classes.
    classes = logits[:, 1:].exp()
    room = classes.amax(1) / detector.config.score_threshold - classes.sum(1)
    shifts = room.clamp(min=1e-12).log() - logits[:, 0]
    heads.cls_score.bias[0] += shifts.quantile(1 - share)


def _standardize(layer: nn.Module, outputs: Callable[[], Tensor], spread: float) -> None:
    """Give each output of a last layer mean 0 and this standard deviation."""
    values = outputs().transpose(0, 1).flatten(1)  # [channels, places or RoIs]
    scale = spread / values.std(1)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.mul_(scale)
    layer.bias.sub_(outputs().transpose(0, 1).flatten(1).mean(1))
