"""What a number of probes can decide, known before the first question.

The forecast is for a program that repeats its numbers exactly and gains nothing unearned; one that gains or
is noisy gets a larger bound. The proof of the bound: bound.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.edition import SIGNIFICANCE
from harness.scoring.certificate import bound as bounds
from harness.scoring.certificate.sampling import ALPHAS, ReportedScore, SamplingPlan, mixture_share

DECISIVE_NATS = 0.1
"""A bound above this, nats a token, is too wide for a pass; 512 probes of an exact program are below it."""
RECORD_NATS = next(test.margin_nats for test in SIGNIFICANCE if test.name == "readme")
"""The same in profile `record`: the margin by which a record must beat its baseline. With a larger bound the
whole improvement could be unearned."""


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


def forecast(reported: ReportedScore, plan: SamplingPlan, profile: str) -> Forecast:
    """The bound that `plan` can be expected to give, and the number of probes that a pass needs."""
    nats_per_bit = reported.n_scored / (math.log(2) * reported.n_bytes)
    gap, uncovered = reference_gap(reported), plan.uncovered_nats / plan.n_scored
    decisive = decisive_nats(profile)
    return Forecast(
        (expected(gap, plan.n_expected) + uncovered) * nats_per_bit,
        decisive * nats_per_bit,
        probes_for(decisive - uncovered, gap, plan.n_scored),
    )


def reference_gap(reported: ReportedScore) -> float:
    """By how many nats a token the reference model is worse than the reported score."""
    return float((-np.log(reported.reference_T[1:]) - reported.nats_T[1:]).mean())


def expected(gap: float, n_probes: float) -> float:
    return bounds.expected(gap, n_probes, ALPHAS[0], mixture_share(math.ceil(n_probes)))


def probes_for(target_nats: float, gap: float, n_scored: int) -> int | None:
    """The fewest probes that reach the target with an exact program; None if all do not."""
    if expected(gap, n_scored) > target_nats:
        return None
    low, high = 1, n_scored
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if expected(gap, middle) <= target_nats else (middle + 1, high)
    return low
