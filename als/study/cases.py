"""What is measured on: objects of a photograph that the detector found, with their regions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from als.data.masks import VOID, read_class_map
from als.data.record import Record
from als.explain.localization import box_region
from als.explain.parts import Animal, head_disc, match_animal, read_animals
from als.inference import Prediction

MATCH_IOU = 0.5
# COCO's borders between small, medium and large, in pixels of area of the box.
SIZES = ((32**2, "small"), (96**2, "medium"), (float("inf"), "large"))


@dataclass(frozen=True)
class Case:
    """One annotated object and the detection that found it.

    index: of the object in its record. name: class. size: "small", "medium" or "large".
    detection: row of the prediction: the highest score among those of the object's class that
        overlap it by IoU 0.5 or more and no other object of the class more; None if missed.
    box: bool [H, W], pixels of the annotated box. mask: bool [H, W], pixels of the object, and
        others: of all other annotated objects; known: not void. None (known: all) without a mask.
    head: bool [H, W], the disc of `als.explain.parts.head_disc`, or None.

    A class mask does not tell instances apart: the object is what its class has in its box, so
    another instance of the class that reaches into the box counts as the object there.
    """

    index: int
    name: str
    size: str
    detection: int | None
    box: np.ndarray
    known: np.ndarray
    mask: np.ndarray | None
    others: np.ndarray | None
    head: np.ndarray | None


def cases_of(
    record: Record, classes: tuple[str, ...], prediction: Prediction, animals: list[Animal]
) -> list[Case]:
    """The objects of one image, those marked difficult left out.

    Args:
        prediction: of the very image. animals: its keypoints, may be empty.

    Raises:
        InputError: the mask cannot be read.
    """
    found = match_detections(record, prediction)
    labels = read_class_map(record, classes)
    boxes = [box_region(box, record.size) for box in record.boxes]
    masks = None
    if labels is not None:
        pairs = zip(boxes, record.labels, strict=True)
        masks = [region & (labels == label) for region, label in pairs]
    cases = []
    for index in np.flatnonzero(~record.difficult):
        name = classes[record.labels[index] - 1]
        animal = match_animal(animals, record.boxes[index], name)
        has_mask = masks is not None and masks[index].any()
        rest = [m for i, m in enumerate(masks or []) if i != index]
        nothing = np.zeros(record.size, bool)
        cases.append(
            Case(
                index=int(index),
                name=name,
                size=size_name(record.boxes[index]),
                detection=found.get(int(index)),
                box=boxes[index],
                known=labels != VOID if has_mask else ~nothing,
                mask=masks[index] if has_mask else None,
                others=np.any([nothing, *rest], axis=0) if has_mask else None,
                head=head_disc(animal, record.size) if animal and has_mask else None,
            )
        )
    return cases


def match_detections(record: Record, prediction: Prediction) -> dict[int, int]:
    """Object of the record -> row of the prediction, as `Case.detection` says."""
    if not len(record.boxes) or not len(prediction.boxes):
        return {}
    iou = box_iou(torch.from_numpy(prediction.boxes), torch.from_numpy(record.boxes)).numpy()
    iou[prediction.labels[:, None] != record.labels[None]] = 0
    best = iou.argmax(1)
    found: dict[int, int] = {}
    for row in range(len(iou)):  # by falling score
        if iou[row, best[row]] >= MATCH_IOU:
            found.setdefault(int(best[row]), row)
    return found


def size_name(box: np.ndarray) -> str:
    """ "small", "medium" or "large" by the area of a box [4], with COCO's borders."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return next(name for limit, name in SIZES if area < limit)


def keypoints_of(records: list[Record]) -> dict[str, list[Animal]]:
    """Image id -> animals, from the keypoints files that lie in the records' folders, if any."""
    files = {r.path.parents[1] / "Keypoints" / "animal_keypoints.json" for r in records}
    animals: dict[str, list[Animal]] = {}
    for file in sorted(files):
        if Path(file).is_file():
            animals |= read_animals(file)
    return animals
