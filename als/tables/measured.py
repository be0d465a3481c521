"""What the paper prints, and what the records here say beside it, as frames in percent."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from als.errors import InputError
from als.files import read_json
from als.tables.rows import CHOICES, ROWS, SCALES, TABLES, Row, Run, Scale

PUBLISHED = Path(__file__).with_name("published.csv")

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

ABSENT, NOT_RUN = "–", "not run"

OF_CHOICES = {
    "AP50": ("metrics", "AP50_11point"),
    "AP50, area": ("metrics", "AP50_area"),
    "AP75": ("metrics", "AP75"),
    "VOC AP": ("metrics", "AP"),
    "IoU of A_loc": ("maps", "loc_iou_with_mask"),
    "mean of A_cls": ("maps", "cls_mean"),
    "spread of A_cls": ("maps", "cls_spread"),
    "correlation": ("maps", "correlation"),
}
"""Columns of the choices -> part of a record, name there."""

# The shape of what is read: of each part its kind, EACH for all others, "?" may be missing or null.
EACH, NUMBER, SOME_NUMBER = "*", (int, float), (int, float, NoneType)
MISSING = ...  # in the place of a value: of no kind
RECORD = {
    "metrics": {EACH: SOME_NUMBER},
    "per_class": {EACH: {"AP50_11point": SOME_NUMBER}},
    "maps?": {EACH: SOME_NUMBER},
    "changed_options?": [str],
    "config?": {EACH: object},
    "data?": {"images": int},
    "seconds?": {"images_per_second": NUMBER},
    "machine?": {EACH: object},
    "training?": {"data?": {EACH: object}},
    "stages?": [{"config": {EACH: object}, "hours?": NUMBER, "machine?": {EACH: object}}],
}
_STEP = dict.fromkeys(("difference", "low", "high", "detectable"), NUMBER)
_STEP |= {"per_seed": {EACH: NUMBER}, "seed_spread": SOME_NUMBER}
BOOTSTRAP = {"steps": [{"first": str, "second": str} | dict.fromkeys(MEASURES, _STEP)]}


def published(table: str | None = None) -> pd.DataFrame:
    """A line a cell of tables 1 to 3, in the paper's order; `table` keeps one, as "table1".

    Columns, all text: table; key, a short name that is unique within its table (three rows of
    table 2 have one name); row, the method as printed; backbone (table 1); column; value, in
    percent, or of table 2's marks yes, no and - (not stated).
    """
    cells = pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)
    return cells if table is None else cells[cells["table"] == table]


def columns_of(table: str) -> list[str]:
    """The figures of a table: the paper's columns, without marks, and further measures."""
    printed = [name for name in published(table)["column"].unique() if name not in MARKS]
    return [*printed, *FURTHER.get(table, {})]


def record_files(run: Run | None, results: Path) -> dict[int, Path]:
    """Seed -> the file of a run's record, by rising seed. Other files beside them are left."""
    paths = Path(results).glob(f"{run.name}-seed*.json") if run else ()
    found = {path: re.search(r"-seed(\d+)$", path.stem) for path in paths}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def records_of(run: Run | None, results: Path) -> dict[int, dict]:
    """Seed -> record of a run. Raises InputError for one of another shape."""
    return {seed: read_record(path) for seed, path in record_files(run, results).items()}


def read_record(path: Path, shape: dict = RECORD) -> dict:
    """A record, of `als evaluate` by default. Raises InputError for a file of another shape."""
    record = read_json(path)
    for name in _misfits(record, shape):
        raise InputError(
            f"{path}: is no record that a table can be made of (its {name or 'content'} is missing "
            "or of another kind); remove it, or make it again."
        )
    return record


def _misfits(value: Any, shape: Any, name: str = "") -> Iterator[str]:
    """Dotted names of what is not of a shape."""
    if isinstance(shape, list) and isinstance(value, list):
        for item in value:
            yield from _misfits(item, shape[0], name)
    elif isinstance(shape, dict) and isinstance(value, dict):
        for key, kind in shape.items():
            plain = key.rstrip("?")
            parts = value if key == EACH else {plain: value.get(plain, MISSING)}
            for part, item in parts.items():
                if key == plain or item not in (None, MISSING):
                    yield from _misfits(item, kind, f"{name}.{part}".strip("."))
    elif isinstance(shape, list | dict) or not isinstance(value, shape):
        yield name


def frame(table: str, results: Path) -> pd.DataFrame:
    """A line a cell of a table: the paper's figure, and mean and spread of what was measured.

    Columns: table, key, title, column; paper (percent, NaN where it prints none); of each scale
    its mean over seeds, SCALE_spread (sample standard deviation, NaN for less than two seeds),
    SCALE_seeds and SCALE_due (whether it can be run and was not); difference, full minus paper;
    SCALE_changed, the options that `als reproduce --set` made others than the row's own, joined by
    commas.
    """
    printed = published(table).set_index(["key", "column"])["value"]
    columns = columns_of(table)
    lines = []
    for row in TABLES[table]:
        records = {s: list(records_of(row.run(s), results).values()) for s in SCALES}
        for column in columns:
            line = {"table": table, "key": row.key, "title": row.title, "column": column}
            line["paper"] = float(printed.get((row.key, column), "nan"))
            for scale, made in records.items():
                values = pd.Series([_figure(r, table, column) for r in made], dtype=float).dropna()
                line[scale] = values.mean()
                line[f"{scale}_spread"] = values.std(ddof=1)
                line[f"{scale}_seeds"] = len(values)
                line[f"{scale}_due"] = row.run(scale) is not None and not made
                changed = {name for record in made for name in record.get("changed_options", [])}
                line[f"{scale}_changed"] = ", ".join(sorted(changed))
            lines.append(line | {"difference": line["full"] - line["paper"]})
    return pd.DataFrame(lines)


def _figure(record: dict, table: str, column: str) -> float:
    """A column's value in percent; NaN where the record has none, as of a class not detected."""
    measure = MEASURE_OF.get(column) or FURTHER.get(table, {}).get(column)
    if measure is not None:
        value = record["metrics"].get(measure)
    else:
        value = record["per_class"].get(CLASS_OF.get(column, column), {}).get("AP50_11point")
    return float("nan") if value is None else 100 * value


def per_class(row: Row, results: Path, scale: Scale) -> pd.DataFrame:
    """A row's AP50 (11 points) in percent: class against mean and std over seeds; maybe empty."""
    values = {
        seed: {name: of_class["AP50_11point"] for name, of_class in record["per_class"].items()}
        for seed, record in records_of(row.run(scale), results).items()
    }
    by_seed = 100 * pd.DataFrame(values, dtype=float)
    return pd.DataFrame({"mean": by_seed.mean(axis=1), "std": by_seed.std(axis=1)})


def judged(name: str, results: Path) -> pd.DataFrame:
    """A line a run and seed of a choice: key, row, seed and `OF_CHOICES`, on val; seed NA: not run.

    AP in percent; of the maps the mean over images (docs/model.md, section 2.1), NaN without
    attention. name: one of `CHOICES`.
    """
    lines = []
    for row in CHOICES[name]:
        for seed, record in (records_of(row.compact, results) or {pd.NA: {}}).items():
            line = {"key": row.key, "row": row.title, "seed": seed}
            for column, (part, measure) in OF_CHOICES.items():
                value = (record.get(part) or {}).get(measure)
                value = float("nan") if value is None else value
                line[column] = 100 * value if part == "metrics" else value
            lines.append(line)
    return pd.DataFrame(lines)


def bootstrap_file(table: str, scale: Scale, results: Path) -> Path:
    """The record of a table's steps against chance."""
    return Path(results, f"{table}-{scale}", "bootstrap.json")


def bootstrapped(table: str, scale: Scale, results: Path) -> dict[tuple[str, str], dict] | None:
    """(first, second) row -> measure -> what `als.tables.comparison` found; None: not run.

    Steps between rows that the table no longer has are left out.
    """
    path = bootstrap_file(table, scale, results)
    if not path.is_file():
        return None
    keys = {row.key for row in ROWS[table]}
    steps = read_record(path, BOOTSTRAP)["steps"]
    pairs = {(step["first"], step["second"]): step for step in steps}
    return {pair: step for pair, step in pairs.items() if keys.issuperset(pair)}


def published_step(table: str, first: str, second: str) -> float:
    """The paper's mAP of the second row minus the first's; NaN where it prints not both."""
    cells = published(table)
    printed = cells[cells["column"] == "mAP"].set_index("key")["value"].astype(float)
    return printed.get(second, float("nan")) - printed.get(first, float("nan"))
