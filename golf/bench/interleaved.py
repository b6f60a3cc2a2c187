"""Contestants that train in turns: each in a process of its own, one running at a time, a few seconds each.

Speeds of two programs compare only if both meet the same machine, and a machine's speed drifts. So all are
built and warmed up first, and then take short turns; the ratio of two rates is taken round by round, where
drift cancels. A contestant's clock stands still while it waits, so all get equal seconds, and none is charged
for its compilation.

Not covered: what the contestants do (golf/bench/contestants.py).
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
    """What a contestant tells when its turn ends, and once before the first: all counted from its start."""

    seconds: float
    steps: int
    weights: Weights | None = None
    """Given with the last report only."""


class Turns:
    """In a contestant's process: its clock, and the gate before each step; `settle` waits for all that a GPU
    was given."""

    def __init__(
        self, pipe: Connection, settle: Callable[[], None], read: Callable[[], float] = time.perf_counter
    ) -> None:
        self.pipe, self.settle, self.read = pipe, settle, read
        self.used, self.steps = 0.0, -1
        self.began: float | None = None
        self.until = 0.0

    def perf_counter(self) -> float:
        """Seconds of all turns so far."""
        return self.used + (self.read() - self.began if self.began is not None else 0.0)

    def gate(self) -> None:
        """Called before each step: returns at once within a turn, else when the next one comes."""
        self.steps += 1
        self.settle()
        if self.began is not None and self.read() < self.until:
            return
        self.used, self.began = self.perf_counter(), None
        self.pipe.send(Report(self.used, self.steps))
        seconds = self.pipe.recv()
        self.began = self.read()
        self.until = self.began + seconds

    def finish(self, steps: int, weights: Weights) -> None:
        """The last report."""
        self.settle()
        self.pipe.send(Report(self.perf_counter(), steps, weights))


@dataclass
class Contestant:
    """A name, what it runs in its process (`work(pipe, *arguments)`), and what it told so far."""

    name: str
    batch_tokens: int
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    reports: list[Report] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Tokens a second of each turn."""
        pairs = zip(self.reports, self.reports[1:], strict=False)
        return [(b.steps - a.steps) * self.batch_tokens / (b.seconds - a.seconds) for a, b in pairs]

    @property
    def rate(self) -> float:
        """Tokens a second of all turns."""
        last = self.reports[-1]
        return last.steps * self.batch_tokens / last.seconds


def ratio(a: Contestant, b: Contestant) -> tuple[float, float, float]:
    """Rate of a over rate of b: median over the rounds, lowest, highest."""
    ratios = [x / y for x, y in zip(a.rates, b.rates, strict=False)]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else (math.nan,) * 3


def race(contestants: Sequence[Contestant], turn_seconds: float, say: Callable[[str], None]) -> None:
    """Run all to their ends, in turns; fills in `reports`. RuntimeError where one dies."""
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
            contestant.reports.append(_listen(contestant, pipe))
            say(f"{contestant.name} is ready")
        while running:
            for contestant, pipe, process in list(running):
                pipe.send(turn_seconds)
                contestant.reports.append(_listen(contestant, pipe))
                last = contestant.reports[-1]
                say(f"{contestant.name}: {last.steps} steps in {last.seconds:.1f} s")
                if last.weights is not None:
                    process.join()
                    running.remove((contestant, pipe, process))
    finally:
        for _, _, process in running:
            process.kill()


def _listen(contestant: Contestant, pipe: Connection) -> Report:
    try:
        report: Report = pipe.recv()
        return report
    except EOFError:
        raise RuntimeError(f"{contestant.name} died; its last words are on stderr") from None


def to_stderr(line: str) -> None:
    """Progress, one line."""
    print(line, file=sys.stderr, flush=True)
