"""`als reproduce`: a table of the paper, made anew."""

from pathlib import Path

from jsonargparse import ArgumentParser

from als.errors import InputError


def reproduce(arguments: list[str]) -> None:
    """A table anew: als reproduce table1|table2|table3|recipes|variants --scale full|compact"""
    parser = ArgumentParser(prog="als reproduce", description=reproduce.__doc__)
    parser.add_argument("table", choices=["table1", "table2", "table3", "recipes", "variants"])
    parser.add_argument("--scale", choices=["full", "compact"], required=True)
    parser.add_argument("--data-root", type=Path, help="default: data, compact data/voc-animals")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=str, nargs="+", default=[], help="only these rows")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's file, for the compact rows")
    parser.add_argument("--set", type=str, nargs="+", default=[], metavar="OPTION=VALUE")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--force", action="store_true", help="redo what another config made")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    given = parser.parse_args(arguments)
    if given.weights is not None and given.scale == "full":
        raise InputError("--weights is for --scale compact; the full rows have three backbones.")

    from als.tables.plan import describe, make_plan
    from als.tables.plan import reproduce as run
    from als.tables.stage_config import Settings

    settings = Settings(
        given.scale,
        given.data_root,
        tuple(given.seeds),
        given.results,
        given.runs,
        given.weights,
        dict(_change(text) for text in given.set),
        given.force,
        rows=tuple(given.rows),
    )
    plan = make_plan(given.table, settings)
    print(describe(plan), flush=True)
    if not given.dry_run:
        run(plan)


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: write OPTION=VALUE, as in data.workers=1.")
    return name, value
