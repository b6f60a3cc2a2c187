"""The two clocks that end a training: wall time, or a number of steps. Both report TrainingProgress.

The time reserved for the end of a run is subtracted in golf/stages/train.py. Of several ranks, only rank 0's
clock counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from golf.optim.schedule import TrainingProgress

STEPS_REMEMBERED = 4


@dataclass
class StepClock:
    """A fixed number of steps: such a run repeats exactly."""

    steps: int

    def progress(self, step: int) -> TrainingProgress:
        """The progress before a step."""
        return TrainingProgress(step, step / self.steps)

    def finished(self, step: int) -> bool:
        """Whether all steps are done."""
        return step >= self.steps


@dataclass
class WallClock:
    """So many seconds from `start`, a time that `read` gave; ends when another step would not fit."""

    seconds: float
    start: float
    ahead: int = 0
    """Steps that may still be running on the device when the next one begins."""
    read: Callable[[], float] = time.monotonic
    step_starts: list[float] = field(default_factory=list)
    """When the last few steps began, the newest last."""

    def progress(self, step: int) -> TrainingProgress:
        """The progress before a step. Call it once, as the step begins."""
        now = self.read()
        self.step_starts = [*self.step_starts[-STEPS_REMEMBERED:], now]
        return TrainingProgress(step, min((now - self.start) / self.seconds, 1.0))

    def finished(self, step: int) -> bool:
        """Whether another step would not fit into the time left, behind those that still run.

        Each is taken to be as slow as the slowest recent one.
        """
        now = self.read()
        times = np.diff([*self.step_starts, now])
        slowest = float(times.max()) if len(times) else 0.0
        return now - self.start + (1 + self.ahead) * slowest > self.seconds


Clock = StepClock | WallClock
