"""The last step of an ablation: each step from row to row against chance."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from als.data.voc import load_records
from als.evaluation import GroundTruth
from als.evaluation.average_precision import match
from als.evaluation.detections import load_detections
from als.files import read_json, write_json
from als.machine import revision
from als.report.bootstrap import Resampled, draw_weights, paired_difference, resample
from als.report.measured import record_files
from als.reproduce.choices import COMPARED, ROWS
from als.reproduce.settings import Settings
from als.reproduce.steps import State, detections_of

RESAMPLES = 1000


@dataclass(frozen=True)
class Compare:
    """Paired bootstrap between rows, of every seed whose detections are there."""

    table: str
    settings: Settings
    resamples: int = RESAMPLES

    @property
    def record(self) -> Path:
        return self.settings.results / f"{self.table}-{self.settings.scale}" / "bootstrap.json"

    @property
    def title(self) -> str:
        return f"paired bootstrap over the images -> {self.record}"

    def state(self) -> State:
        if not self.record.is_file():
            return "to do"
        made = read_json(self.record)
        same_steps = [(step["first"], step["second"]) for step in made["steps"]] == self._steps()
        same_records = made["AP50_area"] == _figures(self._records())
        return "done" if same_steps and same_records else "to do"

    def _records(self) -> dict[str, dict[int, Path]]:
        """Row -> seed -> record."""
        found: dict[str, dict[int, Path]] = {}
        for row in ROWS[self.table]:
            run = row.run(self.settings.scale)
            if run is not None:
                found[row.key] = record_files(run, self.settings.results)
        return found

    def _steps(self) -> list[tuple[str, str]]:
        """Pairs of rows that have detections of one seed."""
        kept = {
            key: {seed for seed, path in by_seed.items() if detections_of(path).is_file()}
            for key, by_seed in self._records().items()
        }
        return [pair for pair in COMPARED[self.table] if kept[pair[0]] & kept[pair[1]]]

    def run(self) -> None:
        """Writes nothing where no two rows have detections of one seed.

        Raises InputError when the data are not there.
        """
        resampled, images = self._resampled()
        steps = [
            {"first": first, "second": second}
            | paired_difference(resampled[first], resampled[second])
            for first, second in self._steps()
        ]
        if steps:
            record = {"steps": steps, "images": images, "resamples": self.resamples}
            figures = {"AP50_area": _figures(self._records())}
            write_json(self.record, record | {"revision": revision()} | figures)

    def _resampled(self) -> tuple[dict[str, dict[int, Resampled]], int]:
        """Row -> seed -> measures on resamples, of detections that are there; number of images."""
        runs = {row.key: row.run(self.settings.scale) for row in ROWS[self.table]}
        found: dict[str, dict[int, Resampled]] = {}
        weights = np.zeros((0, 0), np.int64)
        for key, by_seed in self._records().items():
            for seed, path in by_seed.items():
                kept = detections_of(path)
                if kept.is_file():
                    classes = read_json(path)["config"]["classes"]
                    matches = self._matches(runs[key].data, kept, classes)
                    if not len(weights):
                        weights = draw_weights(len(matches.objects), self.resamples)
                    found.setdefault(key, {})[seed] = resample(matches, weights)
        return found, weights.shape[1]

    def _matches(self, data, kept: Path, classes: Iterable[str]):
        truths = load_records(data.test, self.settings.root(data), classes)
        found = load_detections(kept)
        return match(
            [found[record.image_id] for record in truths],
            [GroundTruth(r.boxes, r.labels, r.difficult) for r in truths],
            tuple(classes),
        )


def _figures(records: dict[str, dict[int, Path]]) -> dict[str, float]:
    """The figure of every record, by which a bootstrap of other records is told apart."""
    return {
        f"{key}-seed{seed}": read_json(path)["metrics"]["AP50_area"]
        for key, by_seed in records.items()
        for seed, path in by_seed.items()
    }
