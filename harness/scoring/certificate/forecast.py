"""What a number of probes can decide, known before the first question.

The forecast is for a program that repeats its numbers exactly and gains nothing unearned; one that gains or
is noisy gets a larger bound. The proof of the bound: bound.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.edition import SIGNIFICANCE
from harness.scoring.certificate.bound import THETAS
from harness.scoring.certificate.sampling import (
    ALPHAS,
    LEAST_WEIGHT_SHARE,
    Floats,
    ReportedScore,
    SamplingPlan,
    largest_gains,
    mixture_share,
)

DECISIVE_NATS = 0.1
"""A bound above this, nats a token, is too wide for a pass; 512 probes of an exact program are below it."""
RECORD_NATS = next(test.margin_nats for test in SIGNIFICANCE if test.name == "readme")
"""The same in profile `record`: the margin by which a record must beat its baseline. With a larger bound the
whole improvement could be unearned."""
MAX_SAMPLE = 1 << 17
"""Tokens that a forecast looks at."""


def decisive_nats(profile: str) -> float:
    """The largest bound G, in nats a token, with which C1 passes in a profile."""
    return RECORD_NATS if profile == "record" else DECISIVE_NATS


class Forecast(NamedTuple):
    """What a number of probes can decide of an exact program, known before the first question."""

    G_bpb: float
    decisive_bpb: float
    """G must be at most this for a pass."""
    probes_to_decide: int | None
    """The fewest probes that reach it; None where no number does."""


class Losses(NamedTuple):
    """A sample of a reported score: its losses in nats, and the reference model's probabilities."""

    nats_S: Floats
    reference_S: Floats


def sample(reported: ReportedScore) -> Losses:
    """Every k-th scored token, MAX_SAMPLE at most: a forecast needs no more."""
    step = -(-reported.n_scored // MAX_SAMPLE)
    return Losses(reported.nats_T[1::step].astype(np.float64), reported.reference_T[1::step])


def expected(losses: Losses, n_probes: float, eps: float | None = None) -> float:
    """G, in nats a token, to be expected of a program that repeats itself exactly.

    What mixing in the reference model costs, and the largest gain of a mean token, once for each probe, times
    the logarithm that the confidence asks for. `eps`: the reference model's share; None for the judge's.
    """
    eps = mixture_share(math.ceil(n_probes)) if eps is None else eps
    largest_S = largest_gains(losses.nats_S, losses.reference_S, eps)
    mean_weight = float(np.maximum(largest_S, LEAST_WEIGHT_SHARE * largest_S.mean()).mean())
    weight, factor = THETAS[0]
    return -math.log1p(-eps) - math.log(ALPHAS[0] * weight) * mean_weight / (factor * n_probes)


def probes_for(target_nats: float, losses: Losses, n_scored: int) -> int | None:
    """The fewest probes that reach the target with an exact program; None if all do not."""
    if expected(losses, n_scored) > target_nats:
        return None
    low, high = 1, n_scored
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if expected(losses, middle) <= target_nats else (middle + 1, high)
    return low


def forecast(reported: ReportedScore, plan: SamplingPlan, profile: str) -> Forecast:
    """The bound that `plan` can be expected to give, and the number of probes that a pass needs."""
    nats_per_bit = reported.n_scored / (math.log(2) * reported.n_bytes)
    losses, uncovered = sample(reported), plan.uncovered_nats / plan.n_scored
    decisive = decisive_nats(profile)
    return Forecast(
        (expected(losses, plan.n_expected) + uncovered) * nats_per_bit,
        decisive * nats_per_bit,
        probes_for(decisive - uncovered, losses, plan.n_scored),
    )
