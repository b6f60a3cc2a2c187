"""The phases of a training: what the model does differently before and after a horizon, a pure function of
the moment.

Depth recurrence begins at `train.loop_start`; until then every layer is visited once (source: #1493).
Quantisation-aware training begins at `train.qat_start` (source: #316). Horizons do not go back, so neither do
phases; all ranks are in the same one, because they get the moment from rank 0. Neutral: one phase for the
whole run.

Not covered: schedules of rates (golf/optim/schedule.py), and how a phase is entered
(golf/training/trainer.py)."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from golf.optim.schedule import TrainingProgress, reached
from golf.recipe.schema import Config


class Phase(NamedTuple):
    """What is on."""

    looped: bool
    """Depth recurrence: the model's whole plan is walked, and not only its first."""
    quantised: bool
    """The matrices of the blocks act as if on their grid."""

    def __str__(self) -> str:
        return (
            f"{'depth recurrence' if self.looped else 'every layer once'}, "
            f"{'quantisation-aware' if self.quantised else 'full precision'}"
        )


def at(now: TrainingProgress, config: Config) -> Phase:
    """The phase at a moment."""
    train = config.train
    return Phase(
        bool(config.model.loop_layers) and reached(now, train.loop_start),
        train.qat_bits > 0 and reached(now, train.qat_start),
    )


def every(config: Config) -> list[Phase]:
    """All phases that a run may be in: those between its first and its last, since it is not known here which
    of two horizons, one in steps and one a fraction, comes first."""
    first, last = (
        at(TrainingProgress(0, 0.0), config),
        Phase(bool(config.model.loop_layers), config.train.qat_bits > 0),
    )
    between = [sorted({a, b}) for a, b in zip(first, last, strict=True)]
    return [Phase(*flags) for flags in product(*between)]
