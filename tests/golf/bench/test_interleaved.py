"""Clocks stop between turns, and rates are compared round by round."""

from __future__ import annotations

import math
from multiprocessing.connection import Connection

import numpy as np
import pytest

from golf.bench import interleaved
from golf.bench.interleaved import Contestant, InterleavedClock, Report


class Pipe:
    """Grants turns of 2 seconds, each after a wait of 100 seconds, and records the reports."""

    def __init__(self, clock):
        self.clock, self.reports = clock, []

    def send(self, report):
        self.reports.append(report)

    def recv(self):
        self.clock[0] += 100
        return 2.0


def test_waiting_is_not_charged_and_a_step_is_never_cut():
    clock = [0.0]
    pipe = Pipe(clock)
    timer = InterleavedClock(pipe, lambda: clock[0])
    for _ in range(5):
        timer.wait_for_turn()
        clock[0] += 1.5
    timer.finish(5, {"w": np.ones(1)})
    assert [(r.seconds, r.steps) for r in pipe.reports] == [(0.0, 0), (3.0, 2), (6.0, 4), (7.5, 5)]
    assert pipe.reports[-1].weights is not None


def test_a_ratio_is_the_median_over_rounds_in_which_drift_cancels():
    fast, slow = (Contestant(name, 10, print, ()) for name in "ab")
    fast.reports = [Report(0, 0), Report(1, 4), Report(3, 8)]
    slow.reports = [Report(0, 0), Report(1, 2), Report(3, 4)]
    assert fast.rates == [40, 20]
    assert interleaved.ratio(fast, slow) == (2, 2, 2)
    assert math.isnan(interleaved.ratio(fast, Contestant("c", 10, print, ()))[0])
    assert fast.rate == 80 / 3


def two_steps(pipe: Connection, name: str) -> None:
    """A contestant that takes two steps."""
    timer = InterleavedClock(pipe)
    for _ in range(2):
        timer.wait_for_turn()
    timer.finish(2, {name: np.zeros(1)})


def dies(pipe: Connection) -> None:
    """A contestant that never gets to its first step."""
    raise SystemExit(3)


def test_a_run_ends_when_all_have_delivered():
    both = [Contestant(name, 1, two_steps, (name,)) for name in "ab"]
    interleaved.run(both, 60.0, lambda line: None)
    assert [each.reports[-1].weights is not None and list(each.reports[-1].weights) for each in both] == [
        ["a"],
        ["b"],
    ]
    assert all(each.reports[0].steps == 0 and each.reports[-1].steps == 2 for each in both)


def test_a_contestant_that_dies_is_named():
    with pytest.raises(RuntimeError, match="unlucky"):
        interleaved.run([Contestant("unlucky", 1, dies, ())], 1.0, lambda line: None)
