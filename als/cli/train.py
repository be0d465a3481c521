"""`als train` and `als ship`: from a config to a checkpoint, and into the package."""

from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from als.errors import InputError

SHIPPED_FIGURES = ("AP50_area", "AP75", "AP")


def train(arguments: list[str]) -> None:
    """Train a detector: als train configs/compact-stage1.yaml [--resume] [--data.root DIR] ..."""
    import lightning

    from als.config import TrainConfig
    from als.training.train import train as run

    parser = ArgumentParser(prog="als train CONFIG", description=train.__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file; CONFIG is short for it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_class_arguments(TrainConfig)
    # What the run sets itself; everything else of lightning's Trainer can be given.
    own = {"max_epochs", "gradient_clip_val", "callbacks", "logger", "default_root_dir"}
    own |= {"use_distributed_sampler", "plugins", "profiler"}
    own |= {"limit_val_batches", "overfit_batches", "fast_dev_run"}  # AP is of all images
    parser.add_class_arguments(lightning.Trainer, "trainer", skip=own, instantiate=False)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    try:
        given = parser.parse_args(arguments)
    except ArgumentError as error:  # else the usage, a hundred lines, comes with it
        told = " ".join(str(error).split()).rstrip(".")
        if len(arguments) > 1 and arguments[0] == "--config":
            told = f"{arguments[1]} and the options after it: {told}"
        raise InputError(f"{told}; `als train --help` lists every option.") from error
    values = parser.instantiate(given).as_dict()
    values.pop("config", None)
    resume, options = values.pop("resume"), values.pop("trainer")
    changed = {k: v for k, v in options.items() if v != parser.get_default(f"trainer.{k}")}
    print(run(TrainConfig(**values), resume, **changed))


def ship(arguments: list[str]) -> None:
    """Make a checkpoint the one that ships: als ship CHECKPOINT [--record FILE]"""
    from als.inference import SHIPPED

    parser = ArgumentParser(prog="als ship", description=ship.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--record", type=Path, help="of `als evaluate`; its figures go along")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)

    from als.checkpoint import load_checkpoint, save_checkpoint

    detector, info = load_checkpoint(given.checkpoint)
    if given.record is not None:
        info["figures"] = _figures(given.record)
    save_checkpoint(detector, given.out, info, half=True)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB; write its card beside it")


def _figures(file: Path) -> dict:
    """What the checkpoint says of itself, from a record of `als evaluate`."""
    from als.files import read_json

    record = read_json(file)
    try:
        figures = {name: round(record["metrics"][name], 3) for name in SHIPPED_FIGURES}
        return {"data": record["data"]["split"], **figures}
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: is no record of `als evaluate`.") from error
