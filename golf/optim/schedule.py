"""Schedules of learning rate, momentum and weight averaging, as pure functions of the run's progress.

An integer horizon counts steps, a float is a fraction of the run. A wall clock may end the run, so the total
number of steps is extrapolated from the progress so far, as the public scripts do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from golf.recipe.schema import OptimConfig
from golf.recipe.section import Horizon


class TrainingProgress(NamedTuple):
    """Progress of the run at the start of a step."""

    step: int
    """Steps done."""
    fraction: float
    """Fraction of the run that has passed, in [0, 1]."""

    @property
    def expected_steps(self) -> float:
        """Steps of the whole run, extrapolated from the progress so far; infinite at the start."""
        return self.step / self.fraction if self.step and self.fraction > 0 else math.inf


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda remaining: remaining,
    "cosine": lambda remaining: 0.5 * (1 + math.cos(math.pi * (1 - remaining))),
}


def warmdown(now: TrainingProgress, horizon: Horizon, shape: str) -> float:
    """Multiplier of all learning rates: 1 until the last `horizon` of the run, then decaying to 0."""
    length = horizon if isinstance(horizon, float) else horizon / now.expected_steps
    remaining = 1 - now.fraction
    return 1.0 if length <= 0 or remaining > length else SHAPES[shape](max(remaining, 0.0) / length)


def warmup(now: TrainingProgress, horizon: Horizon, start: float, end: float) -> float:
    """Linear from `start` to `end` over the first `horizon` of the run, then `end`."""
    passed = now.fraction if isinstance(horizon, float) else now.step
    done = min(passed / horizon, 1.0) if horizon else 1.0
    return start + (end - start) * done


def learning_rate(now: TrainingProgress, cfg: OptimConfig) -> float:
    """Multiplier of all learning rates: the warm-up's times the warm-down's."""
    return warmup(now, cfg.warmup, 0.0, 1.0) * warmdown(now, cfg.warmdown, cfg.warmdown_shape)


def reached(now: TrainingProgress, horizon: Horizon) -> bool:
    """Whether the first `horizon` of the run has passed; once true, it stays true."""
    return (now.fraction if isinstance(horizon, float) else now.step) >= horizon


def average_decay(now: TrainingProgress, decay: float, fraction: float) -> float:
    """Decay of the weight average: `decay`, or if `fraction` > 0, one that averages over
    that part of a run.
    """
    if fraction <= 0:
        return decay
    steps = fraction * now.expected_steps
    return 0.0 if math.isinf(steps) else max(0.0, 1 - 1 / max(steps, 1.0))
