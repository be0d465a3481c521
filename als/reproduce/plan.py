"""A table -> the steps that are missing for it, in order, and what they cost."""

from dataclasses import dataclass, replace

import torch

from als.errors import InputError
from als.reproduce.choices import COMPARED, ROWS
from als.reproduce.compare import Compare
from als.reproduce.configs import stage_config
from als.reproduce.costs import DERIVED, bytes_of, disks, hours_of
from als.reproduce.definitions import Run
from als.reproduce.settings import Settings
from als.reproduce.steps import Convert, Evaluate, Prepare, Train

Step = Prepare | Convert | Train | Evaluate | Compare


@dataclass(frozen=True)
class Plan:
    """todo: steps to do, in order. done: those that are there already. left: (step, why not)."""

    table: str
    settings: Settings
    todo: tuple[Step, ...]
    done: tuple[Step, ...]
    left: tuple[tuple[Step, str], ...]


def make_plan(table: str, settings: Settings) -> Plan:
    """What is missing for a table or a choice, at the scale and of the seeds of `settings`.

    Raises InputError for a name that is none of them.
    """
    if table not in ROWS:
        raise InputError(f"'{table}' is no table; there are {', '.join(ROWS)}.")
    evaluations = evaluations_of(table, settings)
    compare = [Compare(table, settings)] if table in COMPARED else []
    if compare and (_pending(evaluations) or compare[0].state() != "done"):
        # The bootstrap needs the detections of every row, those of finished rows too.
        evaluations = [replace(step, keeps_detections=True) for step in evaluations]
    todo: list[Step] = []
    done: list[Step] = []
    left: list[tuple[Step, str]] = []
    for step in evaluations:
        blocking = _blocking(step) if not settings.force else None
        if blocking is not None:
            left.append(blocking)
        elif step.state() == "done":
            done.append(step)
        else:
            wanted = _stages_to_do(step.stages)
            done += [stage for stage in step.stages if stage not in wanted]
            for data in _data_steps(step):
                (done if data.state() == "done" else todo).append(data)
            todo += [*wanted, step]
    evaluates = any(isinstance(step, Evaluate) for step in todo)
    for step in compare:
        (todo if evaluates or step.state() != "done" else done).append(step)
    return Plan(table, settings, _once(todo), _once(done), tuple(left))


def evaluations_of(table: str, settings: Settings) -> list[Evaluate]:
    """The evaluation of every row and seed, with the trainings that it needs.

    Raises InputError for a row that the table has not, or that cannot be run at this scale.
    """
    runs = {row.key: row.run(settings.scale) for row in ROWS[table]}
    runs = {key: run for key, run in runs.items() if run is not None}
    if not runs:
        raise InputError(f"{table} has no runs at --scale {settings.scale}.")
    for key in settings.rows:
        if key not in runs:
            raise InputError(f"'{key}' is no row of {table}; there are {', '.join(runs)}.")
    return [
        Evaluate(run, seed, _trainings(run, seed, settings), settings)
        for seed in settings.seeds
        for key, run in runs.items()
        if key in (settings.rows or runs)
    ]


def _trainings(run: Run, seed: int, settings: Settings) -> tuple[Train, ...]:
    found: list[Train] = []
    for stage in run.stages:
        start = found[-1].checkpoint if found else None
        found.append(Train(stage, stage_config(stage, seed, start, settings), settings))
    return tuple(found)


def _data_steps(step: Evaluate) -> list[Step]:
    used = dict.fromkeys([*(training.stage.data for training in step.stages), step.run_of.data])
    prepare = [Prepare(name, step.settings) for data in used for name in data.prepare]
    convert = [Convert(data, step.settings) for data in used if data.converted_from is not None]
    return [*prepare, *convert]


def _stages_to_do(stages: tuple[Train, ...]) -> tuple[Train, ...]:
    """From the first stage that is made anew on, since later ones start from it.

    Else those after the last that is done: what that one started from may be gone by now.
    """
    states = [stage.state() for stage in stages]
    if "another config" in states:
        return stages[states.index("another config") :]
    finished = [place for place, state in enumerate(states) if state == "done"]
    return stages[finished[-1] + 1 :] if finished else stages


def _pending(evaluations: list[Evaluate]) -> bool:
    return any(step.state() == "to do" for step in evaluations)


def _blocking(step: Evaluate) -> tuple[Step, str] | None:
    """What another config made and this row would need otherwise, and which options differ."""
    if step.state() == "done":
        return None
    for part in (step, *step.stages):
        if part.state() == "another config":
            return part, ", ".join(part.other_options)
    return None


def _once(steps: list[Step]) -> tuple[Step, ...]:
    """Without repetition: rows share stages, and all share the data."""
    return tuple({step.title: step for step in steps}.values())


def describe(plan: Plan) -> str:
    """The plan as text: every step with its time and disk, and what is left out and why."""
    settings = plan.settings
    lines = [f"{plan.table}, {settings.scale}, seeds {' '.join(map(str, settings.seeds))}:"]
    lines += [f"  there     {step.title}" for step in plan.done]
    for step, why in plan.left:
        lines.append(
            f"  left out  {step.target}: made with another config ({why}); --force makes it anew"
        )
    hours: dict[str, float] = {}
    unknown = 0
    for step in plan.todo:
        known = hours_of(step, settings)
        told = known.source
        if known.hours is not None:
            told = f"{_told_hours(known.hours)} ({known.source})"
            hours[known.source] = hours.get(known.source, 0) + known.hours
        unknown += known.hours is None
        state = "anew" if step.state() in ("done", "another config") else step.state()
        state = "to do" if isinstance(step, Compare) else state
        size = f", {_told_bytes(bytes_of(step))}" if bytes_of(step) else ""
        lines.append(f"  {state:<9} {step.title}: {told}{size}")
    if not plan.todo:
        return "\n".join([*lines, "nothing to do"])
    parts = [f"{_told_hours(value)} ({source})" for source, value in hours.items()]
    parts += [f"{unknown} steps of unknown time"] if unknown else []
    lines.append(f"{len(plan.todo)} steps: {', '.join(parts)}")
    if DERIVED in hours and not torch.cuda.is_available():
        lines.append("there is no GPU here: what is derived for a V100 will take many times longer")
    for disk in disks(plan.todo, settings):
        told = f"{_told_bytes(disk.needed)} needed, {_told_bytes(disk.free)} free"
        short = ": too little, make room first" if disk.needed > disk.free else ""
        lines.append(f"disk of {disk.folder}: {told}{short}")
    return "\n".join(lines)


def _told_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.95 else f"{60 * hours:.0f} min"


def _told_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
