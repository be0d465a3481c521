"""Somebody's own record beside a row of the tables: is it within the spread of the seeds here?"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from als.config import ModelConfig
from als.errors import InputError
from als.tables.measured import EACH, MEASURES, RECORD, bootstrapped, read_record, records_of
from als.tables.rows import SCALES, TABLES, Row, Run, Scale

LEVEL = 0.95  # of the interval that one more training of the row falls in


@dataclass(frozen=True)
class Beside:
    """A record beside a row.

    figures: by measure, in percent: own; mean and spread (sample standard deviation) of the
        committed seeds; low and high, between which one more seed falls in 95 of 100 cases
        (prediction interval of a normal distribution, Student's t), NaN for one seed; verdict,
        "within", "below", "above", "one seed" or "no figure" (of it or of the seeds); tells, the
        smallest difference of two rows that these photographs would show four times in five
        (mean of the table's bootstrap, or NaN).
    differences: options of network, data or training in which it is not the row's, own -> row's.
    """

    row: Row
    table: str
    scale: Scale
    seeds: list[int]
    figures: pd.DataFrame
    differences: dict[str, tuple[Any, Any]]

    @property
    def sentence(self) -> str:
        """What may be read from it."""
        seeds = ", ".join(map(str, self.seeds))
        name = f"{self.table}, {self.row.title} ({self.scale}, seeds {seeds})"
        if self.differences:
            told = ", ".join(f"{k} {a} instead of {b}" for k, (a, b) in self.differences.items())
            return f"{name}: not the same run, with {told}; a difference may come from that."
        verdicts = self.figures["verdict"]
        lacking = verdicts.index[verdicts == "no figure"]
        without = f" Without a figure: {', '.join(lacking)}." if len(lacking) else ""
        if len(lacking) == len(verdicts):
            return f"{name}: no measure has a figure in both, so nothing is known."
        if verdicts.drop(lacking).eq("one seed").all():
            return f"{name}: one seed was run here, so nothing is known of their spread.{without}"
        out = verdicts[verdicts.isin(["below", "above"])]
        if out.empty:
            told = "as far as these seeds tell, the same: every measure is in its interval."
            return f"{name}: {told}{without}"
        told = ", ".join(f"{title} is {verdict}" for title, verdict in out.items())
        return f"{name}: outside what one more seed gives: {told}.{without}"


def beside(path: Path, results: Path = Path("results"), row: str | None = None) -> Beside:
    """A record of `als evaluate` beside the row that has its network and its photographs.

    row: "table2/proposed", to choose another; what differs is then named.

    Raises InputError for a file that is no record, or when no row fits or has a record.
    """
    own = read_record(Path(path), RECORD | {"config": {EACH: object}})
    candidates = [
        (f"{table}/{one.key}", table, scale, one, made)
        for table, rows in TABLES.items()
        for one in rows
        for scale in SCALES
        if (made := _others(one.run(scale), results, own))
    ]
    if row is not None:
        candidates = [candidate for candidate in candidates if candidate[0] == row]
    if not candidates:
        asked = "no row of the tables" if row is None else f"'{row}' is no row that"
        raise InputError(f"{results}: {asked} has a record; give TABLE/ROW, as table2/proposed.")
    found = [(_differences(own, one[-1]), *one) for one in candidates]
    # Tables 1 and 2 share rows; the one with more steps judged says more.
    differences, name, table, scale, chosen, made = min(
        found, key=lambda one: (len(one[0]), -len(bootstrapped(one[2], one[3], results) or ()))
    )
    if differences and row is None:
        told = ", ".join(list(differences)[:4])
        raise InputError(
            f"{path}: is of no row's network and photographs; the nearest is {name}, others are "
            f"{told}; to hold it against that, give --row {name}."
        )
    steps, lines = bootstrapped(table, scale, results) or {}, {}
    for measure, title in MEASURES.items():
        values = [one["metrics"].get(measure) for one in made.values()]
        told = _judged(own["metrics"].get(measure), [v for v in values if v is not None])
        detectable = [step[measure]["detectable"] for step in steps.values()]
        tells = 100 * float(np.mean(detectable)) if detectable else math.nan
        lines[title] = told | {"tells": tells}
    figures = pd.DataFrame.from_dict(lines, orient="index")
    return Beside(chosen, table, scale, list(made), figures, differences)


def _others(run: Run | None, results: Path, own: dict) -> dict[int, dict]:
    """Seed -> record of a run that says its network, without `own` where it is one of them."""
    found = records_of(run, results).items()
    return {seed: made for seed, made in found if made != own and made.get("config")}


def _judged(own: float | None, seeds: list[float]) -> dict[str, Any]:
    count = len(seeds)
    mean = 100 * float(np.mean(seeds)) if seeds else math.nan
    told = {"own": math.nan if own is None else 100 * own, "mean": mean}
    if count < 2:
        verdict = "one seed" if seeds else "no figure"
        return told | dict.fromkeys(("spread", "low", "high"), math.nan) | {"verdict": verdict}
    spread = 100 * float(np.std(seeds, ddof=1))
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * spread * math.sqrt(1 + 1 / count)
    told |= {"spread": spread, "low": mean - half, "high": mean + half}
    if own is None:
        return told | {"verdict": "no figure"}
    verdict = "below" if told["own"] < told["low"] else "above"
    return told | {"verdict": "within" if abs(told["own"] - mean) <= half else verdict}


def _differences(own: dict, made: dict[int, dict]) -> dict[str, tuple]:
    """Where a record is not what the seeds of a row agree in."""
    ours, theirs = _run(own), _run(next(iter(made.values())))
    return {k: (v, theirs[k]) for k, v in ours.items() if v != theirs[k]}


def _run(record: dict) -> dict[str, Any]:
    network = ModelConfig.from_dict(record["config"]).to_dict()
    training, data = record.get("training") or {}, record.get("data") or {}
    seen = {f"model.{key}": value for key, value in network.items() if key != "weights"}
    return seen | {
        "photographs": data.get("fingerprint"),
        "training data": (training.get("data") or {}).get("fingerprint"),
        "epochs": training.get("epochs"),
    }
