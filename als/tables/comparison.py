"""The last step of an ablation: each step from row to row against chance."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from als.data.layouts import load_records
from als.data.record import fingerprint
from als.errors import InputError
from als.evaluation.average_precision import match
from als.evaluation.bootstrap import Resampled, draw_weights, resampled_ap
from als.evaluation.detections import load_judgeable
from als.evaluation.evaluate import truths_of
from als.files import read_json, write_json
from als.machine import revision
from als.tables.measured import RECORD, bootstrap_file, bootstrapped, read_record, record_files
from als.tables.rows import COMPARED, ROWS, Run
from als.tables.stage_config import Settings
from als.tables.training_steps import State, detections_of

RESAMPLES = 1000
JUDGED_RECORD = RECORD | {"config": {"classes": [str]}, "data": {"fingerprint": str}}
Figures = Mapping[str, Resampled]  # measure -> it, of one detector


@dataclass(frozen=True)
class Compare:
    """Paired bootstrap between rows, of every seed whose detections are there."""

    table: str
    settings: Settings

    @property
    def target(self) -> Path:
        """The record."""
        return bootstrap_file(self.table, self.settings.scale, self.settings.results)

    @property
    def title(self) -> str:
        return f"paired bootstrap over the images -> {self.target}"

    def state(self) -> State:
        made = bootstrapped(self.table, self.settings.scale, self.settings.results)
        if list(made or {}) != self._pairs():
            return "to do"
        if made is None:  # no two rows to compare
            return "done"
        return "done" if read_json(self.target).get("AP50_area") == self._ap50() else "to do"

    def _records(self) -> Iterator[tuple[str, Run, int, Path]]:
        """(row, run, seed, file) of every record."""
        for row in ROWS[self.table]:
            run = row.run(self.settings.scale)
            for seed, path in record_files(run, self.settings.results).items():
                yield row.key, run, seed, path

    def _ap50(self) -> dict[str, float]:
        """The figure of every record, by which a bootstrap of other records is told apart."""
        return {
            f"{key}-seed{seed}": read_record(path)["metrics"].get("AP50_area")
            for key, _, seed, path in self._records()
        }

    def _pairs(self) -> list[tuple[str, str]]:
        """Pairs of rows that have detections of one seed."""
        kept = defaultdict(set)
        for key, _, seed, path in self._records():
            if detections_of(path).is_file():
                kept[key].add(seed)
        return [pair for pair in COMPARED[self.table] if kept[pair[0]] & kept[pair[1]]]

    def run(self) -> None:
        """Writes nothing where no two rows have detections of one seed.

        Raises InputError when the data are not there, or not those of a record.
        """
        figures: dict[str, dict[int, Figures]] = defaultdict(dict)
        load = cache(load_records)
        for key, run, seed, path in self._records():
            if detections_of(path).is_file():
                made, root = read_record(path, JUDGED_RECORD), self.settings.root(run.data)
                classes = made["config"]["classes"]
                records = load(run.data.test, root, tuple(classes))
                if made["data"]["fingerprint"] != fingerprint(records):
                    raise InputError(
                        f"{path}: was made with other photographs or annotations than "
                        f"{run.data.test} of {root} has; give the --data-root of then, or move it "
                        "away, so that the row is evaluated again."
                    )
                if len(records) < 2:  # the record would hold no interval
                    told = "one photograph tells nothing of chance"
                    raise InputError(f"{run.data.test} of {root}: {told}; test on more.")
                kept = load_judgeable(detections_of(path)).detections
                found = [kept[record.image_id] for record in records]
                weights = draw_weights(len(records), RESAMPLES)
                matches = match(found, truths_of(records), classes)
                figures[key][seed] = resampled_ap(matches, weights)
        steps = [
            {"first": first, "second": second} | paired_difference(figures[first], figures[second])
            for first, second in self._pairs()
        ]
        if steps:
            made = {"steps": steps, "images": len(records), "resamples": RESAMPLES}
            made |= {"revision": revision(), "AP50_area": self._ap50()}
            write_json(self.target, made)


def paired_difference(
    first: Mapping[int, Figures], second: Mapping[int, Figures]
) -> dict[str, dict]:
    """second minus first, the mean over the seeds that both have, of which there must be one.

    Both must come from the same weights. Returns for each measure: difference, low and high
    (95% of the resamples), half_width of that interval, detectable, separated (see `Resampled`),
    per_seed and seed_spread (sample standard deviation, None for one seed).
    """
    seeds, found = sorted(first.keys() & second.keys()), {}
    for name in first[seeds[0]]:
        of_seeds = [second[seed][name] - first[seed][name] for seed in seeds]
        whole = np.array([one.whole for one in of_seeds])
        mean = Resampled(float(whole.mean()), np.mean([one.drawn for one in of_seeds], axis=0))
        low, high = mean.interval
        found[name] = {
            "difference": mean.whole,
            "low": low,
            "high": high,
            "half_width": (high - low) / 2,
            "detectable": mean.detectable,
            "separated": mean.separated,
            "per_seed": {str(seed): one.whole for seed, one in zip(seeds, of_seeds, strict=True)},
            "seed_spread": float(whole.std(ddof=1)) if len(seeds) > 1 else None,
        }
    return found
