"""Every comparison in one run: a table and a record."""

import time
from collections.abc import Callable

from als.machine import keep_freed_memory
from benchmarks import compare_networks, compare_pipelines
from benchmarks.goals import MAIN, table
from benchmarks.memory import compare_memory
from benchmarks.networks import SHARE, build
from benchmarks.recording import Setting, quick_options, save_of_machine
from benchmarks.timing import Measured


def measure_all(setting: Setting) -> Measured:
    """Every topic, one after another; each measures its sides in turns."""
    measured = Measured()

    def take(topic: str, measure: Callable[..., Measured], *arguments) -> None:
        started = time.perf_counter()
        measured.add(measure(*arguments))
        print(f"{topic}: {time.perf_counter() - started:.0f} s", flush=True)

    take("evaluation", compare_pipelines.evaluation, setting)
    for name in ("compact", "resnet50"):
        subject = build(name, setting)
        take(f"detection, {name}", compare_networks.detection, subject)
        take(f"training step, {name}", compare_networks.training, subject, setting)
        take(f"explaining, {name}", compare_networks.explaining, subject)
        if name == "compact":
            take("loading", compare_pipelines.loading, subject, setting)
            take("folder", compare_pipelines.folder, subject, setting)
        del subject
        if name == "compact" or not setting.quick:
            take(f"memory, {name}", compare_memory, name, setting)
    return measured


def record_of(measured: Measured) -> dict:
    """Medians in `ratios` and `more_ratios`, [least, most] of the rounds in `spread`."""
    voc = measured.seconds["voc_eval_seconds"]
    medians = {name: spread.median for name, spread in measured.ratios.items()}
    spreads = measured.ratios | {"voc_eval_seconds": voc}
    return {
        "ratios": {name: median for name, median in medians.items() if name in MAIN},
        "more_ratios": {name: median for name, median in medians.items() if name not in MAIN},
        "voc_eval_seconds": voc.median,
        "spread": {name: [spread.low, spread.high] for name, spread in spreads.items()},
        "seconds": {name: spread.median for name, spread in measured.seconds.items()},
        "facts": measured.facts | {"share_set_for_random_networks": SHARE},
    }


def compare(arguments: list[str]) -> None:
    """Every comparison in one run: a table and a record."""
    given = quick_options(compare).parse_args(arguments)
    keep_freed_memory()  # as the commands of `als` do
    setting = Setting(given.device, given.quick)
    record = record_of(measure_all(setting))
    print(f"\n{table(record)}\n")
    save_of_machine(record, setting, given.out)
