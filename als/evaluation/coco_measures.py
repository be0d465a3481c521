"""COCO's measures, computed by pycocotools itself.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and its evaluation
code: AP is the mean over IoU 0.5:0.05:0.95, classes and 101 recall levels, for at most 100
detections per image and class. All values are fractions in 0..1.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from als.errors import InputError
from als.evaluation.detections import Detections, GroundTruth, flatten

# Where COCOeval.summarize() puts them in `stats`.
_MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_metrics(
    detections: Sequence[Detections],
    coco_gt: COCO,
    image_ids: Sequence[int | str],
    classes: Sequence[str] | None = None,
) -> dict[str, float]:
    """AP, AP50, AP75, APs, APm and APl, over `image_ids` only.

    detections[i] belongs to image_ids[i]; an image of `coco_gt` not named there is not judged.
    Label k is the category `classes[k - 1]`, and only these are judged; without `classes` it is
    the k-th category of `coco_gt` by rising id (COCO's own ids have gaps). A measure without ground
    truth, -1 in pycocotools, is NaN. Raises InputError on classes or labels without a category, and
    on lists of different length.
    """
    if len(detections) != len(image_ids):
        raise InputError(
            f"detections of {len(detections)} images but {len(image_ids)} image ids; give one of "
            "each per image, in the same order."
        )
    categories = _category_ids(coco_gt, classes)
    # As `COCO.loadRes` makes it, without the outlines that it draws of each box; and finding
    # nothing, on which it fails, is a result too.
    found = _annotations(detections, "scores", image_ids, categories)
    for annotation in found:
        annotation |= {"score": annotation.pop("scores"), "iscrowd": 0}
    results = _indexed(coco_gt.dataset["images"], coco_gt.dataset["categories"], found)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(coco_gt, results, iouType="bbox")
        evaluator.params.imgIds = list(image_ids)
        evaluator.params.catIds = sorted(categories)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {
        name: float(value) if value > -1 else float("nan")
        for name, value in zip(_MEASURES, evaluator.stats, strict=False)
    }


class Written(NamedTuple):
    """What a COCO file says of the objects of images, in the order of their ground truths.

    names: its categories by rising id. boxes: of each image [N, 4], x y width height.
    areas: of each image [N], those of masks.
    """

    names: Sequence[str]
    boxes: Sequence[np.ndarray]
    areas: Sequence[np.ndarray]


def as_coco(
    ground_truths: Sequence[GroundTruth],
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[str],
    written: Written | None = None,
) -> COCO:
    """Plain arrays as a COCO data set: image ids 1..I in the given order, category id = label.

    sizes[i] is (height, width) of image i. Areas are those of boxes, whereas COCO's are those of
    masks, so APs, APm and APl do not compare with published ones.

    With `written` boxes, areas and order of categories are the file's, and the measures exactly
    those of pycocotools on it. Its ids are not taken over: pycocotools reads a match to
    annotation 0 as no match and loses one of two of the same id.

    Difficult objects become crowds (iscrowd = 1), the only mark by which pycocotools ignores an
    object (it overwrites `ignore` with `iscrowd`), and like VOC's difficult objects a crowd takes
    any number of detections. Two things differ from VOC: a crowd's overlap is intersection over
    the *detection's* area, so a detection of a mere part of a difficult object is forgiven too;
    and an ordinary object that reaches the threshold goes before a crowd that overlaps more.
    Raises InputError on labels outside 1..C.
    """
    images = [
        {"id": i, "height": int(height), "width": int(width)}
        for i, (height, width) in enumerate(sizes, start=1)
    ]
    names = classes if written is None else written.names
    categories = [{"id": k, "name": name} for k, name in enumerate(names, start=1)]
    id_of = {category["name"]: category["id"] for category in categories}
    own = [id_of.get(name) for name in classes]
    annotations = _annotations(ground_truths, "difficult", range(1, len(sizes) + 1), own)
    for annotation in annotations:
        annotation["iscrowd"] = int(annotation.pop("difficult"))
    if written is not None:
        boxes = (box for some in written.boxes for box in some.tolist())
        areas = (area for some in written.areas for area in some.tolist())
        for annotation, box, area in zip(annotations, boxes, areas, strict=True):
            annotation |= {"bbox": box, "area": area}
    return _indexed(images, categories, annotations)


def _category_ids(coco_gt: COCO, classes: Sequence[str] | None) -> list[int]:
    """The category id of each label, in the order of labels."""
    if classes is None:
        return sorted(coco_gt.getCatIds())
    id_of = {category["name"]: id_ for id_, category in coco_gt.cats.items()}
    if unknown := [name for name in classes if name not in id_of]:
        raise InputError(
            f"The COCO ground truth has no category '{unknown[0]}'; check the class names."
        )
    return [id_of[name] for name in classes]


def _indexed(images: list[dict], categories: list[dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {"info": {}, "images": images, "categories": categories}
    coco.dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        coco.createIndex()
    return coco


def _annotations(
    items: Sequence[Detections] | Sequence[GroundTruth],
    value: str,
    image_ids: Sequence[int | str],
    categories: Sequence[int | None],
) -> list[dict]:
    """The boxes of all images in COCO's form, with `value` of `flatten` under its name."""
    boxes, labels, values, index = flatten(items, value, len(categories))
    sides = boxes[:, 2:] - boxes[:, :2]
    columns = (index, labels, np.hstack([boxes[:, :2], sides]), sides.prod(axis=1), values)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": n, "image_id": image_ids[i], "category_id": categories[k - 1], "bbox": box}
        | {"area": area, value: given}
        for n, (i, k, box, area, given) in enumerate(rows, start=1)
    ]
