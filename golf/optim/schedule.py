"""Learning rate, momentum and averaging as pure functions of where the run stands.

A horizon that is an integer counts steps; one that is a float is a fraction of the run. The run itself may be
bounded by a wall clock, so the length of a step is estimated from what has passed, as the public scripts do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

Horizon = int | float


class TrainingProgress(NamedTuple):
    """Where the run stands at the start of a step."""

    step: int
    """Steps done."""
    fraction: float
    """Share of the run that has passed, in [0, 1]."""

    @property
    def expected_steps(self) -> float:
        """Steps of the whole run, if the rest goes as the part that has passed; infinite at the very
        start."""
        return self.step / self.fraction if self.step and self.fraction > 0 else math.inf


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 * (1 + math.cos(math.pi * (1 - left))),
}


def warmdown(now: TrainingProgress, horizon: Horizon, shape: str) -> float:
    """Multiplier of all learning rates: 1 until the last `horizon` of the run, then down to 0 at its end."""
    share = horizon if isinstance(horizon, float) else horizon / now.expected_steps
    remaining = 1 - now.fraction
    return 1.0 if share <= 0 or remaining > share else SHAPES[shape](max(remaining, 0.0) / share)


def warmup(now: TrainingProgress, horizon: Horizon, start: float, end: float) -> float:
    """Linear from `start` to `end` over the first `horizon` of the run, `end` afterwards."""
    passed = now.fraction if isinstance(horizon, float) else now.step
    done = min(passed / horizon, 1.0) if horizon else 1.0
    return start + (end - start) * done


def reached(now: TrainingProgress, horizon: Horizon) -> bool:
    """Whether the first `horizon` of the run is over; stays true from then on."""
    return (now.fraction if isinstance(horizon, float) else now.step) >= horizon


def average_decay(now: TrainingProgress, decay: float, fraction: float) -> float:
    """Decay of the weight average: `decay`, or with `fraction` > 0 one that reaches back that share of the
    run."""
    if fraction <= 0:
        return decay
    steps = fraction * now.expected_steps
    return 0.0 if math.isinf(steps) else max(0.0, 1 - 1 / max(steps, 1.0))
