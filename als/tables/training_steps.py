"""The steps that give a row its record: each knows whether it is done, and how to do it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from als.checkpoint import load_checkpoint, read_checkpoint
from als.config import TrainConfig
from als.data.check import refuse_problems
from als.data.convert import to_coco
from als.data.layouts import load_records
from als.data.prepare import SETS, prepare
from als.evaluation.evaluate import evaluate, judge_by_id
from als.files import write_json
from als.tables.measured import read_record
from als.tables.rows import Data, Run, Stage
from als.tables.stage_config import Settings, stage_config
from als.training.same_config import comparable, differences, filled, saved_config

State = Literal["done", "to do", "resumes", "another config"]
POINTS = 60  # of a loss curve in a record, at most


@dataclass(frozen=True)
class Prepare:
    """Download and unpack a data set below the data root."""

    name: str
    settings: Settings

    @property
    def title(self) -> str:
        return f"als data prepare {self.name} {self.settings.source}"

    def state(self) -> State:
        there = all((self.settings.source / part.target).is_dir() for part in SETS[self.name])
        return "done" if there else "to do"

    def run(self) -> None:
        """Raises InputError when a file is broken; given again, it goes on with what is there."""
        refuse_problems(prepare(self.name, self.settings.source), self.settings.source)


@dataclass(frozen=True)
class Convert:
    """Write the compact photographs in COCO's layout."""

    data: Data
    settings: Settings

    @property
    def source(self) -> Path:
        return self.settings.source / str(self.data.converted_from)

    @property
    def folder(self) -> Path:
        return self.settings.root(self.data) / self.data.train.partition(":")[0]

    @property
    def splits(self) -> tuple[str, str]:
        return self.data.train.partition(":")[2], self.data.test.partition(":")[2]

    @property
    def title(self) -> str:
        splits = " ".join(self.splits)
        return f"als data to-coco {self.source} --splits {splits} --out {self.folder}"

    def state(self) -> State:
        files = [self.folder / "annotations" / f"instances_{split}.json" for split in self.splits]
        return "done" if all(file.is_file() for file in files) else "to do"

    def run(self) -> None:
        to_coco(self.source, self.splits, self.folder)


@dataclass(frozen=True)
class Train:
    """Train a stage, or go on with it where it was interrupted."""

    stage: Stage
    config: TrainConfig
    settings: Settings

    @property
    def target(self) -> Path:
        """The folder of the run."""
        return Path(self.config.out)

    @property
    def checkpoint(self) -> Path:
        return self.target / "model.safetensors"

    @property
    def title(self) -> str:
        return f"train {self.stage.config} -> {self.target}"

    @property
    def other_options(self) -> list[str]:
        """Options in which the run that is there differs; empty when nothing or the same is."""
        file = self.target / "config.json"
        if not file.is_file():
            return ["config.json is missing"] if self.checkpoint.is_file() else []
        saved = saved_config(file)
        if saved is None:
            return ["config.json cannot be read"]
        return differences(saved, comparable(self.config))

    @property
    def changed_options(self) -> list[str]:
        """Options in which --set made this training another than the row's own."""
        plain = replace(self.settings, changes={})
        own = stage_config(self.stage, self.config.seed, None, plain)
        return differences(comparable(own), comparable(self.config))

    def state(self) -> State:
        if self.other_options:
            return "another config"
        if self.checkpoint.is_file():
            return "done"
        return "resumes" if any((self.target / "checkpoints").glob("*.ckpt")) else "to do"

    def run(self) -> None:
        from als.training.train import train  # lightning, which takes seconds to import

        # On several devices lightning would start this whole command once for each.
        options = {"devices": 1} | dict(self.settings.trainer)
        train(self.config, True, judge_by_id, **options)

    def summary(self) -> dict[str, Any]:
        """What a record says of this training."""
        _, info, _ = read_checkpoint(self.checkpoint)
        return {
            "config_file": f"configs/{self.stage.config}.yaml",
            "config": comparable(self.config),
            "hours": info["time"]["hours"],
            "images_per_second": info["time"]["images_per_second"],
            "machine": info.get("machine"),
            "curve": _curve(self.target / "metrics.csv"),
        }


def _curve(path: Path) -> dict[str, list[float]] | None:
    """step and losses of a run, each the mean of a stretch of steps, at most POINTS of them.

    None where the file is missing; a loss that the run has not is left out.
    """
    if not path.is_file():
        return None
    rows = pd.read_csv(path)
    losses = [name for name in rows if name.startswith("loss")]
    rows = rows.dropna(subset=losses[:1])[["step", *losses]].reset_index(drop=True)
    means = rows.groupby(rows.index // (-(-len(rows) // POINTS) or 1)).mean()
    return {name: [round(value, 5) for value in means[name].tolist()] for name in means}


@dataclass(frozen=True)
class Evaluate:
    """Test the last stage's checkpoint and write the record of a row."""

    run_of: Run
    seed: int
    stages: tuple[Train, ...]
    settings: Settings
    keeps_detections: bool = False

    @property
    def target(self) -> Path:
        """The record."""
        return self.settings.results / f"{self.run_of.name}-seed{self.seed}.json"

    @property
    def title(self) -> str:
        return f"evaluate {self.run_of.data.test} -> {self.target}"

    @property
    def other_options(self) -> list[str]:
        """Options in which the record's trainings differ; empty without a record."""
        if not self.target.is_file():
            return []
        made = read_record(self.target).get("stages") or []
        if len(made) != len(self.stages):
            return ["the number of stages"]
        try:
            configs = [filled(one["config"]) for one in made]
        except (KeyError, TypeError):
            return ["a config that cannot be read"]
        return [
            name
            for config, stage in zip(configs, self.stages, strict=True)
            for name in differences(config, comparable(stage.config))
        ]

    def state(self) -> State:
        if self.other_options:
            return "another config"
        lacks_detections = self.keeps_detections and not detections_of(self.target).is_file()
        return "to do" if not self.target.is_file() or lacks_detections else "done"

    def run(self) -> None:
        detector, info = load_checkpoint(self.stages[-1].checkpoint)
        data, workers = self.run_of.data, self.stages[-1].config.data.workers
        records = load_records(data.test, self.settings.root(data), detector.config.classes)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        keep = detections_of(self.target)
        record = evaluate(detector.to(device), records, workers, keep=keep)
        record["data"]["split"] = data.test
        record |= {
            "row": self.run_of.name,
            "seed": self.seed,
            "training": info,
            "stages": [stage.summary() for stage in self.stages],
            "changed_options": sorted({o for stage in self.stages for o in stage.changed_options}),
        }
        write_json(self.target, record)


def detections_of(record: Path) -> Path:
    """Beside the record: a bootstrap can be drawn anew where the trainings no longer are."""
    return record.with_suffix(".npz")
