"""What A_loc learns from true masks, GrabCut's, filled boxes and a loss of boxes alone."""

import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from als.checkpoint import FAMILIES, load_checkpoint
from als.config import CONFIGS
from als.data.derived_masks import derive_masks
from als.data.layouts import load_records
from als.data.masks import fill
from als.errors import InputError
from als.evaluation.evaluate import evaluate
from als.model.backbone import STRIDE
from als.model.detector import Detector, Encoding
from als.tables.stage_config import read_config
from als.training.train import train
from benchmarks.recording import options, save

FIGURES = ("AP50_area", "AP75", "AP")


def mask_sources(arguments: list[str]) -> None:
    """Stage 1 once, then stage 2 from each kind of mask; A_loc and AP on val, with true masks.

    Goes on where it was broken off: what has a checkpoint is not trained again.
    """
    parser = options(mask_sources, "results/mask_sources.json")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds VOC2012")
    first = parser.add_mutually_exclusive_group(required=True)
    first.add_argument("--weights", help="ImageNet weights, of stage 1")
    first.add_argument("--start", type=Path, help="a stage 1, which is then not trained here")
    parser.add_argument("--runs", type=Path, default=Path("runs/mask-sources"))
    parser.add_argument("--photographs", type=int, default=1000, help="of stage 2, drawn by chance")
    parser.add_argument("--stage2", default="compact-stage2", help="its config")
    parser.add_argument("--epochs", type=int, nargs=2, default=(3, 2), help="of stage 1, 2")
    parser.add_argument("--only", choices=list(SOURCES), nargs="+", default=list(SOURCES))
    given = parser.parse_args(arguments)
    stage1, stage2 = given.epochs
    data = {"data.train": "VOC2012:train", "data.workers": 0}
    options1 = {"data.root": str(given.root), "model.weights": given.weights, "epochs": stage1}
    start = given.start or _trained("compact-stage1", given.runs / "stage1", data | options1)
    records = []
    for name in given.only:
        has_masks, family = SOURCES[name]
        root = given.runs / "data" / f"{name.replace(' ', '-')}-{given.photographs}"
        _make_data(given.root, root, given.photographs, has_masks)
        changes = data | {"data.root": str(root), "epochs": stage2, "start_from": str(start)}
        with patch.dict(FAMILIES, als=family):
            checkpoint = _trained(given.stage2, given.runs / root.name, changes)
        records.append(_judged(name, checkpoint, given.root))
        print(records[-1], flush=True)
    told = {"train": "VOC2012:train", "photographs": given.photographs, "val": "VOC2012:val"}
    told |= {"stage2": given.stage2, "start": None if given.start is None else str(given.start)}
    save(given.out, {"data": told, "epochs": given.epochs, "sources": records})


def _trained(config: str, out: Path, changes: dict) -> Path:
    """The checkpoint of a run of a config: trained, or gone on with where it is the same one."""
    run = read_config(CONFIGS / f"{config}.yaml", changes | {"out": str(out)})
    return train(run, resume=True, enable_progress_bar=False)


def _make_data(source: Path, root: Path, photographs: int, has_masks: bool | None) -> None:
    """A folder VOC2012 of linked photographs, with true masks, none, or derived ones."""
    folder, voc = root / "VOC2012", (source / "VOC2012").resolve()
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    linked = ["JPEGImages", "Annotations"] + (["SegmentationClass"] if has_masks else [])
    for name in linked:
        if not (folder / name).exists():
            (folder / name).symlink_to(voc / name)
    ids = (voc / "ImageSets" / "Main" / "train.txt").read_text().split()
    if len(ids) < photographs:
        raise InputError(f"{voc}: train has {len(ids)} photographs; lower --photographs.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(ids))[:photographs])
    (lists / "train.txt").write_text("".join(f"{ids[index]}\n" for index in chosen))
    if has_masks is None:
        derive_masks(folder, ["train"])


def _judged(name: str, checkpoint: Path, root: Path) -> dict:
    """Figures of detections and of A_loc on VOC2012:val, and how it was trained."""
    detector, info = load_checkpoint(checkpoint)
    records = load_records("VOC2012:val", root, detector.config.classes)
    told = evaluate(detector, records, workers=0, progress=False)
    maps = {key: value for key, value in told["maps"].items() if key.startswith("loc_")}
    figures = {key: told["metrics"][key] for key in FIGURES}
    return {"name": name} | figures | maps | {"training": info}


class TaughtByFilledBoxes(Detector):
    """A_loc learns that whatever lies in a box is object."""

    def losses(self, encoding: Encoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Equation 1's terms, the object maps being filled boxes."""
        sizes = encoding.images.image_sizes
        filled = [
            torch.from_numpy(fill(target["boxes"].numpy(), size).astype(np.uint8))
            for target, size in zip(targets, sizes, strict=True)
        ]
        given = [t | {"object_map": one} for t, one in zip(targets, filled, strict=True)]
        return super().losses(encoding, given)


class TaughtByProjections(Detector):
    """A_loc learns from boxes alone, after BoxInst's projection term (Tian et al. 2021, eq. 2)."""

    def losses(self, encoding: Encoding, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Equation 1's terms, with loss_att by `projection_loss`."""
        losses = super().losses(encoding, targets)
        if encoding.loc_logits is not None:
            boxes = [target["boxes"] for target in targets]
            sizes = encoding.images.image_sizes
            losses["loss_att"] = projection_loss(encoding.loc_logits, boxes, sizes)
        return losses


def projection_loss(
    logits: Tensor, boxes: list[Tensor], image_sizes: list[tuple[int, int]]
) -> Tensor:
    """Outside all boxes A is 0; inside one, the highest A of each row and of each column is 1.

    The mean cross-entropy of the one plus that of the other, of a batch. BoxInst's term compares
    projections of one object; A_loc shows the union of all, so that what lies in no box stands for
    its zeros. Its term of pairs of pixels is left out: a cell is 16 pixels wide.

    logits: [B, 1, h, w]. boxes: of each image [N, 4] xyxy, pixels of the network's image.
    image_sizes: (height, width) of each image inside the batch; cells of the padding do not count.
    """
    zeros, ones = [], []
    for logit, found, (height, width) in zip(logits[:, 0], boxes, image_sizes, strict=True):
        rows, columns = math.ceil(height / STRIDE), math.ceil(width / STRIDE)
        logit = logit[:rows, :columns]
        outside = torch.ones_like(logit, dtype=torch.bool)
        low = (found[:, :2] / STRIDE).floor().long().tolist()
        high = (found[:, 2:] / STRIDE).ceil().long().tolist()
        for (x1, y1), (x2, y2) in zip(low, high, strict=True):
            outside[y1:y2, x1:x2] = False
            inside = logit[y1:y2, x1:x2]
            if inside.numel():
                ones += [inside.amax(0), inside.amax(1)]
        zeros.append(logit[outside])
    zero, one = torch.cat(zeros), torch.cat([logits.new_zeros(0), *ones])
    loss = logits.sum() * 0.0
    if zero.numel():
        loss = loss + F.softplus(zero).mean()
    if one.numel():
        loss = loss + F.softplus(-one).mean()
    return loss


# Of each: whether the photographs have true masks, none, or derived ones (None); and the network.
SOURCES: dict[str, tuple[bool | None, type[Detector]]] = {
    "true masks": (True, Detector),
    "filled boxes": (False, TaughtByFilledBoxes),
    "projections of boxes": (False, TaughtByProjections),
    "GrabCut": (None, Detector),
}
