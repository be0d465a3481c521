"""Times of several sides, taken in turns, and what the ratios between them are.

A machine that slows down half-way through would favour the side that was measured first, so every
round runs each side once, every other round in reverse order, and a ratio is taken within a round.
(torch.utils.benchmark measures one side after another; it also warms up anew in every call, which
a step of seconds cannot afford.)
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Turns:
    """Seconds of each side, one value a round: rounds[side] [R]."""

    rounds: dict[str, list[float]]

    def ratio(self, one: str, other: str) -> Spread:
        """Seconds of `one` over those of `other`, within each round."""
        pairs = zip(self.rounds[one], self.rounds[other], strict=True)
        return Spread.of([a / b for a, b in pairs])

    def seconds(self, side: str) -> Spread:
        return Spread.of(self.rounds[side])


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
        seconds_of(run)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in order:
            times[name].append(seconds_of(sides[name]))
    return Turns(times)


def counted(run: Callable[[], Any]) -> tuple[Any, float]:
    """What one call gives, and its 1e9 floating point operations in convolutions and products.

    They say what a ratio would be on a machine that is held up by nothing else.
    """
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops() / 1e9


def seconds_of(run: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, with what it left to do on a GPU."""
    _wait_for_gpu()
    started = time.perf_counter()
    run()
    _wait_for_gpu()
    return time.perf_counter() - started


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
