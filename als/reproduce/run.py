"""Does what a plan says, step after step; given again it goes on where it was."""

from collections.abc import Callable

from als.errors import InputError
from als.reproduce.plan import Plan
from als.reproduce.steps import Evaluate, Train, put_aside


def reproduce(plan: Plan, tell: Callable[[str], None] = print) -> None:
    """Run the steps of a plan that are not done.

    Raises InputError when data are missing that no command can fetch, and as the steps do;
    SystemExit when a training was stopped by SIGTERM and is saved.
    """
    check_data(plan)
    # All at once: given again after an interruption, none of them may pass for done.
    for step in plan.todo:
        if isinstance(step, Train | Evaluate) and step.state() in ("done", "another config"):
            put_aside(step.target)
    checked = False
    for number, step in enumerate(plan.todo, start=1):
        if isinstance(step, Train) and not checked:  # all data are there now
            check_tests(plan)
            checked = True
        tell(f"[{number}/{len(plan.todo)}] {step.title}")
        step.run()


def check_tests(plan: Plan) -> None:
    """Raise InputError where what will be tested on cannot be read: before hours of training."""
    from als.data.voc_layout import load_records

    classes = {
        (step.run_of.data, tuple(step.stages[-1].config.model.classes))
        for step in plan.todo
        if isinstance(step, Evaluate)
    }
    for data, names in classes:
        load_records(data.test, plan.settings.root(data), names)


def check_data(plan: Plan) -> None:
    """Raise InputError where the compact photographs, which no command downloads, are not there."""
    source = plan.settings.source
    folder = source / "VOC2012"
    if plan.todo and plan.settings.scale == "compact" and not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; give --data-root, the folder that holds the "
            "compact photographs as VOC2012 (docs/tables.md)."
        )
