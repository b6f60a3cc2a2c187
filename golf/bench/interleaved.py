"""Train several programs in turns, each in its own process, only one running at a time.

The speeds of two programs are comparable only on the same machine in the same state, and a machine's speed
drifts. So all programs are built and warmed up first, and then run in short turns; the ratio of two rates is
taken round by round, which cancels the drift. A contestant's clock stops while it waits, so all get equal
seconds, and none is charged for compilation.

See golf/bench/contestants.py for the programs.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

Weights = dict[str, np.ndarray]


class Report(NamedTuple):
    """What a contestant reports before its first turn and after each one: totals since its start."""

    seconds: float
    steps: int
    weights: Weights | None = None
    """Only in the last report."""


class InterleavedClock:
    """A contestant's clock, which runs only during its turns, and its means to wait for the next one."""

    def __init__(self, pipe: Connection, read: Callable[[], float] = time.perf_counter) -> None:
        self.pipe, self.read = pipe, read
        self.used, self.steps = 0.0, -1
        self.turn_start: float | None = None
        self.turn_end = 0.0

    def perf_counter(self) -> float:
        """Seconds of all turns so far; named after the function of `time` that it replaces in the script."""
        return self.used + (self.read() - self.turn_start if self.turn_start is not None else 0.0)

    def wait_for_turn(self) -> None:
        """Call before each step: returns at once during a turn, otherwise when the next turn begins."""
        self.steps += 1
        if self.turn_start is not None and self.read() < self.turn_end:
            return
        self.used, self.turn_start = self.perf_counter(), None
        self.pipe.send(Report(self.used, self.steps))
        seconds = self.pipe.recv()
        self.turn_start = self.read()
        self.turn_end = self.turn_start + seconds

    def finish(self, steps: int, weights: Weights) -> None:
        """Send the last report."""
        self.pipe.send(Report(self.perf_counter(), steps, weights))


@dataclass
class Contestant:
    """A program to train: its name, what its process runs (`work(pipe, *arguments)`), its reports so far."""

    name: str
    batch_tokens: int
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    reports: list[Report] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each turn."""
        pairs = zip(self.reports, self.reports[1:], strict=False)
        return [(b.steps - a.steps) * self.batch_tokens / (b.seconds - a.seconds) for a, b in pairs]

    @property
    def rate(self) -> float:
        """Tokens per second over all turns."""
        last = self.reports[-1]
        return last.steps * self.batch_tokens / last.seconds


def ratio(a: Contestant, b: Contestant) -> tuple[float, float, float]:
    """Rate of a over rate of b: (median, lowest, highest) of the rounds."""
    ratios = [x / y for x, y in zip(a.rates, b.rates, strict=False)]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else (math.nan,) * 3


def run(contestants: Sequence[Contestant], turn_seconds: float, log: Callable[[str], None]) -> None:
    """Run all to their ends in turns, and fill in their `reports`; RuntimeError if one dies."""
    context = multiprocessing.get_context("spawn")
    running = []
    for contestant in contestants:
        ours, theirs = context.Pipe()
        process = context.Process(target=contestant.work, args=(theirs, *contestant.arguments), daemon=True)
        process.start()
        theirs.close()
        running.append((contestant, ours, process))
    try:
        for contestant, pipe, _ in running:
            contestant.reports.append(_receive_report(contestant, pipe))
            log(f"{contestant.name} is ready")
        while running:
            for contestant, pipe, process in list(running):
                pipe.send(turn_seconds)
                contestant.reports.append(_receive_report(contestant, pipe))
                last = contestant.reports[-1]
                log(f"{contestant.name}: {last.steps} steps in {last.seconds:.1f} s")
                if last.weights is not None:
                    process.join()
                    running.remove((contestant, pipe, process))
    finally:
        for _, _, process in running:
            process.kill()


def _receive_report(contestant: Contestant, pipe: Connection) -> Report:
    try:
        report: Report = pipe.recv()
        return report
    except EOFError:
        raise RuntimeError(f"{contestant.name} died; see its error on stderr") from None


def to_stderr(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
