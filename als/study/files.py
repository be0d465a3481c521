"""What a study keeps while it runs, so that an interrupted one goes on. Files whole or not at all.

Several processes may fill one folder at once: no two write the same file.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from als.data.record import Record
from als.files import atomic_write


def own_seed(record: Record, seed: int) -> int:
    """A seed of the image's id, so that what is drawn does not depend on what else is studied."""
    return seed + int.from_bytes(hashlib.sha256(record.image_id.encode()).digest()[:4])


def read_parts(folder: Path) -> pd.DataFrame | None:
    """All tables of a folder as one; None where there is none."""
    parts = sorted(Path(folder).glob("*.parquet"))
    return pd.concat([pd.read_parquet(p) for p in parts], ignore_index=True) if parts else None


def write_part(folder: Path, tables: list[pd.DataFrame]) -> None:
    """One more file for `read_parts`, named by its number and this process; none for no table."""
    if not tables:
        return
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.parquet")))
    path = folder / f"{number:05d}-{os.getpid()}.parquet"
    write_parquet(pd.concat(tables, ignore_index=True), path)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table."""
    with atomic_write(path) as aside:
        table.to_parquet(aside, index=False)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with five digits."""
    with atomic_write(path) as aside:
        table.to_csv(aside, index=False, float_format="%.5g")


def write_arrays(path: Path, groups: dict[tuple[str, ...], dict[str, np.ndarray]]) -> None:
    """Write arrays by group and name; neither holds a "|"."""
    flat = {"|".join((*g, name)): array for g, one in groups.items() for name, array in one.items()}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **flat)


def read_arrays(path: Path) -> dict[tuple[str, ...], dict[str, np.ndarray]]:
    """What `write_arrays` wrote."""
    groups: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays:
            *group, name = key.split("|")
            groups.setdefault(tuple(group), {})[name] = arrays[key]
    return groups
