"""Every comparison in one run: a table, a figure and a record.

    python -m benchmarks [--device cuda] [--out results/bench] [--quick]

Growth (`benchmarks.growth`) and exported files (`benchmarks.export_speed`) have runs of their own.
"""

import time
from collections.abc import Callable

from als.machine import keep_freed_memory
from benchmarks import (
    detection,
    evaluation_speed,
    explaining,
    folder,
    loading,
    memory,
    training_step,
)
from benchmarks.command import circumstances, options_on_devices, write
from benchmarks.goals import MAIN, described, draw, table
from benchmarks.pairs import Measured
from benchmarks.subjects import SHARE, Setting, build


def measure_all(setting: Setting) -> Measured:
    """Every topic, one after another; each measures its sides in turns."""
    measured = Measured()

    def take(topic: str, measure: Callable[..., Measured], *arguments) -> None:
        started = time.perf_counter()
        measured.add(measure(*arguments))
        print(f"{topic}: {time.perf_counter() - started:.0f} s", flush=True)

    take("evaluation", evaluation_speed.measure, setting)
    for name in ("compact", "resnet50"):
        subject = build(name, setting)
        take(f"detection, {name}", detection.measure, subject)
        take(f"training step, {name}", training_step.measure, subject, setting)
        take(f"explaining, {name}", explaining.measure, subject)
        if name == "compact":
            take("loading", loading.measure, subject, setting)
            take("folder", folder.measure, subject, setting)
        del subject
        if name == "compact" or not setting.quick:
            take(f"memory, {name}", memory.measure, name, setting)
    return measured


def record_of(measured: Measured, setting: Setting) -> dict:
    """Medians in `ratios` and `more_ratios`, [least, most] of the rounds in `spread`."""
    voc = measured.seconds["voc_eval_seconds"]
    ratios = measured.ratios
    spreads = ratios | {"voc_eval_seconds": voc}
    return {
        "ratios": {name: spread.median for name, spread in ratios.items() if name in MAIN},
        "more_ratios": {name: spread.median for name, spread in ratios.items() if name not in MAIN},
        "voc_eval_seconds": voc.median,
        "spread": {name: [spread.low, spread.high] for name, spread in spreads.items()},
        "seconds": {name: spread.median for name, spread in measured.seconds.items()},
        "facts": measured.facts | {"share_set_for_random_networks": SHARE},
    } | circumstances(setting)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write record and figure."""
    keep_freed_memory()  # as the commands of `als` do
    given = options_on_devices(__doc__.splitlines()[0]).parse_args(arguments)
    setting = Setting(given.device, given.quick)
    record = record_of(measure_all(setting), setting)
    print(f"\n{described(record['machine'], given.device)}\n\n{table(record)}\n")
    write(record, given.out, draw=draw)


if __name__ == "__main__":
    main()
