"""`als tables`: the paper's tables beside what was measured here."""

from pathlib import Path

from jsonargparse import ArgumentParser


def tables(arguments: list[str]) -> None:
    """Paper, full and compact: als tables [TABLE ...] [--format markdown|latex|csv] [--out DIR]"""
    names = ["table1", "table2", "table3"]
    parser = ArgumentParser(prog="als tables", description=tables.__doc__)
    told = f"of {', '.join(names)} (the default), recipes, variants"
    parser.add_argument("tables", nargs="*", help=told)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the records")
    parser.add_argument("--format", choices=["markdown", "latex", "csv"], default="markdown")
    parser.add_argument("--out", type=Path, help="a folder for all three formats, not the screen")
    given = parser.parse_args(arguments)

    from als.tables.render import render, write_tables

    chosen = given.tables or names
    if given.out is None:
        for name in chosen:
            print(render(name, given.results, given.format))
        return
    for path in write_tables(chosen, given.results, given.out):
        print(path)
