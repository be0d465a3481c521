"""How long a step takes and how much disk it fills, as far as anything is known of it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.errors import InputError
from als.files import read_json
from als.reproduce.configs import hours_in_header
from als.reproduce.settings import Settings
from als.reproduce.steps import Convert, Evaluate, Prepare, Train
from als.training.same_config import comparable, filled

FLOAT = 4  # bytes
SAVED_STATES = 2  # last.ckpt and previous.ckpt


@dataclass(frozen=True)
class Hours:
    """hours is None where nothing is known; source says where the figure comes from."""

    hours: float | None
    source: str


UNKNOWN = Hours(None, "unknown")
DERIVED = "at least, derived for a V100"


@dataclass(frozen=True)
class Disk:
    """folder: one that lies on it. needed, free: bytes."""

    folder: Path
    needed: int
    free: int


def hours_of(step, settings: Settings) -> Hours:
    """Of a whole step: measured where a record of the same work exists, else what a config says."""
    if isinstance(step, Train):
        return _measured_training(step, settings) or _derived(step)
    if isinstance(step, Evaluate):
        return _measured_evaluation(step, settings) or UNKNOWN
    return UNKNOWN


def _records(settings: Settings) -> list[dict]:
    found = []
    for path in sorted(settings.results.rglob("*.json")):
        try:
            record = read_json(path)
        except InputError:
            continue
        if isinstance(record, dict) and "metrics" in record:
            found.append(record)
    return found


def _measured_training(step: Train, settings: Settings) -> Hours | None:
    wanted = comparable(step.config) | {"seed": None}
    for record in _records(settings):
        for stage in record.get("stages", []):
            if filled(stage["config"]) | {"seed": None} == wanted and stage["hours"]:
                return Hours(stage["hours"], f"measured on {_name(stage['machine'])}")
    return None


def _derived(step: Train) -> Hours:
    hours = hours_in_header(step.stage, step.config)
    return UNKNOWN if hours is None else Hours(hours, DERIVED)


def _measured_evaluation(step: Evaluate, settings: Settings) -> Hours | None:
    wanted = step.stages[-1].config.model.to_dict()
    for record in _records(settings):
        if _same_network(record["config"], wanted):
            seconds = record["data"]["images"] / record["seconds"]["images_per_second"]
            return Hours(seconds / 3600, f"measured on {_name(record['machine'])}")
    return None


def _same_network(made: dict, wanted: dict) -> bool:
    names = (made.keys() & wanted.keys()) - {"weights"}
    return all(_plain(made[name]) == _plain(wanted[name]) for name in names)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _name(machine: dict | None) -> str:
    machine = machine or {}
    return machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"


def bytes_of(step) -> int:
    """What a step adds to the disk: data, or checkpoints (weights, gradients' momenta)."""
    if isinstance(step, Prepare):
        from als.data.prepare import SETS

        archives = [archive for part in SETS[step.name] for archive in part.archives]
        return sum(archive.size + archive.unpacked for archive in archives)
    if isinstance(step, Convert):
        images = step.settings.source / str(step.data.converted_from) / "JPEGImages"
        # Hard links take no room; where they cannot be made this much is copied.
        return sum(path.stat().st_size for path in images.glob("*"))
    if isinstance(step, Train):
        return _checkpoints(step.config.model, step.config.optimizer.name)
    return 0


@cache
def _checkpoints(config: ModelConfig, optimizer: str) -> int:
    with torch.device("meta"):
        detector = build_detector(config, pretrained=False)
    weights = sum(tensor.numel() for tensor in detector.state_dict().values())
    trained = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    states = weights + trained * (2 if optimizer == "adamw" else 1)
    return FLOAT * (weights + SAVED_STATES * states)


def disks(steps: Sequence, settings: Settings) -> list[Disk]:
    """What steps add to each disk: data sets below the data root, all else below the runs."""
    needed: dict[int, Disk] = {}
    for step in steps:
        folder = settings.source if isinstance(step, Prepare) else settings.runs
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        device = there.stat().st_dev
        disk = needed.get(device, Disk(folder, 0, shutil.disk_usage(there).free))
        needed[device] = replace(disk, needed=disk.needed + bytes_of(step))
    return list(needed.values())
