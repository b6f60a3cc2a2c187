"""What ends a training: a wall clock, or a number of steps. Both say where the run stands, as a Moment.

Not covered: what is kept free for the end of a run (golf/stages/train.py), and agreement between ranks, which
ask rank 0's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from golf.optim.schedule import TrainingProgress

STEPS_REMEMBERED = 4


@dataclass
class StepClock:
    """A run of a fixed number of steps: repeats exactly."""

    steps: int

    def now(self, step: int) -> TrainingProgress:
        """Where the run stands."""
        return TrainingProgress(step, step / self.steps)

    def over(self, step: int) -> bool:
        """Whether all steps are done."""
        return step >= self.steps


@dataclass
class WallClock:
    """A run of so many seconds, from the clock's making; ends where another step would not fit."""

    seconds: float
    read: Callable[[], float] = time.monotonic
    begun: list[float] = field(default_factory=list)
    """When the last steps began, the newest last."""

    def __post_init__(self) -> None:
        self.start = self.read()

    def now(self, step: int) -> TrainingProgress:
        """Where the run stands; called once at the start of each step."""
        moment = self.read()
        self.begun = [*self.begun[-STEPS_REMEMBERED:], moment]
        return TrainingProgress(step, min((moment - self.start) / self.seconds, 1.0))

    def over(self, step: int) -> bool:
        """Whether the slowest of the last steps would not fit into what is left."""
        moment = self.read()
        times = np.diff([*self.begun, moment])
        slowest = float(times.max()) if len(times) else 0.0
        return moment - self.start + slowest > self.seconds


Clock = StepClock | WallClock
