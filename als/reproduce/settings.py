"""What a reproduction is asked for, and where its files lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from als.reproduce.definitions import Data, Scale

DATA_ROOTS: Mapping[Scale, Path] = {"full": Path("data"), "compact": Path("data/voc-animals")}


@dataclass(frozen=True)
class Settings:
    """Options of `als reproduce`.

    Args:
        scale: "full" or "compact".
        data_root: folder of the data folders; None is `data`, compact `data/voc-animals`.
        seeds: a run for each.
        results, runs: where records go, and checkpoints and detections.
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
