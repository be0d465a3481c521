"""The command line `als`: thin, each command one call into the package.

A command imports what it needs when it runs, so that `als --help` answers at once.
"""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from als.errors import InputError


def train(arguments: list[str]) -> None:
    """Train a detector: als train configs/compact-stage1.yaml [--resume] [--data.root DIR] ..."""
    import lightning

    from als.config import TrainConfig
    from als.evaluation.run import judge_by_id
    from als.training.run import train as run

    parser = ArgumentParser(prog="als train CONFIG", description=train.__doc__)
    parser.add_argument("--config", action="config", help="YAML file; CONFIG is short for it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_class_arguments(TrainConfig)
    # What the run sets itself; everything else of lightning's Trainer can be given.
    own = {"max_epochs", "gradient_clip_val", "callbacks", "logger", "default_root_dir"}
    own |= {"use_distributed_sampler", "plugins", "profiler"}
    parser.add_class_arguments(lightning.Trainer, "trainer", skip=own, instantiate=False)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    given = parser.parse_args(arguments)
    values = parser.instantiate(given).as_dict()
    values.pop("config", None)
    resume, options = values.pop("resume"), values.pop("trainer")
    changed = {k: v for k, v in options.items() if v != parser.get_default(f"trainer.{k}")}
    print(run(TrainConfig(**values), resume, judge_by_id, **changed))


def evaluate(arguments: list[str]) -> None:
    """Measure a checkpoint: als evaluate CHECKPOINT --data VOC2012:test --root DIR [--out FILE]"""
    parser = ArgumentParser(prog="als evaluate", description=evaluate.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=str, required=True, help="FOLDER:SPLIT [+ FOLDER:SPLIT]")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the data folders")
    parser.add_argument("--out", type=Path, help="where the JSON record goes")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)

    from als.data.voc import load_records
    from als.evaluation.run import evaluate as run
    from als.evaluation.run import table
    from als.model import load_checkpoint
    from als.records import write_json

    detector, info = load_checkpoint(given.checkpoint)
    records = load_records(given.data, given.root, detector.config.classes)
    record = run(detector.to(given.device), records, given.workers)
    record["data"]["split"] = given.data
    record["training"] = info
    print(table(record, given.checkpoint))
    if record["maps"]:
        print("maps: " + ", ".join(f"{k} {v:.3f}" for k, v in record["maps"].items()))
    if given.out is not None:
        write_json(given.out, record)


def predict(arguments: list[str]) -> None:
    """Detect on images: als predict CHECKPOINT IMAGE... --out DIR (pictures and JSON)"""
    parser = ArgumentParser(prog="als predict", description=predict.__doc__)
    parser.add_argument("checkpoint", type=Path, help="or 'shipped' for the one in the package")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("--device", type=str, default="cpu")
    given = parser.parse_args(arguments)

    from als.predictor import load
    from als.report.pictures import save_prediction

    shipped = str(given.checkpoint) == "shipped"
    predictor = load(None if shipped else given.checkpoint, given.device)
    for path in given.images:
        prediction = predictor.predict(path, score_threshold=given.score_threshold)
        written = save_prediction(path, prediction, given.out)
        found = ", ".join(
            f"{name} {score:.2f}"
            for name, score in zip(prediction.names, prediction.scores, strict=True)
        )
        print(f"{path}: {found or 'nothing found'} -> {written}")


def data(arguments: list[str]) -> None:
    """Data sets: als data toy DIR writes a drawn one; als data check DIR names broken files"""
    parser = ArgumentParser(prog="als data", description=data.__doc__)
    parser.add_argument("action", choices=["toy", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=24, help="toy: how many")
    parser.add_argument("--seed", type=int, default=0, help="toy: of the drawings")
    given = parser.parse_args(arguments)
    if given.action == "toy":
        from als.data.toy import write_toy

        write_toy(given.folder, given.images, given.seed)
        print(f"{given.folder}: {given.images} drawn images in the VOC layout")
        return
    from als.data.check import check_folder

    problems = check_folder(given.folder)
    if len(problems):
        print(problems.to_string(index=False))
        raise InputError(f"{given.folder}: {len(problems)} problems, see the table above.")
    print(f"{given.folder}: no broken file")


def app(arguments: list[str]) -> None:
    """Open the app: als app [--checkpoint FILE] [--host 127.0.0.1] [--port 7860]"""
    parser = ArgumentParser(prog="als app", description=app.__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the one that ships")
    parser.add_argument("--other", type=Path, help="a second checkpoint, for the Compare tab")
    parser.add_argument("--host", type=str, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    given = parser.parse_args(arguments)

    from als.ui import launch

    launch(given.checkpoint, given.host, given.port, given.other)


def ship(arguments: list[str]) -> None:
    """Make a checkpoint the one that ships: als ship CHECKPOINT [--record FILE]"""
    from als.predictor import SHIPPED

    parser = ArgumentParser(prog="als ship", description=ship.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--record", type=Path, help="of `als evaluate`; its figures go along")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)

    from als.model import load_checkpoint, save_checkpoint
    from als.records import read_json

    detector, info = load_checkpoint(given.checkpoint)
    if given.record is not None:
        record = read_json(given.record)
        info["figures"] = {
            "data": record["data"]["split"],
            **{name: round(record["metrics"][name], 3) for name in ("AP50_area", "AP75", "AP")},
        }
    save_checkpoint(detector, given.out, info, half=True)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB; write its card beside it")


COMMANDS = {run.__name__: run for run in (train, evaluate, predict, data, app, ship)}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; bad input ends with one sentence on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("als COMMAND ... (als COMMAND --help tells more)\n")
        for name, run in COMMANDS.items():
            print(f"  {name:<10}{run.__doc__}")
        return
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"'{arguments[0]}' is no command; there are {', '.join(COMMANDS)}.")
        COMMANDS[arguments[0]](arguments[1:])
    except InputError as error:
        print(f"als: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
