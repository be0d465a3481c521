"""Checks that nobody here wrote: our measures and maps beside those of published packages."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from als.data.coco_ids import CocoIds
from als.data.layouts import load_records
from als.evaluation.coco_measures import as_coco
from als.evaluation.coco_results import result_rows
from als.evaluation.detections import Detections, GroundTruth, load_judgeable
from als.evaluation.evaluate import evaluate, judge, truths_of
from als.files import read_json
from benchmarks.checks_maps import microsoft, quantus, rise, scenes_of, torchcam
from benchmarks.recording import options, save

FAKE_TRUTH = "instances_val2014_100.json"  # of the repository of faster-coco-eval
FAKE_RESULTS = "instances_val2014_fakebbox100_results.json"  # of cocoapi's
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def checks(arguments: list[str]) -> None:
    """Our measures and maps beside those of other packages, on photographs of VOC2012:test."""
    parser = options(checks, "results/checks.json")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data folders")
    parser.add_argument("--detections", default="results/table2-compact/proposed-seed1.npz")
    parser.add_argument("--photographs", type=int, default=4, help="drawn by chance, for maps")
    parser.add_argument("--masks", type=int, default=200, help="of D-RISE")
    parser.add_argument("--rise", type=Path, help="folder of RISE's evaluation.py and utils.py")
    given = parser.parse_args(arguments)
    kept = Path(given.detections)
    classes = tuple(json.loads(kept.with_suffix(".json").read_text())["per_class"])
    records = load_records("VOC2012:test", given.root, classes)
    found, truths = load_judgeable(kept).detections, truths_of(records)
    detections = [found[record.image_id] for record in records]
    dataset = as_coco(truths, [record.size for record in records], classes).dataset
    scenes = scenes_of(records, given.photographs)
    sides: dict[str, Callable[[], dict]] = {
        "faster-coco-eval": partial(faster_coco_eval, dataset, detections),
        "hotcoco": partial(hotcoco, dataset, detections),
        "torchmetrics": partial(torchmetrics, detections, truths),
        "object-detection-metrics": partial(podm, detections, truths),
        "quantus": lambda: {"photographs": [quantus(scene) for scene in scenes]},
        "torchcam": lambda: {"photographs": [torchcam(scene) for scene in scenes]},
        "vision-explanation-methods": lambda: {
            "photographs": [microsoft(scene, given.masks) for scene in scenes]
        },
    }
    told = {"detections": str(kept), "masks": given.masks}
    told["als"] = judge(detections, records, classes)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # packages about their own future
        for name, side in sides.items():
            try:
                told[name] = {"version": version(name)} | side()
            except ImportError as error:  # one that is not installed included
                told[name] = {"not run": str(error)}
            print(name, told[name], flush=True)
        if given.rise is not None:
            code = (given.rise / "evaluation.py").read_bytes()
            figures = {"photographs": [rise(scene, given.rise) for scene in scenes]}
            told["rise"] = {"sha256": hashlib.sha256(code).hexdigest()} | figures
            print("rise", told["rise"])
    save(given.out, told)


def coco_example(arguments: list[str]) -> None:
    """COCO's own example of results, judged as by `als evaluate --detections FILE.json`."""
    parser = options(coco_example, "results/checks-coco.json")
    parser.add_argument("folder", type=Path, help=f"of {FAKE_TRUTH} and {FAKE_RESULTS}")
    given = parser.parse_args(arguments)
    truth, results = given.folder / FAKE_TRUTH, given.folder / FAKE_RESULTS
    content = read_json(truth)
    with TemporaryDirectory() as root:
        layout = Path(root) / "COCO"
        (layout / "annotations").mkdir(parents=True)
        (layout / "val2014").mkdir()
        shutil.copy(truth, layout / "annotations" / "instances_val2014.json")
        for image in content["images"]:  # no pixel is read
            (layout / "val2014" / image["file_name"]).touch()
        classes = [category["name"] for category in content["categories"]]
        records = load_records("COCO:val2014", Path(root), classes)
        metrics = evaluate(None, records, classes=classes, detections=[results])["metrics"]
    told = {name: metrics[f"COCO_{name}"] for name in COCO_NAMES}
    counts = {"images": len(records), "objects": len(content["annotations"])}
    counts["results"] = len(json.loads(results.read_text()))
    print(told, counts)
    save(given.out, told | counts)


def faster_coco_eval(dataset: dict, detections: Sequence[Detections]) -> dict[str, float]:
    """COCO's measures; a data set as `as_coco` makes it."""
    from faster_coco_eval import COCO, COCOeval_faster

    with redirect_stdout(StringIO()):
        truth = COCO(dataset)
        evaluator = COCOeval_faster(truth, truth.loadRes(all_rows(detections)), "bbox")
        evaluator.run()
    return dict(zip(COCO_NAMES, map(float, evaluator.stats), strict=False))


def hotcoco(dataset: dict, detections: Sequence[Detections]) -> dict[str, float]:
    """The same in Rust."""
    from hotcoco import COCO, COCOeval

    truth = COCO(dataset)
    evaluator = COCOeval(truth, truth.load_res(all_rows(detections)), "bbox")
    with redirect_stdout(StringIO()):
        evaluator.run()
    return {name: evaluator.get_results()[name] for name in COCO_NAMES}


def torchmetrics(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> dict:
    """As it comes, and with recall levels that are not rounded to float32."""
    from torch import from_numpy
    from torchmetrics.detection import MeanAveragePrecision

    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    found, objects = (
        [{name: from_numpy(array) for name, array in vars(one).items()} for one in images]
        for images in (detections, truths)
    )
    objects = [one | {"iscrowd": one["difficult"].int()} for one in objects]
    told = {}
    for title, levels in (("float32", None), ("float64", np.linspace(0, 1, 101).tolist())):
        metric = MeanAveragePrecision(rec_thresholds=levels)
        metric.update(found, objects)
        figures = metric.compute()
        told[title] = {k: float(figures[n]) for k, n in zip(COCO_NAMES, names, strict=True)}
    return told


def podm(detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> dict[str, float]:
    """VOC's measures; it knows no difficult objects."""
    from podm.metrics import BoundingBox, MethodAveragePrecision, get_pascal_voc_metrics

    def boxes(images: Sequence, extra: str) -> list[BoundingBox]:
        return [
            BoundingBox.of_bbox(i, int(label), *map(float, box), float(value))
            for i, one in enumerate(images)
            for box, label, value in zip(one.boxes, one.labels, getattr(one, extra), strict=True)
        ]

    given = boxes(truths, "difficult"), boxes(detections, "scores")
    area, eleven = MethodAveragePrecision
    asked = {"AP50_area": (0.5, area), "AP50_11point": (0.5, eleven), "AP75": (0.75, area)}
    told = {name: get_pascal_voc_metrics(*given, *how).values() for name, how in asked.items()}
    return {name: float(np.mean([one.ap for one in classes])) for name, classes in told.items()}


def all_rows(detections: Sequence[Detections]) -> list[dict]:
    """Detections as COCO's results JSON has them: image ids from 1, labels as categories."""
    labels = {label for one in detections for label in one.labels.tolist()}
    ids = CocoIds({}, {label: label for label in labels})
    return [
        row
        for i, one in enumerate(detections, start=1)
        for row in result_rows(i, one.boxes, one.labels.tolist(), one.scores, ids)
    ]
