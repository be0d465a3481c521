"""How near masks made from boxes come to the true ones, and what they take."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from als.classes import VOC_CLASSES
from als.data.derived_masks import ITERATIONS, LONGEST, is_derived, object_of_pixels
from als.data.layouts import load_records
from als.data.masks import fill, read_object_map
from als.errors import InputError
from als.evaluation.evaluate import object_iou
from als.images import as_rgb
from benchmarks.recording import options, save


def masks(arguments: list[str]) -> None:
    """Compare filled boxes and GrabCut's masks with true masks: IoU of the union of all objects."""
    parser = options(masks, "results/masks.json")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data folders")
    parser.add_argument("--data", default="VOC2012:val", help="FOLDER:SPLIT with masks")
    parser.add_argument("--classes", nargs="+", default=list(VOC_CLASSES), help="default: VOC's")
    parser.add_argument("--photographs", type=int, default=80, help="drawn by chance")
    given = parser.parse_args(arguments)
    figures = compare(given.data, given.root, given.classes, given.photographs)
    for name, values in figures["sides"].items():
        print(f"{name}: IoU {values['iou']:.3f}, {values['seconds']:.2f} s a photograph")
    save(given.out, figures)


def compare(spec: str, root: Path, classes: Sequence[str], photographs: int) -> dict:
    """The figures of each way, over photographs with a mask and a box. Void counts nowhere.

    Raises InputError when no photograph has a true mask.
    """
    import cv2

    cv2.setNumThreads(1)
    found = load_records(spec, root, classes)
    # Objects that are all marked difficult are void: no pixel counts.
    found = [r for r in found if r.mask is not None and (~r.difficult).any() and not is_derived(r)]
    if not found:
        raise InputError(f"{spec}: no photograph has a true mask; name another split.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(found))[:photographs])
    ways = {
        "boxes": lambda photo, boxes: fill(boxes, (photo.height, photo.width)),
        "grabcut": lambda photo, boxes: object_of_pixels(photo, boxes),
        "grabcut at half size": lambda photo, boxes: object_of_pixels(
            photo, boxes, min(LONGEST, max(photo.size)) // 2
        ),
    }
    rows = []
    for record in tqdm([found[index] for index in chosen], disable=None):
        truth = read_object_map(record, classes)
        photo = as_rgb(record.path)
        for name, way in ways.items():
            started = time.perf_counter()
            made = way(photo, record.boxes)
            seconds = time.perf_counter() - started
            rows.append({"way": name, "iou": object_iou(made, truth), "seconds": seconds})
    sides = {
        name: {
            "iou": own["iou"].mean(),
            "iou_median": own["iou"].median(),
            "share_under_half": (own["iou"] < 0.5).mean(),
            "seconds": own["seconds"].mean(),
        }
        for name, own in pd.DataFrame(rows).groupby("way", sort=False)
    }
    settings = {"iterations": ITERATIONS, "longest_side": LONGEST, "opencv": cv2.__version__}
    return {"data": spec, "photographs": len(chosen), **settings, "threads": 1, "sides": sides}
