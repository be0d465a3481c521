"""Records as a torch data set of (image, target), reproducible sample by sample."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from als.data.derived_masks import kept_object_map
from als.data.masks import read_object_map
from als.data.record import Record, read_photo
from als.errors import InputError
from als.images import Photo

Image = Tensor | Photo
Target = dict[str, Any]


class DetectionDataset(Dataset):
    """Images and training targets of records.

    An item is (image, target). The image is uint8 [3, H, W], the pixels of `als.images.as_rgb`, or
    what the transform makes of them. The target is a dict of
        boxes: tv_tensors.BoundingBoxes float32 [N, 4], x1 y1 x2 y2 in pixels of the image given,
        labels: int64 [N], 1 to C,
        object_map: tv_tensors.Mask uint8 [H, W], 1 object, 0 background, 255 void; the key is
            absent when the image has no mask and `masks` is "files",
        image_id: str.
    Difficult objects are not in it.

    Args:
        records: see `als.data.layouts.load_records`.
        classes: the classes that the records were loaded with; the object map shows these.
        transform: one of `als.data.transforms`.
        skip_broken: give None for a sample that cannot be read, which `collate` leaves out,
            instead of raising.
        keep_decoded: keep images and object maps in memory once they are read, 4 bytes a pixel at
            most. Each loading process keeps its own, in the end all of them.
        derived: a folder for object maps that are made from the boxes of images without a mask;
            None makes none.
    """

    def __init__(
        self,
        records: Sequence[Record],
        classes: Sequence[str],
        transform: Callable[[Tensor, Target], tuple[Image, Target]] | None = None,
        skip_broken: bool = False,
        keep_decoded: bool = False,
        derived: Path | None = None,
    ) -> None:
        self.derived = derived
        self.records = list(records)
        self.classes = tuple(classes)
        self.transform = transform
        self.skip_broken = skip_broken
        self.kept: dict[int, tuple[Tensor, Tensor | None]] | None = {} if keep_decoded else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Image, Target] | None:
        """The sample of an index, or of (index, seed of its batch).

        With a seed the augmentation draws from it and the index alone, and the surrounding random
        state is left as it was: order, number of workers and resumption do not change a sample.

        Raises InputError when the image or its mask cannot be read, or has another size than the
        annotation says (None with `skip_broken`).
        """
        try:
            return self._drawn(item)
        except InputError as error:
            if not self.skip_broken:
                # Of this class itself: a worker's exception is made anew from its text alone.
                raise InputError(str(error)) from error
            return None

    def _drawn(self, item: int | tuple[int, int]) -> tuple[Image, Target]:
        if isinstance(item, int):
            return self._sample(item)
        index, batch_seed = item
        own_seed = int(np.random.SeedSequence(item).generate_state(1, np.uint64)[0])
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # as workers have: how resizing rounds hangs on the number
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: it would also set the accelerators, which are not restored.
                torch.default_generator.manual_seed(own_seed)
                image, target = self._sample(index, batch_seed)
        finally:
            torch.set_num_threads(threads)
        del target["batch_seed"]
        return image, target

    def _sample(self, index: int, batch_seed: int | None = None) -> tuple[Image, Target]:
        if self.kept is None:
            pixels, object_map = self._read(self.records[index])
        else:
            if index not in self.kept:
                self.kept[index] = self._read(self.records[index])
            pixels, object_map = self.kept[index]  # transforms make new tensors
        image, target = tv_tensors.Image(pixels), self._target(self.records[index])
        if object_map is not None:
            target["object_map"] = tv_tensors.Mask(object_map)
        if batch_seed is not None:
            target["batch_seed"] = batch_seed  # of the size that the batch shares
        if self.transform is not None:
            image, target = self.transform(image, target)
        return image if isinstance(image, Photo) else image.as_subclass(Tensor), target

    def _read(self, record: Record) -> tuple[Tensor, Tensor | None]:
        """The decoded image uint8 [3, H, W] and object map uint8 [H, W]."""
        pixels = functional.pil_to_tensor(read_photo(record.path, record.size))
        object_map = read_object_map(record, self.classes)
        if object_map is None and self.derived is not None:
            object_map = kept_object_map(record, self.derived)
        return pixels, None if object_map is None else torch.from_numpy(object_map)

    def _target(self, record: Record) -> Target:
        easy = ~record.difficult
        return {
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(record.boxes[easy]), format="XYXY", canvas_size=record.size
            ),
            "labels": torch.from_numpy(record.labels[easy]),
            "image_id": record.image_id,
        }


def collate(batch: Sequence[tuple[Image, Target] | None]) -> tuple[list[Image], list[Target]]:
    """A batch for the detector: images of different sizes stay a list; a None is left out."""
    samples = [sample for sample in batch if sample is not None]
    return [image for image, _ in samples], [target for _, target in samples]
