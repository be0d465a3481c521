"""A small training in one or several processes: the program of test_training_ddp.py.

    torchrun --nproc_per_node 2 tests/ddp_run.py DATA OUT 2

Every image has the same objects, and sampling takes every anchor and RoI. So each process has
equally many samples, and the mean over processes is the mean over the whole batch.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import training_toys
from PIL import Image

from als.config import TrainConfig
from als.data.toy import write_toy
from als.training.train import train

GLOBAL_BATCH = 4
IMAGES = {"train": 10, "val": 5}  # neither is a multiple of the global batch


def write_data(root: Path) -> None:
    """Pictures of noise, all with the annotation and the mask of one toy image."""
    write_toy(root, images=4, seed=1, size=(64, 96))
    folder = root / "VOC2012"
    rng = np.random.default_rng(0)
    for split, count in IMAGES.items():
        ids = [f"{split}_{number}" for number in range(count)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids))
        for image_id in ids:
            noise = rng.integers(256, size=(64, 96, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "JPEGImages" / f"{image_id}.jpg")
            shutil.copy(
                folder / "Annotations" / "toy_000000.xml",
                folder / "Annotations" / f"{image_id}.xml",
            )
            shutil.copy(
                folder / "SegmentationClass" / "toy_000000.png",
                folder / "SegmentationClass" / f"{image_id}.png",
            )


def config_of(root: Path, out: Path, batch_size: int) -> TrainConfig:
    model = {
        "anchor_sizes": (16, 32),
        "rpn_anchors_per_image": 1000,  # of 144: all take part
        "rpn_post_nms_train": 4,
        "rpn_post_nms_test": 10,
        "rois_per_image": 32,  # of 4 proposals and the objects: all take part
        "roi_positive_fraction": 0.5,
        "score_threshold": 0.0,
    }
    data = {"val": "VOC2012:val", "batch_size": batch_size, "min_sizes": (64,), "jitter": False}
    return training_toys.config_of(root, out, model=model, **data)


def main(root: Path, out: Path, processes: int) -> None:
    """Train on a global batch of GLOBAL_BATCH; each process writes what it judged."""

    def judge(found, records, classes):
        assert sorted(found) == sorted(record.image_id for record in records)
        plain = {i: {k: v.tolist() for k, v in one.items()} for i, one in found.items()}
        path = out / f"judged-{os.environ.get('RANK', 0)}.json"
        path.write_text(json.dumps(plain))
        return {"AP50": 0.0}

    train(
        config_of(root, out, GLOBAL_BATCH // processes),
        judge=judge,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        log_every_n_steps=1,
        **training_toys.QUIET,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
