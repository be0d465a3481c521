"""Whether two worker processes load images faster than the training step eats them."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader

from als.data.dataset import DetectionDataset, collate
from als.data.sampler import AspectBatchSampler
from als.data.toy import TOY_CLASSES, write_toy
from als.data.transforms import training_transforms
from als.data.voc_layout import load_records
from benchmarks.pairs import Measured, Spread, in_turns
from benchmarks.subjects import Setting, Subject
from benchmarks.training_step import batch, step

IMAGES, SIZE = 96, (375, 500)  # drawn images of VOC's usual (height, width), JPEG and mask
QUICK_IMAGES, QUICK_SIZE = 8, (64, 96)
MIN_SIZES, MAX_SIZE = (256, 288, 320, 352, 384), 512  # as configs/compact-stage2.yaml trains
WORKERS, ROUNDS = 2, 3


def measure(subject: Subject, setting: Setting) -> Measured:
    """An epoch of loading alone and a training step alone, in images a second."""
    images, targets = batch(subject, setting)
    als = subject.als.train()
    with tempfile.TemporaryDirectory() as folder:
        count = QUICK_IMAGES if setting.quick else IMAGES
        load = epoch(Path(folder) / "toy", count, len(images), setting.quick)
        train = step(als, lambda: als.total_loss(als(images, targets)))
        try:
            turns = in_turns({"loading": load, "training": train}, setting.few(ROUNDS))
        finally:
            als.eval().zero_grad()
    # Seconds an image: the epoch's images against the step's. Half the images are for training.
    scale = (count // 2) / len(images)
    ratio = turns.ratio("training", "loading")
    ratio = Spread(*(scale * x for x in (ratio.median, ratio.low, ratio.high)))
    facts = {"images": count // 2, "size": SIZE, "workers": WORKERS, "batch": len(images)}
    return Measured(
        {"loader_vs_training": ratio},
        {f"loader {side}": turns.seconds(side) for side in turns.rounds},
        {"loading": facts},
    )


def epoch(root: Path, images: int, batch_size: int, quick: bool) -> Callable[[], None]:
    """A function that loads every training image of a new toy set once, as training does."""
    write_toy(root, images, size=QUICK_SIZE if quick else SIZE)
    records = load_records("VOC2012:train", root, TOY_CLASSES)
    transform = training_transforms(MIN_SIZES, MAX_SIZE, jitter=True, crop=True)
    dataset = DetectionDataset(records, TOY_CLASSES, transform)
    loader = DataLoader(
        dataset,
        batch_sampler=AspectBatchSampler(records, batch_size, seed=0),
        collate_fn=collate,
        num_workers=WORKERS,
        persistent_workers=True,
    )

    def run() -> None:
        for _ in loader:
            pass

    return run
