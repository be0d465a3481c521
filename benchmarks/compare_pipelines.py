"""What surrounds the network: loading beside training, folders beside photographs, evaluation."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader

from als.cli import save_all
from als.data.dataset import DetectionDataset, collate
from als.data.layouts import load_records
from als.data.sampler import AspectBatchSampler
from als.data.toy import TOY_CLASSES, write_toy
from als.data.transforms import training_transforms
from als.drawing import save_prediction
from als.evaluation.average_precision import voc_ap
from als.evaluation.coco_measures import as_coco, coco_metrics
from als.evaluation.detections import Detections, GroundTruth
from als.inference import Predictor, predict_many
from benchmarks.checks import all_rows
from benchmarks.compare_networks import training_batch
from benchmarks.networks import CLASSES, Subject, loss_of, photographs, step
from benchmarks.recording import Setting
from benchmarks.timing import Measured, in_turns

VOC_SIZE = (375, 500)  # (height, width) of VOC's usual photograph
QUICK_SIZE = (64, 96)
LOADED = 96  # drawn images, JPEG and mask; half of them are for training
MIN_SIZES, MAX_SIZE = (256, 288, 320, 352, 384), 512  # as configs/compact-stage2.yaml trains
WORKERS, LOADING_ROUNDS = 2, 3
COPIES = 4  # of each photograph, half of them upright; so many that the pipeline fills
PHONE_SIZE = (1200, 1600)  # of these JPEG files: decoding and reducing cost something
THRESHOLD, FOLDER_ROUNDS = 0.5, 2  # the threshold of `als predict`
PER_IMAGE, NEAR = 100, 33  # made-up detections, and those of them that lie near an object
VOC_IMAGES, COCO_IMAGES, QUICK_IMAGES = 4952, 40, 20  # VOC 2007 test; pycocotools is slow
VOC_ROUNDS, COCO_ROUNDS = 3, 21  # rounds of a second on a shared machine differ by a third


def loading(subject: Subject, setting: Setting) -> Measured:
    """An epoch of two workers alone and a training step alone, in images a second."""
    batch = training_batch(subject, setting)
    batch_size, images = len(batch[0]), 4 if setting.quick else LOADED // 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            load = epoch(Path(folder) / "toy", 2 * images, batch_size, setting.quick)
            train = step(subject.als, [lambda: loss_of(subject.als, batch)])
            turns = in_turns({"loading": load, "training": train}, setting.few(LOADING_ROUNDS))
    finally:
        subject.als.eval().zero_grad()
    ratio = turns.ratio("training", "loading", scale=images / batch_size)
    facts = {"images": images, "size": VOC_SIZE, "workers": WORKERS, "batch": batch_size}
    return Measured({"loader_vs_training": ratio}, turns.named("loader"), {"loading": facts})


def epoch(root: Path, images: int, batch_size: int, quick: bool) -> Callable[[], None]:
    """A function that loads every training image of a new toy set once, as training does."""
    write_toy(root, images, size=QUICK_SIZE if quick else VOC_SIZE)
    records = load_records("VOC2012:train", root, TOY_CLASSES)
    transform = training_transforms(MIN_SIZES, MAX_SIZE, jitter=True, crop=True)
    loader = DataLoader(
        DetectionDataset(records, TOY_CLASSES, transform),
        batch_sampler=AspectBatchSampler(records, batch_size, seed=0),
        collate_fn=collate,
        num_workers=WORKERS,
        persistent_workers=True,
    )

    def run() -> None:
        for _ in loader:
            pass

    return run


def folder(subject: Subject, setting: Setting) -> Measured:
    """From files to pictures and JSON, as `als predict` does it with a folder, and one by one."""
    predictor = Predictor(subject.als, {}, setting.device)
    size = QUICK_SIZE if setting.quick else PHONE_SIZE
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        paths = write_photographs(Path(place), size, setting.few(COPIES))

        def one_by_one() -> None:
            for path in paths:
                analysis = predictor.analyse(path, score_threshold=THRESHOLD)
                save_prediction(path, analysis.prediction, out, analysis.image)

        def together() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                save_all(predict_many(predictor, paths, score_threshold=THRESHOLD), out)

        sides = {"one by one": one_by_one, "folder": together}
        turns = in_turns(sides, setting.few(FOLDER_ROUNDS))
    ratios = {"predict_folder_speedup": turns.ratio("one by one", "folder")}
    facts = {"predict_folder": {"photos": len(paths), "size": size}}
    return Measured(ratios, turns.named("predict"), facts)


def write_photographs(folder: Path, size: tuple[int, int], copies: int) -> list[Path]:
    """JPEG files of (height, width), every other one upright."""
    paths = []
    for copy in range(copies):
        for i, photo in enumerate(photographs(size if copy % 2 == 0 else size[::-1], 4)):
            paths.append(folder / f"{copy}-{i}.jpg")
            Image.fromarray(photo).save(paths[-1], quality=90)
    return paths


def evaluation(setting: Setting) -> Measured:
    """VOC's measure at all ten IoU thresholds, with both APs; COCO's beside pycocotools alone."""
    voc_count, coco_count = (QUICK_IMAGES,) * 2 if setting.quick else (VOC_IMAGES, COCO_IMAGES)
    truths, detections = made_up(voc_count)
    voc = in_turns({"voc": lambda: voc_ap(detections, truths, CLASSES)}, setting.few(VOC_ROUNDS))
    coco = in_turns(coco_sides(coco_count), setting.few(COCO_ROUNDS))
    counts = {"voc_images": voc_count, "coco_images": coco_count}
    return Measured(
        {"coco_vs_pycocotools": coco.ratio("als", "pycocotools")},
        {"voc_eval_seconds": voc.seconds("voc")} | coco.named("COCO evaluation"),
        {"evaluation": counts | {"detections_per_image": PER_IMAGE}},
    )


def coco_sides(count: int) -> dict[str, Callable]:
    """The same detections from arrays through `coco_metrics`, and as dicts through pycocotools."""
    truths, detections = made_up(count)
    ids = range(1, count + 1)
    coco_gt = as_coco(truths, [VOC_SIZE] * count, CLASSES)
    results = all_rows(detections)

    def alone() -> None:
        fresh = [row.copy() for row in results]  # loadRes adds to each, and finds it there again
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(coco_gt, coco_gt.loadRes(fresh), iouType="bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()

    return {"als": lambda: coco_metrics(detections, coco_gt, ids), "pycocotools": alone}


def made_up(images: int) -> tuple[list[GroundTruth], list[Detections]]:
    """One to four objects and `PER_IMAGE` detections, `NEAR` of them near an object, an image."""
    rng = np.random.default_rng(0)
    truths, detections = [], []
    for _ in range(images):
        objects, others = int(rng.integers(1, 5)), PER_IMAGE - NEAR
        boxes, labels = _boxes(rng, objects), rng.integers(1, len(CLASSES) + 1, objects)
        truths.append(GroundTruth(boxes, labels, rng.random(objects) < 0.1))
        which = rng.integers(objects, size=NEAR)
        shaken = boxes[which] + rng.normal(0, 8, (NEAR, 4))
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
        boxes = np.concatenate([shaken, _boxes(rng, others)])
        labels = np.concatenate([labels[which], rng.integers(1, len(CLASSES) + 1, others)])
        detections.append(Detections(boxes, labels, rng.random(PER_IMAGE)))
    return truths, detections


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4] xyxy within `VOC_SIZE`, at least 10 pixels a side."""
    height, width = VOC_SIZE
    corner = rng.uniform(0, 0.7, (count, 2)) * (width, height)
    return np.concatenate([corner, corner + rng.uniform(10, 0.3 * height, (count, 2))], axis=1)
