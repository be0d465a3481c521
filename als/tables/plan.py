"""A table -> the steps that are missing for it, in order, what they cost, and doing them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from als.data.layouts import load_records
from als.errors import InputError
from als.tables.comparison import Compare
from als.tables.costs import DERIVED, bytes_of, disks, evaluation_records, hours_of
from als.tables.rows import COMPARED, ROWS, Run
from als.tables.stage_config import Settings, stage_config
from als.tables.training_steps import Convert, Evaluate, Prepare, Train, detections_of

Step = Prepare | Convert | Train | Evaluate | Compare


@dataclass(frozen=True)
class Plan:
    """Steps to do, in order; those that are there already; those that another config made."""

    table: str
    settings: Settings
    todo: tuple[Step, ...]
    done: tuple[Step, ...]
    left: tuple[Train | Evaluate, ...]


def make_plan(table: str, settings: Settings) -> Plan:
    """What is missing for a table or a choice, at the scale and of the seeds of `settings`.

    Raises InputError for a name that is none of them.
    """
    if table not in ROWS:
        raise InputError(f"'{table}' is no table; there are {', '.join(ROWS)}.")
    evaluations = evaluations_of(table, settings)
    compare = Compare(table, settings) if table in COMPARED else None
    pending = any(step.state() == "to do" for step in evaluations)
    if compare and (pending or compare.state() != "done"):
        # The bootstrap needs the detections of finished rows too, if no training is done for it.
        evaluations = [
            replace(step, keeps_detections=step.stages[-1].checkpoint.is_file())
            for step in evaluations
        ]
    todo: list[Step] = []
    done: list[Step] = []
    left: list[Train | Evaluate] = []
    for step in evaluations:
        blocking = None if settings.force else _blocking(step)
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
    if compare:
        evaluates = any(isinstance(step, Evaluate) for step in todo)
        (todo if evaluates or compare.state() != "done" else done).append(compare)
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


def _blocking(step: Evaluate) -> Train | Evaluate | None:
    """What another config made and this row would need otherwise."""
    if step.state() == "done":
        return None
    return next((s for s in (step, *step.stages) if s.state() == "another config"), None)


def _once(steps: list[Step]) -> tuple[Step, ...]:
    """Without repetition: rows share stages, and all share the data."""
    return tuple({step.title: step for step in steps}.values())


def describe(plan: Plan) -> str:
    """The plan as text: every step with its time and disk, and what is left out and why."""
    settings = plan.settings
    lines = [f"{plan.table}, {settings.scale}, seeds {' '.join(map(str, settings.seeds))}:"]
    lines += [f"  there     {step.title}" for step in plan.done]
    for step in plan.left:
        why = ", ".join(step.other_options)
        lines.append(
            f"  left out  {step.target}: made with another config ({why}); --force makes it anew"
        )
    records = evaluation_records(settings.results)
    hours: dict[str, float] = {}
    unknown = 0
    for step in plan.todo:
        known, source = hours_of(step, records)
        told = source if known is None else f"{_told_hours(known)} ({source})"
        if known is None:
            unknown += 1
        else:
            hours[source] = hours.get(source, 0) + known
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
    for folder, needed, free in disks(plan.todo, settings):
        short = ": too little, make room first" if needed > free else ""
        told = f"{_told_bytes(needed)} needed, {_told_bytes(free)} free"
        lines.append(f"disk of {folder}: {told}{short}")
    return "\n".join(lines)


def _told_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.95 else f"{60 * hours:.0f} min"


def _told_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def reproduce(plan: Plan, tell: Callable[[str], None] = print) -> None:
    """Run the steps of a plan that are not done; given again it goes on where it was.

    Raises InputError when data are missing that no command can fetch, and as the steps do;
    SystemExit when a training was stopped by SIGTERM and is saved.
    """
    evaluations = [step for step in plan.todo if isinstance(step, Evaluate)]
    for data in {step.run_of.data for step in evaluations}:
        name = data.converted_from or data.test.partition(":")[0]
        if not data.prepare and not (plan.settings.source / name).is_dir():
            raise InputError(
                f"{plan.settings.source / name}: there is no such folder; give --data-root, the "
                f"folder that holds the compact photographs as {name} (docs/tables.md)."
            )
    # All at once: given again after an interruption, none of them may pass for done.
    for step in plan.todo:
        if isinstance(step, Train | Evaluate) and step.state() in ("done", "another config"):
            _put_aside(step.target)
            if isinstance(step, Evaluate) and detections_of(step.target).is_file():
                _put_aside(detections_of(step.target))
    first = next((step for step in plan.todo if isinstance(step, Train)), None)
    for number, step in enumerate(plan.todo, start=1):
        if step is first:  # all data are there now
            _check_tests(evaluations)
        tell(f"[{number}/{len(plan.todo)}] {step.title}")
        step.run()


def _check_tests(evaluations: list[Evaluate]) -> None:
    """Raise InputError where what will be tested on cannot be read: before hours of training."""
    load = cache(load_records)
    for step in evaluations:
        data, classes = step.run_of.data, step.stages[-1].config.model.classes
        load(data.test, step.settings.root(data), tuple(classes))


def _put_aside(path: Path) -> None:
    """Rename a file or folder that is made anew to the first free NAME.old1, NAME.old2, ..."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    path.replace(aside)
