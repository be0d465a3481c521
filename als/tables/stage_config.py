"""What a table is asked for, and the config that this gives each stage."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from als.config import CONFIGS, TrainConfig
from als.errors import InputError
from als.tables.rows import Data, Scale, Stage
from als.training.options import read_options

DATA_ROOTS: Mapping[Scale, Path] = {"full": Path("data"), "compact": Path("data/voc-animals")}
DECIDED = {
    "data.root": "--data-root",
    "out": "--runs",
    "start_from": "nothing; a stage starts from the one before it",
    "seed": "--seeds",
}


@dataclass(frozen=True)
class Settings:
    """Options of `als reproduce`.

    Args:
        data_root: folder of the data folders; None is `data`, compact `data/voc-animals`.
        seeds: a run for each.
        results, runs: where records and detections go, and checkpoints.
        weights: file of MobileNetV2's ImageNet weights for the compact rows, None downloads them.
        changes: dotted options that differ from every config, {"data.workers": 1}.
        force: make anew what another config made; the old files are kept under another name.
        trainer: further arguments of lightning's Trainer.
        rows: keys of the rows to make, as in `TABLES`; empty is every row that can be run.
    """

    scale: Scale
    data_root: Path | None = None
    seeds: tuple[int, ...] = (0,)
    results: Path = Path("results")
    runs: Path = Path("runs")
    weights: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    trainer: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        """The data root itself."""
        return Path(self.data_root or DATA_ROOTS[self.scale])

    def root(self, data: Data) -> Path:
        """The folder of `data`'s folders; converted data lie beside the runs."""
        return self.source if data.converted_from is None else self.runs / "data"


def config_file(stage: Stage) -> Path:
    """The YAML file of a stage."""
    return CONFIGS / f"{stage.config}.yaml"


def stage_config(
    stage: Stage, seed: int, start_from: Path | None, settings: Settings
) -> TrainConfig:
    """The config of a stage with its seed, data, folder and start.

    Raises InputError for a change that names no option, or one that the row or the command's own
    options decide.
    """
    for name in settings.changes:
        if name in DECIDED:
            raise InputError(f"--set {name}: give {DECIDED[name]} instead.")
        if name == "config" or name.partition(".")[0] == "trainer":
            raise InputError(f"--set {name}: changes options of the row's config; this is none.")
        if name in stage.changes:
            raise InputError(f"--set {name}: is what makes this row ({stage.out}); leave it out.")
    file = config_file(stage)
    own = read_config(file)
    out = Path(stage.out or Path(own.out).relative_to("runs"))
    # The first seed of a config as it stands uses its own folder, so that `als train` counts.
    suffix = f"-seed{seed}" if stage.out or seed else ""
    changes = {
        "data.train": stage.data.train,
        **stage.changes,
        **settings.changes,
        "data.root": str(settings.root(stage.data)),
        "out": str(settings.runs / out) + suffix,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    if settings.weights is not None and own.model.weights is not None:
        changes["model.weights"] = str(settings.weights)
    return read_config(file, changes)


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A config file as `als train` reads it, with dotted options changed.

    Raises InputError for a change that names no option, or has a value that it cannot take.
    """
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (changes or {}).items()}
    config, _, _ = read_options([str(path), *(f"--{name}={text}" for name, text in texts.items())])
    return config


def hours_in_header(stage: Stage, config: TrainConfig) -> float | None:
    """Hours of a V100 that the comment of a config derives, for the epochs of `config`."""
    file = config_file(stage)
    head = " ".join(re.findall(r"^# ?(.*)", file.read_text(), re.MULTILINE))
    found = re.search(r"([\d.]+) h of a V100", head)
    return None if found is None else float(found[1]) * config.epochs / read_config(file).epochs
