"""Draws a small data set in the VOC layout, to try everything on without a download.

Circles, squares and triangles on textured ground, each with a dark dot at its rim, its head: a
place that is a part of the object, as the head of an animal is.
"""

import json
import shlex
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from als.data.masks import palette
from als.data.rle import VOID
from als.errors import InputError
from als.files import atomic_folder

TOY_CLASSES = ("circle", "square", "triangle")

_SCALE = 4  # drawn larger by this and shrunk, which smooths the edges
_COLOURS = ((214, 90, 70), (80, 150, 215), (110, 185, 90))
_CORNERS = {"circle": 72, "square": 4, "triangle": 3}
_MASK_FOLDERS = ("SegmentationClass", "SegmentationObject")
_SPLITS = (("train", "trainval"), ("train", "trainval"), ("val", "trainval"), ("test",))


@dataclass(frozen=True)
class Shape:
    """A drawn object. Points are (x, y) in pixels, 0-based.

    cover: float [H, W], the share of each pixel that it covers.
    head: middle of the dark dot; tail: the opposite point.
    """

    name: str
    cover: np.ndarray
    head: tuple[float, float]
    tail: tuple[float, float]
    difficult: bool

    @property
    def mask(self) -> np.ndarray:
        return self.cover > 0.5

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels, half-open."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def write_toy(
    folder: Path, images: int = 24, seed: int = 0, size: tuple[int, int] = (120, 160)
) -> None:
    """Write a toy data set of TOY_CLASSES as FOLDER/VOC2012, complete or not at all.

    Half of the images are in train, a quarter each in val and test. Every fifth image stands
    upright, about every fifth has a faint object marked difficult (void in the masks, as in VOC),
    and every eighth has no mask. classes.txt says what the mask values mean.
    Keypoints/animal_keypoints.json holds head ("nose") and tail ("tailbase") of the objects that
    are not difficult, in 0-based pixels.

    size: (height, width) of an image that lies. The same arguments draw the same images.

    Raises InputError when `folder` holds something already, for fewer than 4 images or images
    under 64 pixels, and for a negative seed.
    """
    folder = Path(folder)
    if images < 4 or min(size) < 64:
        raise InputError(
            f"a toy set of {images} images of {size[1]}x{size[0]} pixels: use at least 4 images, "
            "one for each part of the splits, of at least 64 pixels a side."
        )
    if seed < 0:
        raise InputError(f"seed {seed}: give at least 0.")
    with atomic_folder(folder) as aside:
        _write_all(aside / "VOC2012", images, seed, size)


def next_commands(folder: Path) -> list[str]:
    """What to do with a toy set, as the shell takes it."""
    root, classes = shlex.quote(str(folder)), ", ".join(TOY_CLASSES)
    return [
        f"als data check {root}/VOC2012",
        f"als train configs/compact-stage1.yaml --data.root {root} --data.train VOC2012:train "
        f"--model.classes '[{classes}]' --out runs/toy",
        f"als evaluate runs/toy/model.safetensors --data VOC2012:test --root {root}",
        f"als predict runs/toy/model.safetensors {root}/VOC2012/JPEGImages",
    ]


def _write_all(root: Path, images: int, seed: int, size: tuple[int, int]) -> None:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages", "Keypoints", *_MASK_FOLDERS):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(TOY_CLASSES) + "\n")
    splits: dict[str, list[str]] = {"train": [], "val": [], "trainval": [], "test": []}
    keypoints = {}
    for index in range(images):
        image_id = f"toy_{index:06d}"
        rng = np.random.default_rng([seed, index])
        upright = index % 5 == 3
        ground = _ground(rng, size[::-1] if upright else size)
        shapes = _shapes(rng, ground.shape[:2], first_class=index, difficult=index % 5 == 1)
        picture = Image.fromarray(_paint(rng, ground, shapes))
        picture.save(root / "JPEGImages" / f"{image_id}.jpg", quality=95, subsampling=0)
        _write_xml(root / "Annotations" / f"{image_id}.xml", image_id, picture.size, shapes)
        if index % 8 != 4:
            _write_masks(root, image_id, shapes)
        keypoints[image_id] = [_keypoints(shape) for shape in shapes if not shape.difficult]
        for split in _SPLITS[index % 4]:
            splits[split].append(image_id)
    for split, ids in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    (root / "Keypoints" / "animal_keypoints.json").write_text(json.dumps(keypoints))


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Coloured clouds with grain: float [H, W, 3] in 0..255."""
    clouds = rng.normal(size=(*size, 3))
    clouds = ndimage.gaussian_filter(clouds, (8, 8, 0))
    clouds *= 18 / clouds.std()
    return rng.uniform(110, 170, size=3) + clouds + rng.normal(scale=6, size=(*size, 1))


def _shapes(
    rng: np.random.Generator, size: tuple[int, int], first_class: int, difficult: bool
) -> list[Shape]:
    """One to three shapes that do not touch; with `difficult` a further, difficult one."""
    count = int(rng.integers(1, 4)) + difficult
    shapes: list[Shape] = []
    taken: list[tuple[np.ndarray, float]] = []
    for _ in range(60):  # tries to place a shape; the first always succeeds
        radius = rng.uniform(0.13, 0.27) * min(size)
        centre = rng.uniform(radius + 2, np.array(size[::-1]) - radius - 2)
        if any(np.hypot(*(centre - c)) < radius + r + 3 for c, r in taken):
            continue
        taken.append((centre, radius))
        name = TOY_CLASSES[(first_class + len(shapes)) % len(TOY_CLASSES)]
        is_last = len(shapes) == count - 1
        shapes.append(_shape(rng, name, centre, radius, size, difficult and is_last))
        if is_last:
            break
    return shapes


def _shape(
    rng: np.random.Generator,
    name: str,
    centre: np.ndarray,
    radius: float,
    size: tuple[int, int],
    difficult: bool,
) -> Shape:
    corners = _CORNERS[name]
    angle = rng.uniform(0, 2 * np.pi)
    turns = angle + 2 * np.pi * np.arange(corners) / corners
    outline = centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    head = centre + 0.6 * radius * np.array([np.cos(angle), np.sin(angle)])
    canvas = Image.new("L", (size[1] * _SCALE, size[0] * _SCALE))
    ImageDraw.Draw(canvas).polygon([tuple(point * _SCALE) for point in outline], fill=255)
    cover = np.asarray(canvas.resize((size[1], size[0]), Image.Resampling.BOX)) / 255
    tail = 2 * centre - head if corners != 3 else centre - 0.8 * (head - centre) / 2
    return Shape(name, cover, tuple(head.tolist()), tuple(tail.tolist()), difficult)


def _paint(rng: np.random.Generator, ground: np.ndarray, shapes: list[Shape]) -> np.ndarray:
    """uint8 [H, W, 3]."""
    picture = ground.copy()
    rows, columns = np.mgrid[: ground.shape[0], : ground.shape[1]]
    for shape in shapes:
        colour = np.array(_COLOURS[rng.integers(len(_COLOURS))]) + rng.normal(scale=15, size=3)
        grain = rng.normal(scale=8, size=(*shape.cover.shape, 1))
        opacity = shape.cover[..., None] * (0.25 if shape.difficult else 1.0)
        picture += opacity * (colour + grain - picture)
        radius = 0.11 * np.sqrt(shape.cover.sum())
        distance = np.hypot(columns + 0.5 - shape.head[0], rows + 0.5 - shape.head[1])
        dot = np.clip(radius + 0.5 - distance, 0, 1)[..., None] * opacity
        picture += dot * (25 - picture)
    return picture.clip(0, 255).round().astype(np.uint8)


def _write_masks(root: Path, image_id: str, shapes: list[Shape]) -> None:
    """Class and object map, with a void border as in VOC; difficult objects are void."""
    class_map = np.zeros(shapes[0].cover.shape, dtype=np.uint8)
    object_map = class_map.copy()
    for number, shape in enumerate(shapes, start=1):
        inside = ndimage.binary_erosion(shape.mask)
        border = ndimage.binary_dilation(shape.mask) & ~inside
        class_map[inside] = VOID if shape.difficult else TOY_CLASSES.index(shape.name) + 1
        object_map[inside] = VOID if shape.difficult else number
        for values in (class_map, object_map):
            values[border] = VOID
    for name, values in zip(_MASK_FOLDERS, (class_map, object_map), strict=True):
        image = Image.fromarray(values)
        image.putpalette(palette())
        image.save(root / name / f"{image_id}.png")


def _write_xml(path: Path, image_id: str, size: tuple[int, int], shapes: list[Shape]) -> None:
    """size: (width, height). VOC corners are 1-based and inclusive."""
    root = ET.Element("annotation")
    _fill(root, folder="VOC2012", filename=f"{image_id}.jpg")
    _fill(ET.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    for shape in shapes:
        x1, y1, x2, y2 = shape.box
        element = ET.SubElement(root, "object")
        _fill(element, name=shape.name, difficult=int(shape.difficult))
        _fill(ET.SubElement(element, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ET.indent(root)
    ET.ElementTree(root).write(path)


def _fill(element: ET.Element, **values: str | int) -> None:
    for key, value in values.items():
        ET.SubElement(element, key).text = str(value)


def _keypoints(shape: Shape) -> dict:
    points = {"nose": shape.head, "tailbase": shape.tail}
    return {
        "name": shape.name,
        "bbox": [float(value) for value in shape.box],
        "keypoints": {key: [round(v, 1) for v in point] for key, point in points.items()},
    }
