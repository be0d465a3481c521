"""The records of a table's rows as one frame, beside the published figures."""

import re
from pathlib import Path

import pandas as pd

from als.files import read_json
from als.report.published import published
from als.reproduce.definitions import SCALES, TABLES, Row, Run, Scale

# The paper's columns as measures of a record.
CLASS_OF = {
    **{"aero": "aeroplane", "bike": "bicycle", "mbike": "motorbike"},
    **{"plant": "pottedplant", "table": "diningtable", "tv": "tvmonitor"},
}
MEASURE_OF = {
    "mAP": "AP50_11point",
    **{"AP": "COCO_AP", "AP50": "COCO_AP50"},
    **{"APS": "COCO_APs", "APM": "COCO_APm", "APL": "COCO_APl"},
}
MARKS = ("att", "split")
FURTHER = {"table2": {"AP50, area": "AP50_area", "AP75": "AP75", "VOC AP": "AP"}}
"""Measures that a table of the paper has no column for."""

MEASURES = {
    "AP50_11point": "AP50 (11 points)",
    "AP50_area": "AP50 (area)",
    "AP75": "AP75",
    "AP": "VOC AP",
}
"""Of a bootstrap's steps -> how a table calls them."""

ABSENT, NOT_RUN, NOT_REIMPLEMENTED = "–", "not run", "not reimplemented"


def columns_of(table: str) -> list[str]:
    """The figures of a table: the paper's columns, without marks, and further measures."""
    printed = [name for name in published(table)["column"].unique() if name not in MARKS]
    return [*printed, *FURTHER.get(table, {})]


def record_files(run: Run, results: Path) -> dict[int, Path]:
    """Seed -> the file of a run's record, by rising seed. Other files beside them are left."""
    paths = Path(results).glob(f"{run.name}-seed*.json")
    found = {path: re.search(r"-seed(\d+)$", path.stem) for path in paths}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def records_of(run: Run, results: Path) -> dict[int, dict]:
    """Seed -> record of a run."""
    return {seed: read_json(path) for seed, path in record_files(run, results).items()}


def figure_of(record: dict, table: str, column: str) -> float | None:
    """A column's value in percent; None where the record has none, as of a class not detected."""
    measure = MEASURE_OF.get(column) or FURTHER.get(table, {}).get(column)
    if measure is not None:
        value = record["metrics"].get(measure)
    else:
        value = record["per_class"].get(CLASS_OF.get(column, column), {}).get("AP50_11point")
    return None if value is None else 100 * value


def frame(table: str, results: Path) -> pd.DataFrame:
    """A line a cell of a table: the paper's figure, and mean and spread of what was measured.

    Columns: table, key, title, column; paper (percent, NaN where it prints none); of each scale
    its mean over seeds, SCALE_spread (sample standard deviation, NaN for less than two seeds),
    SCALE_seeds and SCALE_run (whether there is such a run at all); difference, full minus paper;
    reimplemented (whether the row's network is in this repository); SCALE_changed, the options
    that `als reproduce --set` made others than the row's own, joined by commas.
    """
    printed = published(table).set_index(["key", "column"])["value"]
    lines = []
    for row in TABLES[table]:
        records = {s: records_of(row.run(s), results) if row.run(s) else {} for s in SCALES}
        for column in columns_of(table):
            line = {"table": table, "key": row.key, "title": row.title, "column": column}
            line["paper"] = float(printed.get((row.key, column), "nan"))
            line["reimplemented"] = row.reimplemented
            for scale in SCALES:
                found = [figure_of(r, table, column) for r in records[scale].values()]
                values = pd.Series([v for v in found if v is not None], dtype=float)
                line[scale] = values.mean()
                line[f"{scale}_spread"] = values.std(ddof=1)
                line[f"{scale}_seeds"] = len(values)
                line[f"{scale}_run"] = row.run(scale) is not None
                line[f"{scale}_changed"] = _changed(records[scale])
            lines.append(line | {"difference": line["full"] - line["paper"]})
    return pd.DataFrame(lines)


def per_class(row: Row, results: Path, scale: Scale) -> pd.DataFrame:
    """A row's AP50 (11 points) in percent: class against mean and std over seeds; maybe empty."""
    values = {
        seed: {name: of_class["AP50_11point"] for name, of_class in record["per_class"].items()}
        for seed, record in records_of(row.run(scale), results).items()
    }
    by_seed = 100 * pd.DataFrame(values, dtype=float)
    return pd.DataFrame({"mean": by_seed.mean(axis=1), "std": by_seed.std(axis=1)})


def _changed(records: dict[int, dict]) -> str:
    names = {name for record in records.values() for name in record.get("changed_options", [])}
    return ", ".join(sorted(names))
