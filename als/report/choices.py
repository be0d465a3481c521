"""The records of choices made on val (`als.reproduce.choices`) as a table."""

from pathlib import Path

import pandas as pd

from als.report.measured import ABSENT, NOT_RUN, records_of
from als.reproduce.choices import CHOICES

# Column -> part of a record, name there, decimals; AP is percent.
COLUMNS = {
    "AP50": ("metrics", "AP50_11point", 1),
    "AP50, area": ("metrics", "AP50_area", 1),
    "AP75": ("metrics", "AP75", 1),
    "VOC AP": ("metrics", "AP", 1),
    "IoU of A_loc": ("maps", "loc_iou_with_mask", 2),
    "mean of A_cls": ("maps", "cls_mean", 2),
    "spread of A_cls": ("maps", "cls_spread", 2),
    "correlation": ("maps", "correlation", 2),
}
PERCENT = {"metrics": 100.0, "maps": 1.0}


def judged(name: str, results: Path) -> pd.DataFrame:
    """A line a run and seed: key, row, seed and `COLUMNS`, on val; seed is NA where none was run.

    AP in percent; of the maps the mean over images (docs/model.md, section 2.1), NaN without
    attention. name: "recipes" or "variants".
    """
    lines = []
    for row in CHOICES[name]:
        records = records_of(row.compact, results) or {pd.NA: {}}
        for seed, record in records.items():
            line = {"key": row.key, "row": row.title, "seed": seed}
            for column, (part, measure, _) in COLUMNS.items():
                value = (record.get(part) or {}).get(measure)
                line[column] = float("nan") if value is None else PERCENT[part] * value
            lines.append(line)
    return pd.DataFrame(lines)


def judged_texts(name: str, results: Path) -> pd.DataFrame:
    """`judged` as text, rows against columns."""
    found = judged(name, results)
    missing = found["seed"].isna()
    texts = {"seed": found["seed"].astype(str).mask(missing, ABSENT)}
    for column, (_, _, decimals) in COLUMNS.items():
        shown = found[column].map(f"{{:.{decimals}f}}".format)
        texts[column] = shown.mask(found[column].isna(), ABSENT).mask(missing, NOT_RUN)
    return pd.DataFrame(texts).set_axis(pd.Index(found["row"], name="row"))
