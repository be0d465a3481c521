"""VOC's evaluation by the clock, and COCO's beside pycocotools alone."""

import contextlib
import io

import numpy as np
from pycocotools.cocoeval import COCOeval

from als.evaluation.average_precision import voc_ap
from als.evaluation.coco_measures import as_coco, coco_metrics
from als.evaluation.detections import Detections, GroundTruth
from benchmarks.pairs import Measured, in_turns
from benchmarks.subjects import Setting

CLASSES = tuple(f"class {i}" for i in range(1, 21))
SIZE = (375, 500)  # (height, width) of VOC's usual photograph
PER_IMAGE = 100  # detections
VOC_IMAGES, COCO_IMAGES = 4952, 40  # VOC 2007 test; pycocotools is slow enough with few
QUICK_IMAGES = 20
VOC_ROUNDS, COCO_ROUNDS = 3, 21  # rounds of a second on a shared machine differ by a third


def measure(setting: Setting) -> Measured:
    """Made-up detections, a third of them near an object. VOC's measure is that of all ten IoU
    thresholds, with both APs; COCO's starts from plain arrays, pycocotools' from its own dicts."""
    count = QUICK_IMAGES if setting.quick else VOC_IMAGES
    truths, detections = made_up(count)
    voc = in_turns({"voc": lambda: voc_ap(detections, truths, CLASSES)}, setting.few(VOC_ROUNDS))
    coco_count = QUICK_IMAGES if setting.quick else COCO_IMAGES
    turns = in_turns(coco_sides(coco_count), setting.few(COCO_ROUNDS))
    facts = {"voc_images": count, "coco_images": coco_count, "detections_per_image": PER_IMAGE}
    return Measured(
        {"coco_vs_pycocotools": turns.ratio("als", "pycocotools")},
        {"voc_eval_seconds": voc.seconds("voc")}
        | {f"COCO evaluation {side}": turns.seconds(side) for side in turns.rounds},
        {"evaluation": facts},
    )


def coco_sides(count: int) -> dict:
    """The same detections through `coco_metrics` and straight through pycocotools."""
    truths, detections = made_up(count)
    ids = range(1, count + 1)
    coco_gt = as_coco(truths, [SIZE] * count, CLASSES)
    results = [
        {"image_id": i, "category_id": int(label), "score": float(score), "bbox": _xywh(box)}
        for i, one in zip(ids, detections, strict=True)
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True)
    ]

    def alone() -> None:
        fresh = [row.copy() for row in results]  # loadRes adds to each, and finds it there again
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(coco_gt, coco_gt.loadRes(fresh), iouType="bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()

    return {"als": lambda: coco_metrics(detections, coco_gt, ids), "pycocotools": alone}


def made_up(
    images: int, per_image: int = PER_IMAGE, seed: int = 0
) -> tuple[list[GroundTruth], list[Detections]]:
    """One to four objects and `per_image` detections for each image."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        objects = int(rng.integers(1, 5))
        boxes, labels = _boxes(rng, objects), rng.integers(1, len(CLASSES) + 1, objects)
        truths.append(GroundTruth(boxes, labels, rng.random(objects) < 0.1))
        near = per_image // 3
        which = rng.integers(objects, size=near)
        shaken = boxes[which] + rng.normal(0, 8, (near, 4))
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
        some = _boxes(rng, per_image - near)
        other = rng.integers(1, len(CLASSES) + 1, per_image - near)
        detections.append(
            Detections(
                np.concatenate([shaken, some]),
                np.concatenate([labels[which], other]),
                rng.random(per_image),
            )
        )
    return truths, detections


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4] xyxy within `SIZE`, at least 10 pixels a side."""
    height, width = SIZE
    corner = rng.uniform(0, 0.7, (count, 2)) * (width, height)
    sides = rng.uniform(10, 0.3 * height, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1)


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]
