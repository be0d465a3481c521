"""Tables 1 to 3 with a column for paper, full and compact, as Markdown, LaTeX and CSV.

Figures are percent with one decimal. The best of each source and column is bold, as in the paper.
'not run' is a run that has no record yet, 'not reimplemented' a network that is not in this
repository, '–' a cell that there can be none for.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from als.errors import InputError
from als.files import read_json
from als.report.choices import judged, judged_texts
from als.report.figures import steps_chart
from als.report.measured import (
    ABSENT,
    MEASURES,
    NOT_REIMPLEMENTED,
    NOT_RUN,
    columns_of,
    frame,
    per_class,
)
from als.reproduce.choices import CHOICES, COMPARED, ROWS
from als.reproduce.definitions import SCALES, TABLES, Scale

SOURCES = ("paper", "full", "difference", "compact")
CAPTIONS = {
    "table1": "Table 1: mAP (AP50 by 11 points), VOC 2007 test; compact: voc-animals test",
    "table2": "Table 2: the ablation, VOC 2007 test; compact: voc-animals test",
    "table3": "Table 3: COCO minival; compact: voc-animals test in COCO's layout",
    "recipes": "Recipes of the compact model, trained on train, judged on val",
    "variants": "Variants of the attention part, trained on train, judged on val",
}
HEADLINES = {"table1": ["mAP"]}  # the rest of table 1's columns are classes
CHANGED = "†"  # after a figure that --set made with other options
ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv"}


def headline(cells: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of a table against (column, source) as text, the best of each marked `**`."""
    parts = {}
    for column in columns:
        of_column = cells[cells["column"] == column].set_index("title")
        printed = of_column["paper"].notna().any()
        for source in SOURCES if printed else SCALES:
            parts[column, source] = _texts(of_column, source)
    return pd.DataFrame(parts).rename_axis("row")


def by_class(cells: pd.DataFrame, source: str) -> pd.DataFrame:
    """Rows against columns of one source as text, without columns that nobody has."""
    parts = {
        column: _texts(of_column.set_index("title"), source)
        for column, of_column in cells.groupby("column", sort=False)
        if of_column[source].notna().any()
    }
    found = pd.DataFrame(parts).rename_axis("row")
    return found[~found.isin([ABSENT, NOT_REIMPLEMENTED]).all(axis=1)]


def _texts(of_column: pd.DataFrame, source: str) -> pd.Series:
    """One source's cells of one column, a text a row."""
    rounded = of_column[source].round(1)
    # Best as printed: rows that agree in the decimal shown are bold together.
    best = None if source == "difference" else rounded.max()
    texts = []
    for title, value in rounded.items():
        line = of_column.loc[title]
        text = _missing(line, source) if pd.isna(value) else _shown(line, source, value)
        texts.append(f"**{text}**" if best is not None and value == best else text)
    return pd.Series(texts, index=of_column.index)


def _missing(line: pd.Series, source: str) -> str:
    if source == "paper":
        return ABSENT
    if source == "difference":
        known = line["reimplemented"] and pd.notna(line["paper"])
        return _missing(line, "full") if known else ABSENT
    if not line["reimplemented"]:
        return NOT_REIMPLEMENTED
    # A class that the compact models do not detect has no figure even where the row was run.
    waiting = line[f"{source}_run"] and not line[f"{source}_seeds"]
    return NOT_RUN if waiting else ABSENT


def _shown(line: pd.Series, source: str, value: float) -> str:
    if source == "difference":
        return f"{value:+.1f}"
    if source == "paper":
        return f"{value:.1f}"
    spread, mark = line[f"{source}_spread"], CHANGED if line[f"{source}_changed"] else ""
    if pd.isna(spread):
        return f"{value:.1f}{mark}"
    return f"{value:.1f} ± {spread:.1f} ({line[f'{source}_seeds']} seeds){mark}"


def steps(table: str, results: Path, measure: str = "AP50_11point") -> pd.DataFrame:
    """Each step from row to row: the paper's difference and the bootstrap's of each scale, as text.

    An interval is 95% over the images; detectable is the smallest true difference that they would
    have shown four times in five. Empty for a table without steps; a scale without a bootstrap
    has one column, 'not run'.
    measure: one of MEASURES; the paper's own is AP50 at 11 points, and others have no such column.
    """
    titles = {row.key: row.title for row in ROWS[table]}
    printed = measure == "AP50_11point" and table in TABLES
    paper = frame(table, results).set_index(["key", "column"])["paper"] if printed else {}
    lines = []
    for first, second in COMPARED.get(table, ()):
        line = {"step": f"{titles[first]} → {titles[second]}"}
        if printed:
            difference = paper[second, "mAP"] - paper[first, "mAP"]
            line["paper"] = ABSENT if pd.isna(difference) else f"{difference:+.1f}"
        for scale in SCALES if table in TABLES else ("compact",):
            path = Path(results, f"{table}-{scale}", "bootstrap.json")
            line |= _bootstrapped(path, first, second, measure)
        lines.append(line)
    return pd.DataFrame(lines).set_index("step") if lines else pd.DataFrame()


def _bootstrapped(path: Path, first: str, second: str, measure: str) -> dict[str, str]:
    scale = path.parent.name.rpartition("-")[2]
    names = [f"{scale}", f"{scale} 95%", f"{scale} over seeds", f"{scale} detectable"]
    if not path.is_file():
        return {scale: NOT_RUN}
    found = read_json(path)["steps"]
    for step in found:
        if (step["first"], step["second"]) == (first, second) and measure in step:
            value = {k: _percent(v) for k, v in step[measure].items() if k in _PERCENT}
            spread, seeds = value["seed_spread"], ", ".join(step[measure]["per_seed"])
            spread = f"seed {seeds} alone" if spread is None else f"± {spread:.1f} (seeds {seeds})"
            texts = [f"{value['difference']:+.1f}", f"{value['low']:+.1f} to {value['high']:+.1f}"]
            return dict(zip(names, [*texts, spread, f"{value['detectable']:.1f}"], strict=True))
    return dict.fromkeys(names, NOT_RUN)


_PERCENT = ("difference", "low", "high", "detectable", "seed_spread")


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def sections(table: str, results: Path) -> dict[str, pd.DataFrame]:
    """Title -> text cells of everything shown for a table or a choice."""
    if table in CHOICES:
        return {CAPTIONS[table]: judged_texts(table, Path(results))} | _steps(table, Path(results))
    cells = frame(table, Path(results))
    title = CAPTIONS[table] + _changes(cells)
    found = {title: headline(cells, HEADLINES.get(table) or columns_of(table))}
    if table in HEADLINES:
        for source in ("paper", "full", "compact"):
            classes = by_class(cells, source)
            if len(classes):
                found[f"{table}, AP50 (11 points) per class: {source}"] = classes
    if table in COMPARED:
        for scale in SCALES:
            classes = classes_over_seeds(table, Path(results), scale)
            if len(classes):
                found[f"{table}, AP50 (11 points) per class: {scale}"] = classes
    return found | _steps(table, Path(results))


def _steps(table: str, results: Path) -> dict[str, pd.DataFrame]:
    """Title -> text cells of the steps in each measure; empty for a table without steps."""
    names = MEASURES if table in COMPARED else {}
    return {f"{table}, steps in {name}": steps(table, results, m) for m, name in names.items()}


def classes_over_seeds(table: str, results: Path, scale: Scale) -> pd.DataFrame:
    """Rows that were run against the classes of the data, as text: mean and spread over seeds."""
    texts = {}
    for row in TABLES[table]:
        found = per_class(row, results, scale) if row.run(scale) else pd.DataFrame()
        if len(found):
            texts[row.title] = {
                name: f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"
                for name, mean, std in found.itertuples(name=None)
            }
    return pd.DataFrame.from_dict(texts, orient="index").rename_axis("row")


def _changes(cells: pd.DataFrame) -> str:
    """What the mark of a figure stands for, if any has it."""
    names = {n for s in SCALES for names in cells[f"{s}_changed"] for n in names.split(", ") if n}
    return f" ({CHANGED} with another {', '.join(sorted(names))} than the row's)" if names else ""


def render(table: str, results: Path, format: str = "markdown") -> str:
    """A table as text; csv is not rounded. Raises InputError for another name."""
    if table not in CAPTIONS or format not in ENDINGS:
        raise InputError(
            f"'{table}' as '{format}': give one of {', '.join(CAPTIONS)} and one of "
            f"{', '.join(ENDINGS)}."
        )
    if format == "csv":
        cells = judged if table in CHOICES else frame
        return cells(table, Path(results)).to_csv(index=False, lineterminator="\n")
    write = markdown if format == "markdown" else latex
    return "\n".join(write(title, cells) for title, cells in sections(table, results).items())


def write_tables(tables: Sequence[str], results: Path, out: Path) -> list[Path]:
    """Each table as <table>.md, .tex and .csv in `out`, the steps of a bootstrap as a chart.

    Returns the files.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for format, ending in ENDINGS.items():
            path = Path(out) / f"{table}.{ending}"
            path.write_text(render(table, results, format), encoding="utf-8")
            written.append(path)
        for scale in SCALES if table in COMPARED else ():
            if Path(results, f"{table}-{scale}", "bootstrap.json").is_file():
                path = Path(out) / f"{table}-{scale}-steps.png"
                steps_chart(table, Path(results), scale).savefig(path, dpi=100)
                written.append(path)
    return written


def markdown(title: str, cells: pd.DataFrame) -> str:
    """A title and a table in GitHub's Markdown."""
    heads = [" ".join(c) if isinstance(c, tuple) else c for c in cells.columns]
    lines = [[str(cells.index.name or ""), *heads], ["---"] + ["---:"] * len(heads)]
    lines += [[row, *texts] for row, *texts in cells.itertuples(name=None)]
    return f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(title: str, cells: pd.DataFrame) -> str:
    """A LaTeX table (package booktabs) with its caption."""
    shown = cells.rename(index=_escaped, columns=_escaped).map(_latex_cell)
    columns = "l" + "r" * len(shown.columns)
    return shown.to_latex(
        caption=_escaped(title),
        column_format=columns,
        index_names=False,
        multicolumn=True,
        multicolumn_format="c",
    )


def _latex_cell(text: str) -> str:
    bold = text.startswith("**")
    text = _escaped(text.strip("*"))
    return f"\\textbf{{{text}}}" if bold else text


def _escaped(text: str) -> str:
    signs = {"%": r"\%", "_": r"\_", "&": r"\&", "–": "--"}
    signs |= {"±": r"$\pm$", "†": r"$\dagger$", "→": r"$\to$"}
    return "".join(signs.get(letter, letter) for letter in text)
