"""Many photos: decoded ahead of the network, which takes those of one shape together."""

import copy
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from als.errors import InputError
from als.images import as_rgb, reduced
from als.model import AnyDetector
from als.model.grid import map_to_image, stretch_thin
from als.model.steps import checked_threshold
from als.predictor import Prediction, Predictor

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif"),  # not read, but said so
)
BATCH_SIZE_CPU = 2  # more gain nothing there, and would all wait for the last one
BATCH_SIZE_GPU = 8
DECODERS = 2  # threads; Pillow decodes without holding Python's lock
NETWORKS = 4  # at once on a CPU, at most; each holds a batch
PADDING = 32  # torchvision pads the sides of a batch to a multiple of this
OnError = Callable[[Path, InputError], None]


@dataclass(frozen=True)
class _Photo:
    """pixels: uint8 [H, W, 3], perhaps reduced. size: (height, width) of the photo itself."""

    path: Path
    pixels: np.ndarray
    size: tuple[int, int]
    seconds: float


class Predicted(NamedTuple):
    """One of many. photo: upright and RGB, perhaps smaller than the file's."""

    path: Path
    photo: Image.Image
    prediction: Prediction


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files as given, and for a folder every image file right in it, by name.

    Hidden files are left out. Raises InputError for a folder without an image file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        inside = [f for f in inside if f.is_file() and not f.name.startswith(".")]
        if not inside:
            raise InputError(f"{path}: there is no image file in this folder.")
        files += inside
    return files


def predict_many(
    predictor: Predictor,
    paths: Sequence[Path],
    batch_size: int | None = None,
    score_threshold: float | None = None,
    on_error: OnError | None = None,
) -> Iterator[Predicted]:
    """`Predictor.predict` of many files, faster; yields them as they are done.

    A batch holds only photos that the network would pad to one same canvas, so that each gets the
    result that it gets alone, up to rounding. The order is that of the batches. Memory holds few
    photos at a time, however many there are.

    Args:
        batch_size: photos that go through the network together, at most; by default 2 on a CPU
            and 8 on a GPU.
        score_threshold: instead of the model's own.
        on_error: is told of each file that cannot be read, which is then left out.

    Raises:
        InputError: without `on_error`, for the first file that cannot be read; a batch size
            below 1, or a threshold outside 0 to 1.
    """
    if batch_size is None:
        batch_size = BATCH_SIZE_CPU if predictor.device.type == "cpu" else BATCH_SIZE_GPU
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: give at least 1.")
    score_threshold = checked_threshold(predictor.detector, score_threshold)
    with closing(_batches(predictor, paths, batch_size, on_error)) as batches:
        yield from _run(predictor, batches, score_threshold)


def _batches(
    predictor: Predictor, paths: Sequence[Path], batch_size: int, on_error: OnError | None
) -> Iterator[list[_Photo]]:
    """Photos of one canvas each."""
    waiting: dict[tuple[int, int], list[_Photo]] = defaultdict(list)
    photos = _decoded(predictor, map(Path, paths), 2 * batch_size, on_error)
    with closing(photos):
        for photo in photos:
            group = waiting[_canvas(predictor, photo.pixels.shape[:2])]
            group.append(photo)
            if len(group) < batch_size and sum(map(len, waiting.values())) < 4 * batch_size:
                continue
            # One group is full, or so many photos wait that the largest group has to do.
            largest = max(waiting, key=lambda canvas: len(waiting[canvas]))
            yield waiting.pop(largest)
        yield from waiting.values()


def _run(
    predictor: Predictor, batches: Iterator[list[_Photo]], score_threshold: float
) -> Iterator[Predicted]:
    """The predictions of batches, in their order.

    On a CPU a network runs on each core: its layers are too small to be divided well among cores,
    above all while another thread writes pictures.
    """
    cores = torch.get_num_threads()
    count = min(cores, NETWORKS) if predictor.device.type == "cpu" else 1
    idle: SimpleQueue[AnyDetector] = SimpleQueue()
    for _ in range(count):
        idle.put(_twin(predictor.detector, score_threshold))

    def run(photos: list[_Photo]) -> list[Predicted]:
        detector = idle.get()
        try:
            return _predict(predictor, detector, photos)
        finally:
            idle.put(detector)

    running: deque[Future] = deque()
    try:
        with ThreadPoolExecutor(count, "network", torch.set_num_threads, (cores // count,)) as pool:
            for photos in batches:
                running.append(pool.submit(run, photos))
                if len(running) > count:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
    finally:
        torch.set_num_threads(cores)  # threads that start later would have the networks' number


def _twin(detector: AnyDetector, score_threshold: float) -> AnyDetector:
    """The same weights in modules of their own, so that two threads do not meet in them."""
    shared = {id(tensor): tensor for tensor in (*detector.parameters(), *detector.buffers())}
    twin = copy.deepcopy(detector, shared)
    twin.score_threshold = score_threshold
    return twin


def _decoded(
    predictor: Predictor, paths: Iterator[Path], ahead: int, on_error: OnError | None
) -> Iterator[_Photo]:
    """Photos in the order of `paths`; `ahead` files are decoded or being decoded meanwhile."""
    longest = 2 * predictor.detector.config.max_size
    with ThreadPoolExecutor(DECODERS) as pool:
        running: deque[tuple[Path, Future]] = deque()
        try:
            while True:
                for path in islice(paths, ahead - len(running)):
                    running.append((path, pool.submit(_decode, path, longest)))
                if not running:
                    return
                path, future = running.popleft()
                try:
                    photo = future.result()
                except InputError as error:
                    if on_error is None:
                        raise
                    on_error(path, error)
                else:
                    yield photo
        finally:
            for _, future in running:
                future.cancel()


def _decode(path: Path, longest: int) -> _Photo:
    started = time.perf_counter()
    image = as_rgb(path)
    pixels = np.array(reduced(image, longest))
    return _Photo(path, pixels, (image.height, image.width), time.perf_counter() - started)


def _canvas(predictor: Predictor, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to which the network resizes and pads an image of this (height, width)."""
    config = predictor.detector.config
    scale = min(config.min_size / min(size), config.max_size / max(size))
    height, width = (math.ceil(max(1, int(side * scale)) / PADDING) * PADDING for side in size)
    return height, width


@torch.inference_mode(False)
@torch.no_grad()
def _predict(predictor: Predictor, detector: AnyDetector, photos: list[_Photo]) -> list[Predicted]:
    """One batch through the network."""
    started = time.perf_counter()
    encoding = detector.encode([_tensor(predictor, photo.pixels) for photo in photos])
    encoding.original_sizes = [photo.size for photo in photos]
    found = detector.detect(encoding)
    seconds = (time.perf_counter() - started) / len(photos)
    results = []
    for i, (photo, one) in enumerate(zip(photos, found, strict=True)):
        labels = one["labels"].cpu().numpy()
        prediction = Prediction(
            boxes=one["boxes"].cpu().numpy(),
            labels=labels,
            names=[predictor.classes[label - 1] for label in labels],
            scores=one["scores"].cpu().numpy(),
            localization_map=map_to_image(encoding.a_loc, encoding, i),
            classification_map=map_to_image(encoding.a_cls, encoding, i),
            size=photo.size,
            seconds={"decode": photo.seconds, "network": seconds},
        )
        results.append(Predicted(photo.path, Image.fromarray(photo.pixels), prediction))
    return results


def _tensor(predictor: Predictor, pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in 0..1, as `Predictor.analyse` makes it."""
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).to(predictor.device).float() / 255
    return stretch_thin(tensor, predictor.detector.config.max_size)
