"""The steps of a reproduction: each knows whether it is done, and how to do it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from als.config import TrainConfig
from als.files import read_json, write_json
from als.reproduce.configs import stage_config
from als.reproduce.curves import read_curve
from als.reproduce.definitions import Data, Run, Stage
from als.reproduce.settings import Settings
from als.training.same_config import comparable, differences, filled, saved_config

State = Literal["done", "to do", "resumes", "another config"]


@dataclass(frozen=True)
class Prepare:
    """Download and unpack a data set below the data root."""

    name: str
    settings: Settings

    @property
    def title(self) -> str:
        return f"als data prepare {self.name} {self.settings.source}"

    def state(self) -> State:
        from als.data.prepare import SETS

        there = all((self.settings.source / part.target).is_dir() for part in SETS[self.name])
        return "done" if there else "to do"

    def run(self) -> None:
        """Raises InputError when a file is broken; given again, it goes on with what is there."""
        from als.data.check import refuse_problems
        from als.data.prepare import prepare

        refuse_problems(prepare(self.name, self.settings.source), self.settings.source)


@dataclass(frozen=True)
class Convert:
    """Write the compact photographs in COCO's layout."""

    data: Data
    settings: Settings

    @property
    def folder(self) -> Path:
        (name,) = self.data.folders
        return self.settings.root(self.data) / name

    @property
    def splits(self) -> tuple[str, str]:
        return self.data.train.partition(":")[2], self.data.test.partition(":")[2]

    @property
    def title(self) -> str:
        source = self.settings.source / str(self.data.converted_from)
        return f"als data to-coco {source} --splits {' '.join(self.splits)} --out {self.folder}"

    def state(self) -> State:
        files = [self.folder / "annotations" / f"instances_{split}.json" for split in self.splits]
        return "done" if all(file.is_file() for file in files) else "to do"

    def run(self) -> None:
        from als.data.convert import to_coco

        to_coco(self.settings.source / str(self.data.converted_from), self.splits, self.folder)


@dataclass(frozen=True)
class Train:
    """Train a stage, or go on with it where it was interrupted."""

    stage: Stage
    config: TrainConfig
    settings: Settings

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    @property
    def target(self) -> Path:
        """What the step makes."""
        return self.out

    @property
    def checkpoint(self) -> Path:
        return self.out / "model.safetensors"

    @property
    def title(self) -> str:
        return f"train {self.stage.config} -> {self.out}"

    @property
    def other_options(self) -> list[str]:
        """Options in which the run that is there differs; empty when nothing or the same is."""
        file = self.out / "config.json"
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
        return "resumes" if any((self.out / "checkpoints").glob("*.ckpt")) else "to do"

    def run(self) -> None:
        from als.evaluation.evaluate import judge_by_id
        from als.training.train import train

        # On several devices lightning would start this whole command once for each.
        options = {"devices": 1} | dict(self.settings.trainer)
        train(self.config, True, judge_by_id, **options)

    def summary(self) -> dict[str, Any]:
        """What a record says of this training."""
        from als.checkpoint import read_checkpoint

        _, info, _ = read_checkpoint(self.checkpoint)
        return {
            "config_file": f"configs/{self.stage.config}.yaml",
            "config": comparable(self.config),
            "hours": info["time"]["hours"],
            "images_per_second": info["time"]["images_per_second"],
            "machine": info.get("machine"),
            "curve": read_curve(self.out / "metrics.csv"),
        }


@dataclass(frozen=True)
class Evaluate:
    """Test the last stage's checkpoint and write the record of a row."""

    run_of: Run
    seed: int
    stages: tuple[Train, ...]
    settings: Settings
    keeps_detections: bool = False

    @property
    def name(self) -> str:
        return f"{self.run_of.name}-seed{self.seed}"

    @property
    def record(self) -> Path:
        return self.settings.results / f"{self.name}.json"

    @property
    def target(self) -> Path:
        """What the step makes."""
        return self.record

    @property
    def detections(self) -> Path:
        return detections_of(self.record)

    @property
    def title(self) -> str:
        return f"evaluate {self.run_of.data.test} -> {self.record}"

    @property
    def other_options(self) -> list[str]:
        """Options in which the record's trainings differ; empty without a record."""
        if not self.record.is_file():
            return []
        stages = read_json(self.record).get("stages", [])
        if len(stages) != len(self.stages):
            return ["the number of stages"]
        pairs = zip(stages, self.stages, strict=True)
        return [
            name
            for made, stage in pairs
            for name in differences(filled(made["config"]), comparable(stage.config))
        ]

    def state(self) -> State:
        if self.other_options:
            return "another config"
        if not self.record.is_file():
            return "to do"
        return "to do" if self.keeps_detections and not self.detections.is_file() else "done"

    def run(self) -> None:
        import torch

        from als.checkpoint import load_checkpoint
        from als.data.voc import load_records
        from als.evaluation.evaluate import evaluate

        detector, info = load_checkpoint(self.stages[-1].checkpoint)
        data, config = self.run_of.data, self.stages[-1].config
        records = load_records(data.test, self.settings.root(data), detector.config.classes)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        record = evaluate(detector.to(device), records, config.data.workers, keep=self.detections)
        record["data"]["split"] = data.test
        record |= {
            "row": self.run_of.name,
            "seed": self.seed,
            "training": info,
            "stages": [stage.summary() for stage in self.stages],
            "changed_options": sorted({o for stage in self.stages for o in stage.changed_options}),
        }
        write_json(self.record, record)


def detections_of(record: Path) -> Path:
    """Beside the record: a bootstrap can be drawn anew where the trainings no longer are."""
    return record.with_suffix(".npz")


def put_aside(path: Path) -> None:
    """Rename a file or folder that is made anew to the first free NAME.old1, NAME.old2, ..."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    path.replace(aside)
