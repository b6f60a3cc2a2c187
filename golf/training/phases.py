"""The phases of a training: what the model does differently before and after a point of the run.

Depth recurrence begins at `train.loop_start`; until then every layer runs once (source: #1493).
Quantisation-aware training begins at `train.qat_start` (source: #316). Progress never goes back, so neither
do phases. All ranks are in the same phase, because all get rank 0's progress. Neutral: one phase for the
whole run.

See golf/optim/schedule.py for schedules of rates, and golf/training/trainer.py for how a phase is entered.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from golf.optim.schedule import TrainingProgress, reached
from golf.recipe.schema import Config


class Phase(NamedTuple):
    """What is switched on."""

    looped: bool
    """Depth recurrence: the model follows `plan` instead of `first_plan`."""
    quantised: bool
    """The matrices of the blocks are rounded to their grid in the forward pass."""

    def __str__(self) -> str:
        return (
            f"{'depth recurrence' if self.looped else 'every layer once'}, "
            f"{'quantisation-aware' if self.quantised else 'full precision'}"
        )


def at(progress: TrainingProgress, config: Config) -> Phase:
    """The phase at a point of the run."""
    train = config.train
    return Phase(
        bool(config.model.loop_layers) and reached(progress, train.loop_start),
        train.qat_bits > 0 and reached(progress, train.qat_start),
    )


def possible(config: Config) -> list[Phase]:
    """All phases that a run may pass through.

    If both flags change, either may change first: one horizon may be in steps and the other a fraction.
    """
    first, last = (
        at(TrainingProgress(0, 0.0), config),
        Phase(bool(config.model.loop_layers), config.train.qat_bits > 0),
    )
    between = [sorted({a, b}) for a, b in zip(first, last, strict=True)]
    return [Phase(*flags) for flags in product(*between)]
