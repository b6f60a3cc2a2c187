"""Turns are counted by their own clock, end in time, and the report compares round by round."""

from __future__ import annotations

import pytest
import torch

from golf.bench.gpu import race
from golf.bench.gpu.race import Gate, Rates, Turn
from golf.bench.gpu.results import Failed
from golf.bench.gpu.worker import Request


class Requests:
    """Grants the turns listed, then ends the race."""

    def __init__(self, seconds):
        self.waiting = [Request("turn", {"seconds_of_turn": each}) for each in seconds]
        self.waiting.append(Request("finish", {}))
        self.answers = []

    def serve(self, handler):
        return self.waiting.pop(0)

    def answer(self, value):
        self.answers.append(value)


class Contestant:
    """A process whose turns take as long as asked and one step more."""

    def __init__(self, name, clock, asked, step=1.0):
        self.name, self.clock, self.asked, self.step, self.ended = name, clock, asked, step, ""

    def ask(self, request, seconds, **arguments):
        self.asked.append((self.name, request))
        if request != "turn":
            return None
        took = arguments["seconds_of_turn"] + self.step
        self.clock[0] += took
        return Turn(2, took, [1.0, 2.0])

    def close(self):
        pass


def test_a_gate_lets_steps_through_until_the_turn_is_over_and_reports_them():
    clock, synchronised = [0.0], []
    requests = Requests([2.0, 0.0])
    gate = Gate(requests, object(), lambda: synchronised.append(clock[0]), lambda: clock[0])
    steps = 0
    while gate():
        gate.record(torch.tensor(float(steps)))
        steps += 1
        clock[0] += 1.5
    assert requests.answers == [Turn(2, 3.0, [0.0, 1.0]), Turn(1, 1.5, [2.0]), None]
    assert synchronised == [3.0, 4.5]  # once a turn, so steps of a GPU queue up


def test_rounds_end_in_time_and_who_begins_alternates():
    clock, asked = [0.0], []
    both = [Contestant(name, clock, asked) for name in "ab"]
    turns = race.run(both, turn_seconds=5.0, seconds=40.0, read=lambda: clock[0])
    assert [len(each) for each in turns] == [3, 3]  # a round takes 12 s, and a fourth would end at 48 s
    assert "".join(name for name, request in asked if request == "turn") == "abbaab"
    assert asked[-2:] == [("a", "finish"), ("b", "finish")]


def test_a_turn_without_a_step_fails():
    class Idle(Contestant):
        def ask(self, request, seconds, **arguments):
            return Turn(0, 5.0, [])

    with pytest.raises(Failed, match="a took no step"):
        race.run([Idle("a", [0.0], [])], 5.0, 10.0)


def test_the_ratio_is_taken_round_by_round_and_losses_are_compared():
    golf, other = Rates([200.0, 330.0, 220.0], [7.0, 6.0, 5.0, 4.0]), Rates([100.0, 300.0, 200.0], [7.0, 6.5])
    found = race.found(golf, other, 100)
    assert found.numbers["ratio"] == pytest.approx(1.1)
    assert found.numbers["loss_apart"] == [0.0, 0.5]
    assert "golf at 1.100 times #586's tokens per second (1.100 to 2.000 in 3 rounds)" in found.seen
