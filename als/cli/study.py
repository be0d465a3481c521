"""`als study`: the maps of checkpoints measured on a data set."""

from pathlib import Path

from jsonargparse import ArgumentParser


def study(arguments: list[str]) -> None:
    """Compare maps: als study CHECKPOINT... --data VOC2012:test --root DIR --out DIR [--resume]"""
    parser = ArgumentParser(prog="als study", description=study.__doc__)
    parser.add_argument("checkpoints", nargs="+", help="files, or 'shipped'")
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--maps", nargs="+", type=str, help="names; default: all quick ones")
    parser.add_argument(
        "--measures", nargs="+", type=str, help="names or groups; default: where part"
    )
    parser.add_argument("--interventions", action="store_true", help="replace the maps, too")
    parser.add_argument("--gallery", action="store_true", help="pictures of best and worst cases")
    parser.add_argument("--limit", type=int, help="so many images, drawn at random by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drise-masks", type=int, help="passes of D-RISE an image")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on in a folder with a study")
    parser.add_argument("--shard", type=str, help="1/2 or 2/2: half of the images, with --resume")
    given = parser.parse_args(arguments)

    from als.study.study_command import study as run

    options = given.as_dict()
    spec = options.pop("data")
    if options["drise_masks"] is None:
        del options["drise_masks"]
    for folder in run(spec=spec, **options):
        written = "rows" if options["shard"] else "summary.json, tables and figures"
        print(f"{folder}: {written}")
