"""The config of a stage: its file with the reproduction's changes, and what is comparable of it."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from als.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.errors import InputError
from als.records import read_json
from als.reproduce.definitions import Stage
from als.reproduce.settings import Settings

CONFIGS = Path(__file__).parents[2] / "configs"
# What may differ between two machines without making another network.
PLACES = {"out", "start_from", "channels_last", "compile"}
DATA_PLACES = {"root", "workers"}
HOURS = re.compile(r"([\d.]+) h of a V100")


def config_file(stage: Stage) -> Path:
    """The YAML file of a stage. Raises InputError outside a checkout, which has no configs."""
    path = CONFIGS / f"{stage.config}.yaml"
    if not path.is_file():
        raise InputError(f"{path}: no such config; run this from a checkout of the repository.")
    return path


def stage_config(
    stage: Stage, seed: int, start_from: Path | None, settings: Settings
) -> TrainConfig:
    """The config of a stage with its seed, data, folder and start.

    Raises InputError for a change that names no option.
    """
    file = config_file(stage)
    own = read_config(file)
    out = Path("runs", stage.out) if stage.out else Path(own.out)
    # The first seed of a config as it stands uses its own folder, so that `als train` counts.
    suffix = f"-seed{seed}" if stage.out or seed else ""
    changes = {
        "data.train": stage.data.train,
        **stage.changes,
        **settings.changes,
        "data.root": str(settings.root(stage.data)),
        "out": str(settings.runs / out.relative_to("runs")) + suffix,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    if settings.weights is not None and own.model.weights is not None:
        changes["model.weights"] = str(settings.weights)
    return read_config(file, changes)


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A config file as `als train` reads it, with dotted options changed.

    Raises InputError for a change that names no option, or has a value that it cannot take.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(TrainConfig)
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (changes or {}).items()}
    arguments = [f"--{name}={text}" for name, text in texts.items()]
    try:
        given = parser.parse_args(["--config", str(path), *arguments])
    except ArgumentError as error:
        message = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path.name} with the changes given: {message}.") from error
    values = parser.instantiate(given).as_dict()
    values.pop("config")
    return TrainConfig(**values)


def comparable(config: TrainConfig) -> dict[str, Any]:
    """The options that make the network what it is, as plain values; no folder, no speed."""
    values = json.loads(json.dumps(asdict(config)))
    for name in PLACES:
        values.pop(name)
    for name in DATA_PLACES:
        values["data"].pop(name)
    # A file of ImageNet weights and their download are the same weights.
    values["model"]["weights"] = "imagenet" if values["model"]["weights"] else None
    return values


def saved_config(path: Path) -> dict[str, Any] | None:
    """`comparable` of a run's config.json, options younger than it at their defaults.

    The batch is that of all processes together. None where the file is missing or from a version
    that cannot be read any more.
    """
    try:
        values = read_json(path)
        config = comparable(_from_dict(values))
        config["data"]["batch_size"] *= _batches_a_step(values.get("trainer", {}))
    except (InputError, TypeError, KeyError, ValueError):
        return None
    return config


def _batches_a_step(trainer: Mapping[str, Any]) -> int:
    """How many batches of `data.batch_size` made a step, by the arguments of lightning's Trainer.

    Devices that are not counted there ("auto", -1) count as one.
    """
    devices = trainer.get("devices", 1)
    count = len(devices) if isinstance(devices, list) else devices
    count = int(count) if str(count).isdigit() else 1
    return count * trainer.get("num_nodes", 1) * trainer.get("accumulate_grad_batches", 1)


def _from_dict(values: Mapping[str, Any]) -> TrainConfig:
    parts = {"model": ModelConfig, "data": DataConfig, "optimizer": OptimizerConfig}
    made = {name: kind(**values[name]) for name, kind in parts.items()}
    # Of how lightning's trainer was started only `_batches_a_step` matters to the network.
    others = {name: value for name, value in values.items() if name != "trainer"}
    return TrainConfig(**{**others, **made})


def differences(one: Mapping[str, Any], two: Mapping[str, Any], above: str = "") -> list[str]:
    """Dotted names of the options that differ between two results of `comparable`."""
    found = []
    for name in sorted({*one, *two}):
        a, b = one.get(name), two.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{above}{name}.")
        elif a != b:
            found.append(f"{above}{name}")
    return found


def hours_in_header(stage: Stage, config: TrainConfig) -> float | None:
    """Hours of a V100 that the comment of a config derives, for the epochs of `config`."""
    file = config_file(stage)
    head = " ".join(re.findall(r"^# ?(.*)", file.read_text(), re.MULTILINE))
    found = HOURS.search(head)
    if found is None:
        return None
    return float(found[1]) * config.epochs / read_config(file).epochs
