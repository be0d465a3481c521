"""The whole detector as one file for other programs: ONNX, TorchScript or torch.export's pt2.

The file takes one image, float32 [3, H, W] in 0..1 RGB, of the size that it was made for, and gives
what `OUTPUTS` names. Resizing to the network's own size and NMS are inside.
"""

import io
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from als.errors import InputError
from als.files import atomic_write
from als.images import as_rgb
from als.model import AnyDetector, Detector
from als.model.frozen_norm import fold_batch_norm
from als.model.grid import enlarge
from als.photographs import package_photographs

FORMATS = ("onnx", "torchscript", "pt2")
OUTPUTS = ("boxes", "labels", "scores", "localization_map", "classification_map")
SIDES = (32, 4096)  # least and most pixels of an image's side; no more than `photo_of` leaves
TOLERANCE = 1e-3  # pixels of boxes, and scores and map values in 0..1


class WholeDetector(nn.Module):
    """One image of a fixed size -> what `OUTPUTS` names.

    boxes [K, 4] xyxy, pixels of the image given; labels [K], 1 to C; scores [K], descending; both
    maps [H, W], raw, only of a model with attention.

    Args:
        size: (height, width) in pixels of the images that will come.
    """

    def __init__(self, detector: Detector, size: tuple[int, int]):
        super().__init__()
        self.detector = detector
        self.size = size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        encoding = self.detector.encode([image])
        (found,) = self.detector.detect(encoding)
        outputs = (found.boxes, found.labels, found.scores)
        if encoding.a_loc is None:
            return outputs
        maps = (encoding.a_loc, encoding.a_cls)
        return (*outputs, *(enlarge(grid, encoding, self.size)[0] for grid in maps))


def export(detector: AnyDetector, path: Path, format: str, size: tuple[int, int]) -> float:
    """Write the detector to `path`, checked; returns the largest difference to eager PyTorch.

    The file is run on photographs of scikit-image before it gets its name: it must find the same
    detections, with boxes, scores and maps within `TOLERANCE`.

    Args:
        detector: left as it is; a copy goes to the CPU.
        format: one of `FORMATS`. size: (height, width) in pixels of the images that will come.

    Raises:
        InputError: unknown format, a size out of `SIDES`, a family that cannot be exported, a
            package is missing, or the file does not agree with the detector.
    """
    if format not in FORMATS:
        raise InputError(f"format '{format}' is unknown; choose one of {', '.join(FORMATS)}.")
    if detector.config.family != "als":
        raise InputError(
            f"a model of family {detector.config.family} cannot be exported; give one of family "
            "als (with or without its two parts)."
        )
    longest = min(SIDES[1], 2 * detector.config.max_size)
    if not all(SIDES[0] <= side <= longest for side in size):
        raise InputError(
            f"size {size[0]} {size[1]}: give sides of {SIDES[0]} to {longest} pixels; larger "
            "photographs are to be averaged down before, as `als predict` does by itself."
        )
    if format == "onnx":
        import_onnx()
    copy = deepcopy(detector).eval().to("cpu", memory_format=torch.contiguous_format)
    fold_batch_norm(copy)  # the same function, in fewer steps
    whole = WholeDetector(copy, size).requires_grad_(False)
    with atomic_write(path) as aside:
        _write(whole, aside, format)
        difference = check(copy, aside, format, size)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{path}: the exported model differs from the detector by {difference:.2g}, more "
                f"than {TOLERANCE:g}, and was not kept; try another format."
            )
    return difference


@torch.no_grad()
def _write(whole: WholeDetector, path: Path, format: str) -> None:
    image = photographs(whole.size)[0]
    with warnings.catch_warnings():
        # Sizes become constants, as they are meant to; TorchScript is asked for by name.
        warnings.simplefilter("ignore")
        if format == "torchscript":
            traced = torch.jit.trace(whole, (image,), check_trace=False)
            _write_through(torch.jit.save, traced, path)
            return
        program = torch.export.export(whole, (image,), strict=False)
        if format == "pt2":
            _write_through(torch.export.save, program, path)
            return
        names = OUTPUTS if whole.detector.config.attention else OUTPUTS[:3]
        torch.onnx.export(
            program,
            f=path,
            input_names=["image"],
            output_names=list(names),
            external_data=False,  # one file
            verbose=False,
        )


def _write_through(save: Callable, model, path: Path) -> None:
    """torch's own writer of files takes one ending only, and of a full disk does not say so."""
    buffer = io.BytesIO()
    save(model, buffer)
    path.write_bytes(buffer.getbuffer())


def runner(path: Path, format: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The exported file as a function: image [3, H, W] -> the tensors that `OUTPUTS` names.

    Raises InputError if the format's packages are not installed.
    """
    if format == "torchscript":
        with warnings.catch_warnings():  # that pt2 is the newer format
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(path)
    if format == "pt2":
        with Path(path).open("rb") as file:  # of a name, it wants a certain ending
            return torch.export.load(file).module()
    options = import_onnx().SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = import_onnx().InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: tuple(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))


@torch.no_grad()
def check(detector: Detector, path: Path, format: str, size: tuple[int, int]) -> float:
    """Largest difference of an exported file to its detector on `photographs`; inf where it finds
    another number of objects or other classes. Boxes count in pixels."""
    whole, run, differences = WholeDetector(detector, size), runner(path, format), [0.0]
    for image in photographs(size):
        for ours, theirs in zip(whole(image), run(image), strict=True):
            if ours.shape != theirs.shape:
                return float("inf")
            if ours.dtype == torch.int64 and not torch.equal(ours, theirs):
                return float("inf")
            differences.append(float((ours - theirs).abs().max()) if ours.numel() else 0.0)
    return float(np.max(differences))  # NaN if there is one


def photographs(size: tuple[int, int]) -> list[Tensor]:
    """Photographs of scikit-image, float32 [3, H, W] in 0..1, resized to (height, width)."""
    return [to_tensor(as_rgb(path).resize(size[::-1])) for path in package_photographs()]


def import_onnx():
    """onnxruntime. Raises InputError if it or the packages that write ONNX are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            "ONNX needs three packages; run `pip install onnx onnxruntime onnxscript`."
        ) from error
    return onnxruntime
