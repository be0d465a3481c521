"""Segmentation masks of an image, whatever file they come from, as one label per pixel.

Of an image without a mask the functions here return None, never an empty map, because an empty map
would teach that nothing is there.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.io

from als.data.record import MaskSource, Record
from als.data.rle import VOID, read_runs
from als.errors import InputError
from als.images import open_image


def find_masks(
    folder: Path, image_id: str, class_names: Sequence[str], object_names: Sequence[str]
) -> list[MaskSource]:
    """All masks of an image in a folder of the VOC layout; the first is the one to use.

    class_names: the data set's classes; pixel value k of a class map is `class_names[k - 1]`.
    object_names: classes of all objects in the image's XML, in its order.
    """
    classes, objects = tuple(class_names), tuple(object_names)
    candidates = (
        MaskSource("png", folder / "SegmentationClass" / f"{image_id}.png", classes),
        MaskSource("png", folder / "SegmentationObject" / f"{image_id}.png", objects),
        MaskSource("sbd-class", folder / "SBD" / "cls" / f"{image_id}.mat", classes),
        MaskSource("sbd-instance", folder / "SBD" / "inst" / f"{image_id}.mat", classes),
    )
    return [source for source in candidates if source.path.is_file()]


def read_class_map(record: Record, classes: Sequence[str]) -> np.ndarray | None:
    """The label of every pixel: uint8 [H, W], or None when the image has no mask.

    k is `classes[k - 1]`, as in `record.labels`; 0 is the background and every class outside
    `classes`; 255 is void. Where COCO's objects overlap, the smaller is on top.

    Raises InputError when the mask cannot be read, has values without a meaning, or has not the
    size of the image.
    """
    source = record.mask
    if source is None:
        return None
    known = {name: label for label, name in enumerate(classes, start=1)}
    labels = [known.get(name, 0) for name in source.names]
    if source.instances is not None:
        return source.instances.draw(record.size, labels)
    values = _read_values(source)
    if values.shape != record.size:
        raise InputError(
            f"{source.path}: the mask is {values.shape[1]}x{values.shape[0]} pixels but the image "
            f"is {record.size[1]}x{record.size[0]}; replace the mask or remove it."
        )
    highest = np.bincount(values.ravel(), minlength=256)[:VOID].nonzero()[0].max(initial=0)
    if highest > len(source.names):
        raise InputError(
            f"{source.path}: pixel value {highest} has no meaning, the highest that has one is "
            f"{len(source.names)}; replace the mask or remove it."
        )
    table = np.zeros(256, dtype=np.uint8)
    table[VOID] = VOID
    labels = labels[: VOID - 1]  # a file has no values for more
    table[1 : len(labels) + 1] = labels
    return table[values]


def read_instances(record: Record, labels: np.ndarray) -> list[np.ndarray]:
    """The pixels of each object, bool [H, W], where a data set tells objects apart; else none.

    So do COCO, whose crowds are no object, and SegmentationObject/ in VOC's layout. `labels` as of
    `read_class_map`: what is void or of no class there is no object's. Raises InputError as that.
    """
    source = record.mask
    if source is not None and source.instances is not None:
        told = zip(source.instances.runs, source.instances.void, strict=True)
        whole = [read_runs(runs, record.size) for runs, void in told if not void]
    elif source is not None and source.kind == "png":
        folder = source.path.parents[1 + record.image_id.count("/")]
        values = read_object_numbers(record, folder, highest=VOID - 1)
        if values is None:
            return []
        whole = [values == value for value in np.unique(values) if value not in (0, VOID)]
    else:
        return []
    return [pixels & (labels > 0) & (labels != VOID) for pixels in whole]


def read_object_numbers(record: Record, folder: Path, highest: int) -> np.ndarray | None:
    """The number of the object of each pixel, uint8 [H, W], in the order of the XML, 255 void.

    It lies in FOLDER/SegmentationObject; None where it does not. Raises InputError as
    `read_class_map` does, too for a number above `highest`.
    """
    path = folder / "SegmentationObject" / f"{record.image_id}.png"
    if not path.is_file():
        return None
    names = tuple(f"object {number}" for number in range(1, highest + 1))
    # Read as a class map of which every object is a class of its own.
    return read_class_map(replace(record, mask=MaskSource("png", path, names)), names)


def shown_classes(source: MaskSource) -> set[str]:
    """The names of the classes that have a pixel in a mask of a file of its own.

    A value that means no class is "value 9". Raises InputError when the mask cannot be read.
    """
    values = np.unique(_read_values(source)).tolist()
    known = dict(enumerate(source.names, start=1))
    return {known.get(value, f"value {value}") for value in values if value not in (0, VOID)}


def read_object_map(record: Record, classes: Sequence[str]) -> np.ndarray | None:
    """The target of the localization attention map (paper, section 2.1), or None without a mask.

    uint8 [H, W] at the size of the image: 1 for pixels of an object of `classes`, 0 otherwise,
    255 void. Raises InputError as `read_class_map` does.
    """
    labels = read_class_map(record, classes)
    if labels is None:
        return None
    return np.where(labels == VOID, VOID, labels > 0).astype(np.uint8)


def fill(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether each pixel of an image of `size` (height, width) is touched by a box: bool [H, W].

    boxes: float [N, 4], x1 y1 x2 y2 in pixels.
    """
    inside = np.zeros(size, dtype=bool)
    low = np.floor(boxes[:, :2]).clip(0).astype(int)
    high = np.ceil(boxes[:, 2:]).clip(0).astype(int)
    for (x1, y1), (x2, y2) in zip(low, high, strict=True):
        inside[y1:y2, x1:x2] = True
    return inside


def _read_values(source: MaskSource) -> np.ndarray:
    """The pixel values as stored: uint8 [H, W]. SBD's instances become the class of each."""
    try:
        if source.kind == "png":
            told = f"{source.path}: the mask cannot be read"
            with open_image(source.path, told, formats=("PNG",)) as image:
                if image.mode in ("P", "L"):
                    return np.array(image)
                raise InputError(
                    f"{source.path}: the mask has pixels of mode {image.mode} where an index of "
                    "8 bit is needed; save it as a palette PNG."
                )
        mat = scipy.io.loadmat(source.path)
        if source.kind == "sbd-class":
            return mat["GTcls"]["Segmentation"][0, 0].astype(np.uint8)
        instances = mat["GTinst"]["Segmentation"][0, 0]
        categories = mat["GTinst"]["Categories"][0, 0].ravel()
        return np.concatenate([[0], categories])[instances].astype(np.uint8)
    except InputError:
        raise
    except Exception as error:  # scipy and PIL raise many kinds for a broken file
        raise InputError(
            f"{source.path}: the mask cannot be read ({error}); replace it or remove it."
        ) from error


def palette() -> bytes:
    """VOC's colours: the bits of a value are dealt to red, green, blue, highest bit first."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for value in range(256):
        for bit in range(8):
            colours[value, bit % 3] |= ((value >> bit) & 1) << (7 - bit // 3)
    return colours.tobytes()
