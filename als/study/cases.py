"""What is measured on: photographs, and in each the annotated objects that the detector found."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou, masks_to_boxes

from als.data.fields import numbers
from als.data.masks import read_class_map, read_instances
from als.data.record import Record
from als.data.rle import VOID
from als.data.voc_layout import data_folder
from als.errors import InputError
from als.explain.faithfulness import Curves
from als.explain.map_measures import box_region
from als.explain.registry import DRISE_MASKS
from als.images import as_rgb
from als.inference import Prediction, Predictor
from als.model import Detector

MATCH_IOU = 0.5
# COCO's borders between small, medium and large, in pixels of area of the box.
SIZES = ((32**2, "small"), (96**2, "medium"), (float("inf"), "large"))
HEAD = ("left_eye", "right_eye", "nose", "left_ear", "right_ear")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SMALLEST_HEAD = 0.15  # radius, as a share of the square root of the box's area


@dataclass(frozen=True)
class Animal:
    """Keypoints of one object (Animal-Pose, Cao et al. 2019).

    name: class. box: float32 [4] xyxy. keypoints: (x, y) of the visible ones by name. In 0-based
    pixels of the image.
    """

    name: str
    box: np.ndarray
    keypoints: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """One annotated object and the detection that found it.

    index: of the object in its record. name: class. size: "small", "medium" or "large".
    detection: row of the prediction: the highest score among those of the object's class that
        overlap it by IoU 0.5 or more and no other object of the class more; None if missed.
    box: bool [H, W], pixels of the annotated box. mask: bool [H, W], pixels of the object, and
        others: of all other annotated objects; known: not void. None (known: all) without a mask.
    head: bool [H, W], the disc of `head_disc`, or None.

    The object is its instance where the data tell instances apart (COCO, SegmentationObject/). A
    class mask does not: there the object is what its class has in its box, so that another instance
    of the class that reaches into the box counts as the object there.
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


class StudiedPhoto:
    """A photograph: its objects (`cases`), those that were found (`seen`), and their scene.

    animals: of `keypoints_of`. stages: of `als.study.sanity.randomized`. Raises InputError where
    the photograph or its mask cannot be read.
    """

    def __init__(
        self,
        predictor: Predictor,
        record: Record,
        animals: dict[str, list[Animal]] | None = None,
        stages: dict[str, Detector] | None = None,
        seed: int = 0,
        drise_masks: int = DRISE_MASKS,
    ):
        self.predictor, self.record, self.stages = predictor, record, stages or {}
        self.seconds: dict[str, float] = {}  # that the maps of a name took
        self.passes: dict[str, int] = {}  # of images through the network, for the same
        self._areas: dict[tuple[str, str], list[float]] = {}
        self.image = as_rgb(record.path)
        analysis = predictor.analyse(self.image)
        self.prediction = analysis.prediction
        keypoints = (animals or {}).get(record.image_id, [])
        self.cases = cases_of(record, predictor.classes, self.prediction, keypoints)
        self.seen = [case for case in self.cases if case.detection is not None]
        rows = [case.detection for case in self.seen]
        self.scene = predictor.scene(analysis, rows, own_seed(record, seed), drise_masks)

    @cached_property
    def curves(self) -> Curves:
        """Insertion and deletion, which share what all maps begin and end with."""
        return Curves(self.scene)

    def areas(self, name: str, maps: np.ndarray, curve: str) -> list[float]:
        """`Curves.areas` of the maps of a name, which two measures ask for."""
        if (name, curve) not in self._areas:
            self._areas[name, curve] = self.curves.areas(maps, curve)
        return self._areas[name, curve]


def own_seed(record: Record, seed: int) -> int:
    """A seed of the image's id, so that what is drawn does not depend on what else is studied."""
    return seed + int.from_bytes(hashlib.sha256(record.image_id.encode()).digest()[:4])


def cases_of(
    record: Record, classes: tuple[str, ...], prediction: Prediction, animals: list[Animal]
) -> list[Case]:
    """The objects of one image with its keypoints, those marked difficult left out.

    Raises InputError where the mask cannot be read.
    """
    found = match_detections(record, prediction)
    labels = read_class_map(record, classes)
    boxes = [box_region(box, record.size) for box in record.boxes]
    masks, cases = [], []
    if labels is not None:
        pairs = zip(boxes, record.labels, strict=True)
        masks = [region & (labels == label) for region, label in pairs]
        masks = own_instances(masks, record.boxes, read_instances(record, labels))
    for index in np.flatnonzero(~record.difficult):
        name = classes[record.labels[index] - 1]
        animal = match_animal(animals, record.boxes[index], name)
        has_mask = labels is not None and masks[index].any()
        rest = [m for i, m in enumerate(masks) if i != index]
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


def own_instances(
    masks: list[np.ndarray], boxes: np.ndarray, instances: list[np.ndarray]
) -> list[np.ndarray]:
    """The masks of objects of `boxes` [N, 4], each cut to the instance whose box fits its own best.

    Instances without a pixel of the mask are of another class. An object that fits none by IoU 0.5
    keeps its mask. masks, instances: bool [H, W] each. boxes: xyxy, pixels.
    """
    seen = [pixels for pixels in instances if pixels.any()]
    if not seen or not masks:
        return masks
    around = masks_to_boxes(torch.from_numpy(np.stack(seen))) + torch.tensor([0, 0, 1, 1])
    iou = box_iou(torch.from_numpy(boxes), around.float()).numpy()
    iou[[[not (mask & one).any() for one in seen] for mask in masks]] = 0
    best = iou.argmax(1)
    fits = iou.max(1) >= MATCH_IOU
    return [m & seen[k] if fit else m for m, k, fit in zip(masks, best, fits, strict=True)]


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


def keypoints_of(records: Sequence[Record]) -> dict[str, list[Animal]]:
    """Image id -> animals, from the keypoints files that lie in the records' folders, if any."""
    animals: dict[str, list[Animal]] = {}
    for folder in sorted({data_folder(record) for record in records if record.coco is None}):
        if (file := folder / "Keypoints" / "animal_keypoints.json").is_file():
            animals |= read_animals(file)
    return animals


def read_animals(path: Path) -> dict[str, list[Animal]]:
    """Animals of each image id, from `Keypoints/animal_keypoints.json` of a VOC-layout folder.

    The file: image id -> list of {"name", "bbox": [xmin, ymin, xmax, ymax], "keypoints": {name:
    [x, y]}}. Raises InputError where it is missing or of another form.
    """
    try:
        return {
            image_id: [
                Animal(
                    a["name"],
                    np.array(numbers(a["bbox"], CORNERS, "bbox"), np.float32),
                    {n: tuple(numbers(p, "xy", n)) for n, p in a["keypoints"].items()},
                )
                for a in animals
            ]
            for image_id, animals in json.loads(Path(path).read_text()).items()
        }
    except OSError as error:
        raise InputError(f"{path}: no keypoints can be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a keypoints file ({type(error).__name__}: {error}); it must map image "
            "ids to lists of name, bbox and keypoints."
        ) from error


def match_animal(animals: list[Animal], box, name: str) -> Animal | None:
    """The animal of class `name` whose box fits `box` [4] best; None below IoU 0.5."""
    same = [animal for animal in animals if animal.name == name]
    if not same:
        return None
    boxes = torch.tensor(np.stack([animal.box for animal in same]), dtype=torch.float64)
    iou = box_iou(boxes, torch.tensor(np.asarray(box), dtype=torch.float64)[None])[:, 0]
    return same[int(iou.argmax())] if iou.max() >= MATCH_IOU else None


def head_disc(animal: Animal, size: tuple[int, int]) -> np.ndarray | None:
    """The head: a disc around the mean of the eyes, nose and ears that are visible.

    bool [H, W] of an image of size (height, width); None without a head keypoint. It reaches to
    the farthest of them, and at least 0.15 of the square root of the box's area, for a head seen
    from the side or by one point.
    """
    points = np.array([animal.keypoints[n] for n in HEAD if n in animal.keypoints], dtype=float)
    if len(points) == 0:
        return None
    centre, (x1, y1, x2, y2) = points.mean(0), animal.box
    smallest = SMALLEST_HEAD * np.sqrt(float(x2 - x1) * float(y2 - y1))
    radius = max(smallest, np.linalg.norm(points - centre, axis=1).max())
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None, :] + 0.5
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
