"""Clocks: which step is the last one, by wall time on a device with a queue and by a number of steps."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from golf.optim.schedule import TrainingProgress
from golf.recipe.config import load
from golf.runtime.dist import ALONE
from golf.runtime.wire import Wire
from golf.stages import train
from golf.training.clocks import StepClock, WallClock
from tests.golf.fakes.recipes import FULL


def test_the_wall_clock_stops_before_a_step_that_would_not_fit():
    seconds = [100.0]
    clock = WallClock(10.0, 100.0, read=lambda: seconds[0])
    step = 0
    while not clock.finished(step):
        assert clock.progress(step).fraction == pytest.approx(0.3 * step)
        seconds[0] += 3.0
        step += 1
    assert step == 3


def test_a_clock_without_time_has_finished_before_the_first_step():
    assert WallClock(-1.0, 0.0, read=lambda: 0.0).finished(0)


class Device:
    """A made-up device with a queue: the host launches steps in no time, and waits where it reads a loss."""

    def __init__(self, step_seconds: float) -> None:
        self.now, self.step_seconds = 100.0, step_seconds
        self.ends: list[float] = []
        self.most_running = 0

    def step(self, batch: None, progress: TrainingProgress) -> DeviceLoss:
        """Queue a step behind those that still run."""
        running = [end for end in self.ends if end > self.now]
        self.most_running = max(self.most_running, len(running))
        self.ends.append(max([self.now, *running]) + self.step_seconds)
        return DeviceLoss(self, self.ends[-1])


class DeviceLoss:
    """What a step of the made-up device returns: the few methods of a tensor that the loop needs."""

    is_cuda = False

    def __init__(self, device: Device, end: float) -> None:
        self.device, self.end = device, end

    def to(self, *where: object, **how: object) -> DeviceLoss:
        return self

    def item(self) -> float:
        self.device.now = max(self.device.now, self.end)
        return 1.0


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("limit", [1.0, 2.5, 10.0, 10.9])
def test_no_step_ends_after_the_limit_however_many_run_ahead(ahead, limit):
    device = Device(1.0)
    trainer = SimpleNamespace(config=load(FULL), ranks=ALONE, phase=None, step=device.step)
    clock = WallClock(limit, 100.0, ahead, read=lambda: device.now)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = train.loop(trainer, SimpleNamespace(batch=lambda tokens: None), clock, Wire(ours), ahead)
    assert done == len(device.ends) >= max(1, int(limit) - ahead)
    assert device.ends[-1] <= 100.0 + limit
    assert device.most_running == min(ahead, max(0, done - 2))


def test_the_step_clock_counts_steps():
    clock = StepClock(4)
    assert [clock.finished(step) for step in (0, 3, 4)] == [False, False, True]
    assert clock.progress(1).fraction == 0.25
