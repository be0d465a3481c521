"""Whether two runs make the same network: their configs without what makes no difference to it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from als.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from als.errors import InputError
from als.files import read_json

# What may differ between two machines without making another network.
PLACES = {"out", "start_from", "channels_last", "compile"}
DATA_PLACES = {"root", "workers"}
# What may also differ between two sittings of one run. The batch may have been made by another
# number of processes; `SaveLast` refuses one of another size.
OF_A_SITTING = {"trainer", "data.batch_size", "data.skip_broken", "data.keep_decoded"}
# Arguments of lightning's Trainer that leave out a part of the training.
SHORTENING = {"max_steps", "max_time", "limit_train_batches"}


def check_resumes(config: TrainConfig, file: Path) -> None:
    """Compare with the config.json of the run that is to go on.

    Rates and schedule come from its checkpoint, whatever the config says now. Raises InputError
    where an option differs that would have made another network.
    """
    saved, wanted = saved_config(file), comparable(config)
    if saved is None:
        return
    changed = [name for name in differences(saved, wanted) if name not in OF_A_SITTING]
    # A validation may begin or end, but the best so far is no rival on other photographs.
    if "data.val" in changed and None in (saved["data"]["val"], config.data.val):
        changed.remove("data.val")
    if changed:
        raise InputError(
            f"{file.parent}: was begun with other {', '.join(changed)}; resume with the same "
            "config, or choose another --out."
        )


def comparable(config: TrainConfig) -> dict[str, Any]:
    """The options that make the network what it is, as plain values; no folder, no speed."""
    values = json.loads(json.dumps(asdict(config)))
    for name in PLACES:
        values.pop(name)
    for name in DATA_PLACES:
        values["data"].pop(name)
    # A file of ImageNet weights and their download are the same weights.
    weights = values["model"]["weights"]
    if weights is not None and not weights.startswith("IMAGENET1K_"):
        values["model"]["weights"] = "imagenet"
    return values


def saved_config(path: Path) -> dict[str, Any] | None:
    """`comparable` of a run's config.json, options younger than it at their defaults.

    The batch is that of all processes together. "trainer" holds what cut the training short, if
    anything did. None where the file is missing or from a version that cannot be read any more.
    """
    try:
        values = read_json(path)
        trainer = values.pop("trainer", {})
        config = filled(values)
        config["data"]["batch_size"] *= _batches_a_step(trainer)
    except (InputError, TypeError, KeyError, ValueError):
        return None
    shortened = {name: value for name, value in trainer.items() if name in SHORTENING}
    return config | ({"trainer": shortened} if shortened else {})


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`comparable` of a saved config, options younger than it at their defaults.

    Raises TypeError or KeyError for one that this version cannot read.
    """
    parts = {"model": ModelConfig, "data": DataConfig, "optimizer": OptimizerConfig}
    made = {name: kind(**values[name]) for name, kind in parts.items()}
    return comparable(TrainConfig(**{**values, **made}))


def _batches_a_step(trainer: Mapping[str, Any]) -> int:
    """How many batches of `data.batch_size` made a step, by the arguments of lightning's Trainer.

    Devices that are not counted there count as one; a run on several has them counted.
    """
    devices = trainer.get("devices", 1)
    count = len(devices) if isinstance(devices, list) else devices
    count = int(count) if str(count).isdigit() else 1
    return count * trainer.get("num_nodes", 1) * trainer.get("accumulate_grad_batches", 1)


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
