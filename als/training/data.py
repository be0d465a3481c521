"""The training and validation data of a run, as lightning wants them."""

from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from als.config import TrainConfig
from als.data.dataset import DetectionDataset, collate
from als.data.record import Problem, with_objects
from als.data.sampler import AspectBatchSampler
from als.data.transforms import evaluation_transforms, ssd_transforms, training_transforms
from als.data.voc_layout import load_records
from als.errors import InputError


class DetectionData(L.LightningDataModule):
    """Records of `config.data`, checked when this is made and loaded in workers.

    Attributes:
        train_records, val_records: what is trained and validated on (`val_records` may be empty).
        problems: the broken files that were left out, if `skip_broken` allows it.

    Raises:
        InputError: an annotation is broken (unless `skip_broken`), or nothing is left to train on.
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.config = config
        self.problems: list[Problem] = []
        self.train_records = with_objects(self._load(config.data.train))
        if config.data.only_with_masks:
            self.train_records = [r for r in self.train_records if r.mask is not None]
            if not self.train_records:
                raise InputError(
                    f"data.only_with_masks: no image of '{config.data.train}' has a mask; add the "
                    "folder SBD or SegmentationClass, or leave the option out."
                )
        self.val_records = self._load(config.data.val) if config.data.val else []

    def _load(self, spec: str):
        data, classes = self.config.data, self.config.model.classes
        on_error = self.problems.append if data.skip_broken else None
        return load_records(spec, Path(data.root), classes, on_error)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch on one process."""
        return len(self.train_records) // self.config.data.batch_size

    def train_dataloader(self) -> DataLoader:
        data = self.config.data
        trainer = self.trainer
        sampler = AspectBatchSampler(
            self.train_records,
            data.batch_size,
            self.config.seed,
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
        )
        # A resumed run stands where its batches say, which a skipped batch counts among too.
        # Lightning's counts within the epoch are put right only after it asked for this loader.
        done = trainer.fit_loop.total_batch_idx + 1
        epoch, sampler.skip_batches = divmod(done, len(sampler))
        sampler.set_epoch(epoch)
        if data.augmentation == "ssd":
            transform = ssd_transforms(data.max_size)
        else:
            crop = data.augmentation == "crop"
            transform = training_transforms(data.min_sizes, data.max_size, data.jitter, crop)
        return self._loader(self.train_records, transform, sampler)

    def val_dataloader(self) -> DataLoader | list:
        if not self.val_records:
            return []
        sampler = AspectBatchSampler(
            self.val_records,
            self.config.data.batch_size,
            seed=0,
            shuffle=False,
            num_replicas=self.trainer.world_size,
            rank=self.trainer.global_rank,
            drop_last=False,
        )
        transform = evaluation_transforms(self.config.model.max_size)
        return self._loader(self.val_records, transform, sampler)

    def _loader(self, records, transform, sampler) -> DataLoader:
        data = self.config.data
        dataset = DetectionDataset(
            records, self.config.model.classes, transform, data.skip_broken, data.keep_decoded
        )
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
        )
