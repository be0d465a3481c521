"""The figures that the paper prints, from `published.csv`."""

from functools import cache
from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).with_name("published.csv")


@cache
def _read() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)


def published(table: str | None = None) -> pd.DataFrame:
    """A line a cell of tables 1 to 3, in the paper's order; `table` keeps one, as "table1".

    Columns, all text: table; key, a short name that is unique within its table (three rows of
    table 2 have one name); row, the method as printed; backbone (table 1); column; value, in
    percent, or of table 2's marks yes, no and - (not stated).
    """
    cells = _read()
    return (cells if table is None else cells[cells["table"] == table]).copy()
