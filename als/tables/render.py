"""Tables 1 to 3 with a column for paper, full and compact, as Markdown, LaTeX and CSV.

Figures are percent with one decimal. The best of each source and column is bold, as in the paper.
'not run' is a run that has no record yet, '–' a cell that there can be none for.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from als.errors import InputError
from als.files import atomic_write
from als.tables.charts import steps_chart
from als.tables.measured import (
    ABSENT,
    MEASURES,
    NOT_RUN,
    OF_CHOICES,
    bootstrap_file,
    bootstrapped,
    columns_of,
    frame,
    judged,
    per_class,
    published_step,
    record_files,
)
from als.tables.rows import CHOICES, COMPARED, ROWS, SCALES, TABLES, Scale

SOURCES = ("paper", "full", "difference", "compact")
CAPTIONS = {
    "table1": "Table 1: mAP (AP50 by 11 points), VOC 2007 test; compact: voc-animals test",
    "table2": "Table 2: the ablation, VOC 2007 test; compact: voc-animals test",
    "table3": "Table 3: COCO minival; compact: COCO photographs of Everyday, 20 classes",
    "recipes": "Recipes of the compact model, trained on train, judged on val",
    "variants": "Variants of the attention part, trained on train, judged on val",
    "competition": "Competition over its knob, trained on train, judged on val",
    "distillation": "Self-distillation of A_cls, trained on train, judged on val",
}
HEADLINES = {"table1": ["mAP"]}  # the rest of table 1's columns are classes
STEPS_IN = {"table1": ["AP50_11point"], "table3": ["AP"]}  # a table's own measure; else all
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
    return found[(found != ABSENT).any(axis=1)]


def _texts(of_column: pd.DataFrame, source: str) -> pd.Series:
    """One source's cells of one column, a text a row."""
    rounded = of_column[source].round(1)
    texts = of_column.assign(value=rounded).apply(_cell, axis=1, source=source)
    # Best as printed: rows that agree in the decimal shown are bold together. One alone is no best.
    compares = source != "difference" and rounded.count() > 1
    is_best = (rounded == rounded.max()) & compares
    return texts.mask(is_best, "**" + texts + "**")


def _cell(line: pd.Series, source: str) -> str:
    if pd.isna(line["value"]):
        return _missing(line, source)
    if source == "difference":
        return f"{line['value']:+.1f}"
    text = f"{line['value']:.1f}"
    if source != "paper":
        if pd.notna(line[f"{source}_spread"]):
            text += f" ± {line[f'{source}_spread']:.1f} ({line[f'{source}_seeds']} seeds)"
        text += CHANGED if line[f"{source}_changed"] else ""
    return text


def _missing(line: pd.Series, source: str) -> str:
    if source == "paper" or source == "difference" and pd.isna(line["paper"]):
        return ABSENT
    scale = "full" if source == "difference" else source
    # A class that the compact models do not detect has no figure even where the row was run.
    return NOT_RUN if line[f"{scale}_due"] else ABSENT


def steps(table: str, results: Path, measure: str = "AP50_11point") -> pd.DataFrame:
    """Each step from row to row: the paper's difference and the bootstrap's of each scale, as text.

    An interval is 95% over the images; detectable is the smallest true difference that they would
    have shown four times in five. Empty for a table without steps; a scale without a bootstrap
    has one column, 'not run'.
    measure: one of MEASURES; the paper's own is AP50 at 11 points, and others have no such column.
    """
    titles = {row.key: row.title for row in ROWS[table]}
    scales: Sequence[Scale] = SCALES if table in TABLES else ("compact",)
    made = {scale: bootstrapped(table, scale, results) for scale in scales}
    lines = []
    for first, second in COMPARED.get(table, ()):
        line = {"step": f"{titles[first]} → {titles[second]}"}
        if measure == "AP50_11point" and table in TABLES:
            difference = published_step(table, first, second)
            line["paper"] = ABSENT if pd.isna(difference) else f"{difference:+.1f}"
        for scale, found in made.items():
            if found is None:
                line[scale] = NOT_RUN
            else:
                line |= _step_texts(scale, found.get((first, second), {}).get(measure))
        lines.append(line)
    return pd.DataFrame(lines).set_index("step") if lines else pd.DataFrame()


def _step_texts(scale: str, step: dict | None) -> dict[str, str]:
    names = [scale, f"{scale} 95%", f"{scale} over seeds", f"{scale} detectable"]
    if step is None:
        return dict.fromkeys(names, NOT_RUN)
    value = {name: 100 * step[name] for name in ("difference", "low", "high", "detectable")}
    seeds, spread = ", ".join(step["per_seed"]), step["seed_spread"]
    texts = [
        f"{value['difference']:+.1f}",
        f"{value['low']:+.1f} to {value['high']:+.1f}",
        f"seed {seeds} alone" if spread is None else f"± {100 * spread:.1f} (seeds {seeds})",
        f"{value['detectable']:.1f}",
    ]
    return dict(zip(names, texts, strict=True))


def judged_texts(name: str, results: Path) -> pd.DataFrame:
    """`judged` as text, rows against columns."""
    found = judged(name, results)
    missing = found["seed"].isna()
    texts = {"seed": found["seed"].astype(str).mask(missing, ABSENT)}
    for column, (part, _) in OF_CHOICES.items():
        shown = found[column].map("{:.1f}".format if part == "metrics" else "{:.2f}".format)
        texts[column] = shown.mask(found[column].isna(), ABSENT).mask(missing, NOT_RUN)
    return pd.DataFrame(texts).set_axis(pd.Index(found["row"], name="row"))


def sections(table: str, results: Path) -> dict[str, pd.DataFrame]:
    """Title -> text cells of everything shown for a table or a choice."""
    per_class_title = f"{table}, AP50 (11 points) per class"
    if table in CHOICES:
        found = {CAPTIONS[table]: judged_texts(table, results)}
    else:
        cells = frame(table, results)
        title = CAPTIONS[table] + _changes(cells)
        found = {title: headline(cells, HEADLINES.get(table) or columns_of(table))}
        if table in HEADLINES:
            for source in ("paper", *SCALES):
                found[f"{per_class_title}: {source}"] = by_class(cells, source)
        if table == "table2":  # of VOC too, without a column a class
            for scale in SCALES:
                found[f"{per_class_title}: {scale}"] = classes_over_seeds(table, results, scale)
    if table in COMPARED:
        for measure in STEPS_IN.get(table, MEASURES):
            found[f"{table}, steps in {MEASURES[measure]}"] = steps(table, results, measure)
    return {title: cells for title, cells in found.items() if len(cells)}


def reading(table: str, results: Path) -> str:
    """What may be read from a table of the paper, in sentences: what was run, what that tells.

    Told from chance is a step whose 95% interval over the test images leaves out zero.
    """
    titles, ran = {row.key: row.title for row in TABLES[table]}, []
    for scale in SCALES:
        runs = [row.run(scale) for row in TABLES[table] if row.run(scale)]
        trained = [len(record_files(run, results)) for run in runs]
        ran.append(f"{sum(map(bool, trained))} of {len(runs)}")
    told = [
        f"Rows that were run: {ran[0]} in the paper's setting, {ran[1]} with compact models.",
        "Compact rows compare with each other alone: other photographs and a smaller network than "
        "the paper's neither confirm nor refute its figures.",
    ]
    measure = STEPS_IN.get(table, ["AP50_11point"])[0]
    differences: dict[bool, list[str]] = {True: [], False: []}
    for (first, second), step in (bootstrapped(table, "compact", results) or {}).items():
        value, low, high = (100 * step[measure][part] for part in ("difference", "low", "high"))
        is_told = low > 0 or high < 0
        differences[is_told].append(f"{titles[second]} against {titles[first]} {value:+.1f}")
    for is_told, verdict in ((True, "can tell"), (False, "cannot tell")):
        if differences[is_told]:
            found = "; ".join(differences[is_told])
            told.append(f"In {MEASURES[measure]} the test images {verdict} from chance: {found}.")
    return " ".join(told)


def classes_over_seeds(table: str, results: Path, scale: Scale) -> pd.DataFrame:
    """Rows that were run against the classes of the data, as text: mean and spread over seeds."""
    texts = {}
    for row in TABLES[table]:
        found = per_class(row, results, scale)
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
        return cells(table, results).to_csv(index=False, lineterminator="\n")
    write = markdown if format == "markdown" else latex
    parts = [write(title, cells) for title, cells in sections(table, results).items()]
    if format == "markdown" and table in TABLES:
        parts.insert(0, reading(table, results) + "\n")
    return "\n".join(parts)


def write_tables(tables: Sequence[str], results: Path, out: Path) -> list[Path]:
    """Each table as <table>.md, .tex and .csv in `out`, the steps of a bootstrap as a chart.

    Returns the files.
    """
    written = []
    for table in tables:
        for format, ending in ENDINGS.items():
            path = Path(out) / f"{table}.{ending}"
            text = render(table, results, format)
            with atomic_write(path) as aside:
                aside.write_text(text, encoding="utf-8")
            written.append(path)
        for scale in SCALES if table in COMPARED else ():
            if bootstrap_file(table, scale, results).is_file():
                path = Path(out) / f"{table}-{scale}-steps.png"
                with atomic_write(path) as aside:
                    steps_chart(table, results, scale).savefig(aside, format="png", dpi=100)
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
    return text.translate(str.maketrans(signs))
