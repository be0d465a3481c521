"""What pycocotools says, used by hand as in its own demo."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def pycocotools_summary(
    annotations: Path,
    results: Path | list[dict],
    image_ids: Sequence[int] | None = None,
    category: int | None = None,
) -> list[float]:
    """`NAMES` of a results JSON, or its rows; -1 where there is no object."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        found = truth.loadRes(results if isinstance(results, list) else str(results))
        evaluator = COCOeval(truth, found, "bbox")
        if image_ids is not None:
            evaluator.params.imgIds = list(image_ids)
        if category is not None:
            evaluator.params.catIds = [category]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats[: len(NAMES)]]
