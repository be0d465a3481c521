"""Times of several sides, taken in turns, and what the ratios between them are.

A machine that slows down half-way through would favour the side that was measured first, so every
round runs each side once, every other round in reverse order, and a ratio is taken within a round.
(torch.utils.benchmark measures one side after another.)
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Spread:
    """A median with the least and the largest value of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float], scale: float = 1.0) -> "Spread":
        return cls(*(scale * x for x in (statistics.median(values), min(values), max(values))))


@dataclass(frozen=True)
class Turns:
    """Seconds of each side, one value a round: rounds[side] [R]."""

    rounds: dict[str, list[float]]

    def ratio(self, one: str, other: str, scale: float = 1.0) -> Spread:
        """Seconds of `one` over those of `other`, within each round, times `scale`."""
        pairs = zip(self.rounds[one], self.rounds[other], strict=True)
        return Spread.of([a / b for a, b in pairs], scale)

    def seconds(self, side: str) -> Spread:
        return Spread.of(self.rounds[side])

    def named(self, topic: str) -> dict[str, Spread]:
        """Seconds of all sides, by topic and side."""
        return {f"{topic} {side}": self.seconds(side) for side in self.rounds}


@dataclass
class Measured:
    """What one topic found.

    ratios: by the names of `benchmarks.goals`. seconds: by what took them. facts: what must be
    known to read the figures (shapes, shares, counts), plain values.
    """

    ratios: dict[str, Spread] = field(default_factory=dict)
    seconds: dict[str, Spread] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, other: "Measured") -> None:
        self.ratios |= other.ratios
        self.seconds |= other.seconds
        self.facts |= other.facts


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int, warm: bool = False) -> Turns:
    """Run every side once to warm up, unless they are, and then `rounds` times, in turns."""
    for run in () if warm else sides.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides) if turn % 2 == 0 else reversed(sides):
            times[name].append(seconds_of(sides[name]))
    return Turns(times)


def seconds_of(run: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, with what it left to do on a GPU."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """What one call gives, and its operations in convolutions and products (2 a multiplication).

    They say what a ratio would be on a machine that is held up by nothing else.
    """
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops()


def gpu_megabytes(run: Callable[[], Any], device: torch.device) -> float | None:
    """The most (MiB) that tensors took on the device during a call; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    seconds_of(run)
    return torch.cuda.max_memory_allocated(device) / 2**20


def resident_megabytes(process: int | str = "self", peak: bool = False) -> float:
    """Resident memory of a process (MiB, Linux), or the most that it was; 0 if it ended."""
    name = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)
