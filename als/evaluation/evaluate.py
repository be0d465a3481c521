"""Detector + records -> detections -> metrics, figures of the maps, and a record of it all."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from als.checkpoint import weights_digest
from als.data.coco_ids import ids_of
from als.data.dataset import DetectionDataset, collate
from als.data.derived_masks import without_derived
from als.data.fields import id_order
from als.data.masks import read_object_map
from als.data.record import Record, fingerprint
from als.data.sampler import AspectBatchSampler
from als.data.transforms import as_photo
from als.errors import InputError
from als.evaluation.average_precision import match, voc_ap
from als.evaluation.coco_results import read_results, result_rows, write_results
from als.evaluation.confidence import counted, reliability, sure
from als.evaluation.confusion import confusion
from als.evaluation.detections import (
    Detections,
    GroundTruth,
    class_numbers,
    load_judgeable,
    of_classes,
    save_detections,
)
from als.files import read_json
from als.machine import machine, revision
from als.model import AnyDetector, Found
from als.model.grid import map_to_image

BATCH_SIZE = 8


def evaluate(
    detector: AnyDetector | None,
    records: Sequence[Record],
    workers: int = 1,
    progress: bool = True,
    keep: Path | None = None,
    classes: Sequence[str] | None = None,
    detections: Sequence[Path] = (),
    coco_results: Path | None = None,
) -> dict:
    """Detect on all records and judge detections and maps; what `als evaluate` writes.

        records = load_records("VOC2007:test", "data", predictor.classes)
        record = als.evaluate(predictor.detector, records)

    Args:
        detector: None where `detections` of the named `classes` are judged.
        records: of `load_records`, loaded for `classes`.
        workers: processes that load images.
        keep: a file for what is detected, see `als.evaluation.detections`; it is written before
            that is judged.
        classes: judge only these of the detector's classes; None for all.
        detections: such files, of these images or more, to be judged again; nothing is detected.
            Also COCO's results JSON, of these images, see `als.evaluation.coco_results`.
        coco_results: a file for the detections of `classes` in that form.

    Returns:
        A record: metrics (AP50_11point, AP50_area, AP75, AP of VOC and COCO's AP, AP50, AP75,
        each a fraction), per_class, maps (None without attention), sure and reliability (see
        `als.evaluation.confidence`), confusion (see `als.evaluation.confusion`), config (None
        without a detector), data, revision, machine, seconds (None where nothing was detected).

    Raises:
        InputError: an image cannot be read, `detections` are of other images or classes, the
            detector does not know one of `classes`, or COCO's results have no id for one.
    """
    own = None if detector is None else detector.config.classes
    if own is None and (classes is None or not detections):
        raise InputError("without a detector `detections` are judged, and `classes` say of what.")
    classes = own if classes is None else classes
    relabel = class_numbers(own or classes, classes)
    records = without_derived(records)
    if coco_results is not None:
        ids = ids_of(records)  # before hours of detecting
        ids.require(classes)
    seconds = None
    if detections:
        found, maps = _saved(detections, records, classes, detector)
    else:
        started = time.perf_counter()
        found, maps = detect_all(detector, records, workers, progress)
        spent = time.perf_counter() - started
        seconds = {"detection": spent, "images_per_second": len(records) / spent}
        if keep is not None:
            names = [record.image_id for record in records]
            save_detections(keep, names, found, own, maps, weights_digest(detector))
        found = [of_classes(some, relabel) for some in found]
    if coco_results is not None:
        rows = []
        for record, one in zip(records, found, strict=True):
            names = [classes[label - 1] for label in one.labels]
            rows += result_rows(ids.images[record.image_id], one.boxes, names, one.scores, ids)
        write_results(coco_results, rows)
    metrics, per_class = judge(found, records, classes)
    scored = counted(match(found, truths_of(records), classes, (0.5,)))
    empty = np.array([len(record.boxes) == 0 for record in records])
    has_masks = _coco_file(records) is not None and any(record.mask for record in records)
    return {
        "metrics": metrics,
        "per_class": per_class,
        "maps": _mean_maps(maps),
        "sure": sure(scored, empty),
        "reliability": reliability(scored.scores, scored.right),
        "confusion": confusion(found, truths_of(records), classes),
        "config": None if detector is None else detector.config.to_dict(),
        "data": {
            "images": len(records),
            "fingerprint": fingerprint(records),
            "COCO_areas": "masks" if has_masks else "boxes",
        },
        "revision": revision(),
        "machine": machine(),
        "seconds": seconds,
    }


def _saved(
    paths: Sequence[Path],
    records: Sequence[Record],
    classes: Sequence[str],
    detector: AnyDetector | None,
) -> tuple[list[Detections], list[dict[str, float]]]:
    """As `detect_all`, from files, which may hold other images too; of `classes` alone.

    detector: what detected, None where that is not said.
    """
    found: dict[str, Detections] = {}
    maps: dict[str, dict[str, float]] = {}
    ids = [record.image_id for record in records]
    for path in paths:
        if path.suffix == ".json":
            some = read_results(path, ids_of(records), classes)
        else:
            saved = load_judgeable(path)
            names = saved.classes or _classes_beside(path)
            if detector is not None:
                own = detector.config.classes
                if names != tuple(own) or saved.network not in ("", weights_digest(detector)):
                    raise InputError(f"{path}: detections of another checkpoint; evaluate again.")
            numbers = class_numbers(names, classes)
            some = {name: of_classes(one, numbers) for name, one in saved.detections.items()}
            if saved.maps:
                maps |= dict(zip(saved.detections, saved.maps, strict=True))
        if twice := sorted(found.keys() & some.keys()):
            raise InputError(f"{path}: detections of {twice[0]}, which another file has; give one.")
        found |= some
    if any(path.suffix == ".json" for path in paths):  # an image that is in none shows nothing
        found = dict.fromkeys(ids, Detections([], [], [])) | found
    if missing := sorted(set(ids) - found.keys()):
        told = f"{paths[-1]}: detections without the image {missing[0]}"
        raise InputError(f"{told}; evaluate this data again.")
    return [found[one] for one in ids], [maps[one] for one in ids if one in maps]


@torch.no_grad()
def detect_all(
    detector: AnyDetector, records: Sequence[Record], workers: int = 1, progress: bool = True
) -> tuple[list[Detections], list[dict[str, float]]]:
    """Detections of every record, in the records' order, and figures of each image's maps.

    The figures are the keys that `_map_figures` names; an empty list without attention.
    """
    by_id: dict[str, Detections] = {}
    maps: dict[str, dict[str, float]] = {}
    for record, encoding, index, found in each_found(detector, records, workers, progress):
        some = {k: v.cpu() for k, v in found.as_dict().items()}
        by_id[record.image_id] = Detections(**some)
        if encoding.a_loc is not None:
            classes = detector.config.classes
            maps[record.image_id] = _map_figures(encoding, index, record, classes)
    ids = [record.image_id for record in records]
    return [by_id[one] for one in ids], [maps[one] for one in ids if maps]


def each_found(
    detector: AnyDetector, records: Sequence[Record], workers: int = 1, progress: bool = True
) -> Iterator[tuple[Record, Any, int, Found]]:
    """(record, encoding of its batch, its row there, what is found) of every record, in no order.

    Nobody's gradients are wanted: iterate under `torch.no_grad`.
    """
    device = next(detector.parameters()).device
    was_training = detector.training
    detector.eval().to(memory_format=torch.channels_last)
    transform = partial(as_photo, detector.config.max_size)
    dataset = DetectionDataset(records, detector.config.classes, transform)
    sampler = AspectBatchSampler(records, BATCH_SIZE, seed=0, shuffle=False, drop_last=False)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
    record_of = {record.image_id: record for record in records}
    try:
        for photos, targets in tqdm(loader, desc="detecting", disable=not progress):
            encoding = detector.encode([p._replace(pixels=p.pixels.to(device)) for p in photos])
            for index, found in enumerate(detector.detect(encoding)):
                yield record_of[targets[index]["image_id"]], encoding, index, found
    finally:
        detector.train(was_training)


def truths_of(records: Sequence[Record]) -> list[GroundTruth]:
    """The objects of records as what evaluation takes."""
    return [GroundTruth(r.boxes, r.labels, r.difficult) for r in records]


def judge(
    detections: Sequence[Detections], records: Sequence[Record], classes: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """(mean metrics, metrics per class) of detections, by VOC's and COCO's definitions.

    Records that all come from one COCO file are judged for COCO's measures as pycocotools judges
    on that file, with its crowds and the areas of its masks; others on their boxes, see `as_coco`.
    """
    # Training validates by VOC's measure alone, also where pycocotools is not installed.
    from als.evaluation.coco_measures import Written, as_coco, coco_metrics

    truths = truths_of(records)
    voc = voc_ap(detections, truths, classes)
    order, written = list(range(len(records))), None
    if _coco_file(records) is not None:
        # Where scores are equal, pycocotools goes by rising image id.
        entries = [record.coco for record in records]
        order.sort(key=lambda i: id_order(entries[i].image_id))
        ordered = [entries[i] for i in order]
        names = tuple(ordered[0].names.values())
        written = Written(names, [e.boxes for e in ordered], [e.areas for e in ordered])
    made = as_coco([truths[i] for i in order], [records[i].size for i in order], classes, written)
    ids = range(1, len(records) + 1)
    coco = coco_metrics([detections[i] for i in order], made, ids, classes)
    metrics = voc.mean | {f"COCO_{name}": value for name, value in coco.items()}
    objects = voc.matches.objects.sum(axis=0)
    per_class = {
        name: {measure: float(values[k]) for measure, values in voc.per_class.items()}
        | {"objects": int(objects[k])}
        for k, name in enumerate(classes)
    }
    return metrics, per_class


def judge_by_id(
    found: dict[str, dict[str, np.ndarray]], records: Sequence[Record], classes: Sequence[str]
) -> dict[str, float]:
    """AP50 (area), AP75 and AP of detections by image id, for the validation of a training."""
    detections = [Detections(**found[record.image_id]) for record in records]
    mean = voc_ap(detections, truths_of(records), classes).mean
    return {"AP50": mean["AP50_area"], "AP75": mean["AP75"], "AP": mean["AP"]}


def table(record: dict, title: str | Path) -> str:
    """The per-class table of a record as text, in percent."""
    names = [*record["per_class"], "mean"]  # a class may be called so too
    rows = pd.DataFrame([*record["per_class"].values(), record["metrics"]], names).astype(float)
    shown = 100 * rows[["AP50_11point", "AP50_area", "AP75", "AP"]]
    return f"{title}\n{shown.to_string(float_format='{:.1f}'.format)}"


def _classes_beside(path: Path) -> tuple[str, ...]:
    """The classes of detections of an earlier version, which the record beside them knows."""
    try:
        return tuple(read_json(path.with_suffix(".json"))["config"]["classes"])
    except (InputError, KeyError, TypeError) as error:
        told = "does not say of which classes, nor does a record beside it"
        raise InputError(f"{path}: {told}; evaluate again.") from error


def _coco_file(records: Sequence[Record]) -> Path | None:
    """The COCO file that all records come from, None when there is no such one."""
    files = {record.coco.file if record.coco else None for record in records}
    return files.pop() if len(files) == 1 else None


def _map_figures(encoding, index: int, record: Record, classes) -> dict[str, float]:
    a_loc = map_to_image(encoding.a_loc, encoding, index)
    a_cls = map_to_image(encoding.a_cls, encoding, index)
    object_map = read_object_map(record, classes)
    return {
        "loc_iou_with_mask": np.nan if object_map is None else object_iou(a_loc, object_map),
        "loc_mean": float(a_loc.mean()),
        "loc_spread": spread(a_loc),
        "cls_mean": float(a_cls.mean()),
        "cls_spread": spread(a_cls),
        "correlation": correlation(a_loc, a_cls),
    }


def _mean_maps(maps: list[dict[str, float]]) -> dict[str, float] | None:
    """The mean of each figure without NaN, which an image without a mask has."""
    return pd.DataFrame(maps).mean().to_dict() if maps else None


def object_iou(attention: np.ndarray, object_map: np.ndarray, threshold: float = 0.5) -> float:
    """IoU of the pixels where `attention` [H, W] is over `threshold` with the object's pixels.

    object_map: uint8 [H, W], 1 object, 0 background, 255 void, which does not count. NaN where
    neither has a pixel.
    """
    known = object_map != 255
    over, inside = (attention > threshold) & known, object_map == 1
    union = (over | inside).sum()
    return float((over & inside).sum() / union) if union else float("nan")


def spread(attention: np.ndarray) -> float:
    """95th minus 5th percentile of a map [H, W]; 0 for a constant."""
    low, high = np.percentile(attention, [5, 95])
    return float(high - low)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two maps [H, W]; 0 where one is constant, up to rounding."""
    first, second = np.ravel(first).astype(np.float64), np.ravel(second).astype(np.float64)
    if min(first.std(), second.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
