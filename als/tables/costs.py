"""How long a step takes and how much disk it fills, as far as anything is known of it."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from als.checkpoint import build_detector
from als.config import ModelConfig
from als.data.prepare import SETS
from als.errors import InputError
from als.tables.measured import read_record
from als.tables.stage_config import Settings, hours_in_header
from als.tables.training_steps import Convert, Evaluate, Prepare, Train
from als.training.same_config import comparable, filled

FLOAT = 4  # bytes
SAVED_STATES = 2  # last.ckpt and previous.ckpt
TIMED = ("config", "data", "seconds")  # parts of a record of an evaluation that was timed
DERIVED = "at least, derived for a V100"


def evaluation_records(results: Path) -> list[dict]:
    """All records of evaluations below a folder, where there are other files too."""
    found = []
    for path in sorted(results.rglob("*.json")):
        with suppress(InputError):
            found.append(read_record(path))
    return found


def hours_of(step, records: Sequence[dict]) -> tuple[float | None, str]:
    """Hours of a whole step, None where nothing is known; and where the figure comes from.

    Measured where one of `records` has the same work, else what a training's config says.
    """
    if isinstance(step, Train):
        wanted = comparable(step.config) | {"seed": None}
        for record in records:
            for stage in record.get("stages") or ():
                if filled(stage["config"]) | {"seed": None} == wanted and stage.get("hours"):
                    return stage["hours"], _measured_on(stage.get("machine"))
        hours = hours_in_header(step.stage, step.config)
        if hours is not None:
            return hours, DERIVED
    if isinstance(step, Evaluate):
        wanted = comparable(step.stages[-1].config)["model"]
        # One of saved detections has no seconds, and perhaps no network.
        for record in (one for one in records if all(map(one.get, TIMED))):
            made = record["config"]
            names = (made.keys() & wanted.keys()) - {"weights"}
            if all(made[name] == wanted[name] for name in names):
                seconds = record["data"]["images"] / record["seconds"]["images_per_second"]
                return seconds / 3600, _measured_on(record.get("machine"))
    return None, "unknown"


def _measured_on(machine: dict | None) -> str:
    machine = machine or {}
    name = machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"
    return f"measured on {name}"


def bytes_of(step) -> int:
    """What a step adds to the disk: data, or checkpoints (weights, gradients' momenta)."""
    if isinstance(step, Prepare):
        archives = [archive for part in SETS[step.name] for archive in part.archives]
        return sum(archive.size + archive.unpacked for archive in archives)
    if isinstance(step, Convert):
        # Hard links take no room; where they cannot be made this much is copied.
        return sum(path.stat().st_size for path in (step.source / "JPEGImages").glob("*"))
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


def disks(steps: Sequence, settings: Settings) -> list[tuple[Path, int, int]]:
    """Of each disk a folder on it, and bytes that the steps add to it and that are free.

    Data sets go below the data root, all else below the runs.
    """
    found: dict[int, tuple[Path, int, int]] = {}
    for step in steps:
        folder = settings.source if isinstance(step, Prepare) else settings.runs
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        start = (folder, 0, shutil.disk_usage(there).free)
        first, needed, free = found.get(device := there.stat().st_dev, start)
        found[device] = (first, needed + bytes_of(step), free)
    return list(found.values())
