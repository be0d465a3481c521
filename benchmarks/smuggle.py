"""Does a map say where the class is seen, or does its shape say the class? (Jethani et al. 2021)

A network may write the class into the shape of its map. So another network judges, one that was
trained without the map: of each object it sees half of the cells, those that the map ranks first.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align
from tqdm import tqdm

import als
from als.data.derived_masks import without_derived
from als.data.layouts import load_records
from als.data.record import Record, fingerprint
from als.errors import InputError
from als.evaluation.bootstrap import draw_weights, resampled_mean
from als.explain import make_maps
from als.images import as_rgb
from als.inference import Predictor
from als.model.boxes import rescaled
from als.study.cases import cases_of
from benchmarks.recording import options, save

MAPS = ("class_weights", "localization", "gradact")
FEWEST = 4  # cells of an object, so that half of them means something
RESAMPLES = 2000


def smuggle(arguments: list[str]) -> None:
    """Accuracy of a judge that sees half of each object's cells, chosen by the maps of a model."""
    parser = options(smuggle, "results/smuggle.json")
    parser.add_argument("checkpoint", help="with the maps")
    parser.add_argument("judge", help="a checkpoint that was trained without them: stage 1")
    parser.add_argument("--data", required=True, help="FOLDER:SPLIT, with masks")
    parser.add_argument("--root", type=Path, default=Path("."))
    given = parser.parse_args(arguments)
    predictor, judge = als.load(given.checkpoint), als.load(given.judge)
    if judge.detector.config.attention or predictor.classes != judge.classes:
        raise InputError(f"{given.judge}: give a model of the same classes without attention.")
    records = without_derived(load_records(given.data, given.root, predictor.classes))
    rights: dict[str, list[bool]] = {}
    images: list[int] = []
    for index, record in enumerate(tqdm(records, unit="image")):
        for told in _judged(predictor, judge, record, np.random.default_rng([0, index])):
            images.append(index)
            for name, right in told.items():
                rights.setdefault(name, []).append(right)
    if not images:
        raise InputError(f"{given.data}: no object has a true mask of {FEWEST} cells.")
    weights, where = draw_weights(len(records), RESAMPLES), np.array(images)
    told = {}
    for name, right in rights.items():
        mean = resampled_mean(np.array(right, float), where, weights)
        told[name] = {"accuracy": mean.whole, "interval": mean.interval}
    record = {"checkpoint": given.checkpoint, "judge": given.judge, "data": given.data}
    record |= {"fingerprint": fingerprint(records), "objects": len(images), "seen": told}
    print(told)
    save(given.out, record)


@torch.no_grad()
def _judged(predictor: Predictor, judge: Predictor, record: Record, rng) -> list[dict[str, bool]]:
    """For each object of a photograph: what is seen of it -> whether the judge says its class."""
    photo = as_rgb(record.path)
    analysis, own = predictor.analyse(photo), judge.analyse(photo)
    encoding, heads = own.encoding, judge.detector.roi_heads
    told = []
    for case in cases_of(record, predictor.classes, own.prediction, []):
        if case.mask is None:
            continue
        box, label = record.boxes[case.index], int(record.labels[case.index])
        roi = rescaled(torch.from_numpy(box[None]), record.size, encoding.images.image_sizes[0])
        pooled = heads.pool(encoding.f, [roi])
        bins = pooled.shape[-1]
        on_object = _in_bins(case.mask, box, bins) >= 0.5
        if on_object.sum() < FEWEST:
            continue
        # Of the class that the model sees there, which may be wrong: the true one would be told.
        scene, _ = predictor.chosen(analysis, box=box)
        ranks = {name: _in_bins(make_maps(name, scene)[0], box, bins) for name in MAPS}
        ranks["random"] = torch.from_numpy(rng.random((bins, bins)))
        seen = {"whole box": torch.ones_like(on_object), "object": on_object}
        seen |= {f"half by {name}": _first_half(rank, on_object) for name, rank in ranks.items()}
        shown = torch.stack(list(seen.values()))[:, None].to(pooled.dtype)
        logits = heads.cls_score(heads.conv5_cls(pooled * shown))
        guesses = logits[:, 1:].argmax(1) + 1
        told.append({name: int(guess) == label for name, guess in zip(seen, guesses, strict=True)})
    return told


def _in_bins(values: np.ndarray, box: np.ndarray, bins: int) -> Tensor:
    """The mean of values [H, W] in each of bins x bins parts of a box [4] in their pixels."""
    pixels = torch.from_numpy(np.array(values, np.float32))[None, None]
    rois = [torch.from_numpy(np.asarray(box, np.float32)[None])]
    return roi_align(pixels, rois, bins, aligned=True)[0, 0]


def _first_half(rank: Tensor, on_object: Tensor) -> Tensor:
    """bool [k, k]: the half of the object's cells (one more if odd) of the highest rank."""
    ordered = rank.masked_fill(~on_object, -torch.inf).flatten().argsort(descending=True)
    chosen = torch.zeros(on_object.numel(), dtype=torch.bool)
    chosen[ordered[: -(-int(on_object.sum()) // 2)]] = True
    return chosen.reshape(on_object.shape)
