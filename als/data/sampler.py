"""Batches of one shape, in an order that can be resumed in the middle of an epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from als.data.record import Record
from als.errors import InputError

Batch = list[tuple[int, int]]


def repeat_factors(records: Sequence[Record], threshold: float) -> np.ndarray:
    """How often an epoch should see each image, float64 [N], at least 1.

    Repeat factor sampling (Gupta et al. 2019, LVIS, section 3.3): a class that a share f of the
    images shows asks for sqrt(threshold / f), an image for the most that one of its classes asks.
    """
    classes = [np.unique(record.labels) for record in records]
    share = np.bincount(np.concatenate([[0], *classes])) / max(1, len(records))
    asked = np.maximum(1, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.array([asked[own].max(initial=1) for own in classes])


class AspectBatchSampler(Sampler[Batch]):
    """Yields batches of (index, seed) for `DetectionDataset`, landscape and portrait apart.

    Images of one orientation need little padding in a batch. What is left over of the two groups
    makes at most one mixed batch (and without `drop_last` a smaller one). The seed is the batch's:
    its images draw the same size from it, and all else from it and their index.
    Everything that an epoch yields is a pure function of (seed, epoch), and its length is the
    same in every epoch. Several processes share out the batches that one process of the same
    global batch would see, `batch_size` times `num_replicas`.

    Args:
        records: the images, by their size.
        batch_size: images in a batch of one process.
        seed: of the order and of every sample's augmentation.
        shuffle: draw the order anew each epoch; without it batches come in the order of records.
        num_replicas, rank: how many processes share each batch and which one this is. All get
            equally many batches; without `drop_last` a part of the last one may be empty.
        drop_last: leave out an incomplete batch.
        repeats: how often an epoch sees each image, a mean over epochs; None is once each.

    Attributes:
        skip_batches: how many batches the next iteration leaves out at its start, and only that
            one; `len()` does not count them off. Set it to resume within an epoch.
    """

    def __init__(
        self,
        records: Sequence[Record],
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = True,
        repeats: np.ndarray | None = None,
    ) -> None:
        self.portrait = np.array([record.size[0] > record.size[1] for record in records], bool)
        self.repeats = repeats
        self.images = len(records) if repeats is None else int(repeats.sum())  # of an epoch
        self.global_batch = batch_size * num_replicas
        self.seed = seed
        self.shuffle = shuffle
        self.num_replicas = num_replicas
        self.rank = rank
        self.drop_last = drop_last
        self.epoch = 0
        self.skip_batches = 0
        if len(self) == 0:
            raise InputError(
                f"{self.images} images do not fill a batch of {batch_size} on each of "
                f"{num_replicas} process(es); lower the batch size."
            )

    def __len__(self) -> int:
        if self.drop_last:
            return self.images // self.global_batch
        return -(-self.images // self.global_batch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration yields."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that whoever takes the first batch spends `skip_batches`: a DataLoader
        # with workers asks for two iterators and throws the first away untouched.
        skipped, self.skip_batches = self.skip_batches, 0
        rng = np.random.default_rng([self.seed, self.epoch])
        batches = self._batches(rng)
        seeds = rng.integers(2**63, size=len(batches))
        for batch, seed in list(zip(batches, seeds, strict=True))[skipped:]:
            mine = np.array_split(batch, self.num_replicas)[self.rank]
            yield [(int(i), int(seed)) for i in mine]

    def _batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """All batches of the epoch, for all processes, each an array of indices."""
        size, order = self.global_batch, np.arange(len(self.portrait))
        if self.shuffle:
            order = rng.permutation(order)
        if self.repeats is not None:
            ends = np.cumsum(self.repeats[order])
            drawn = (rng.random() + np.arange(self.images)) / self.images * ends[-1]
            order = rng.permutation(order[np.searchsorted(ends, drawn, side="right")])
        batches, left_over = [], []
        for group in (order[~self.portrait[order]], order[self.portrait[order]]):
            full = len(group) - len(group) % size
            batches.extend(group[:full].reshape(-1, size))
            left_over.append(group[full:])
        rest = np.concatenate(left_over)
        batches.extend(rest[i : i + size] for i in range(0, len(rest), size))
        if self.drop_last and len(batches[-1]) < size:
            batches.pop()
        if self.shuffle:
            return [batches[i] for i in rng.permutation(len(batches))]
        return sorted(batches, key=lambda batch: batch[0])
