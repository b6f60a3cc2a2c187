"""G: how much of a score is unearned at most, with no assumption on the program (proof: docs/certificate.md).

With d_t = h^_t - c^_t (what the witness pays above the claim, both floored), I_t the coin and E over the
coins alone,

    E[1 - theta I_t d_t / pi_t | what came before] = 1 - theta d_t <= exp(-theta d_t)

so prod_t (1 - theta I_t d_t / pi_t) exp(theta d_t) is a supermartingale from 1, for every theta below min pi
/ U (tokens that are certain, pi = 1, need no coin and are summed). So is a mixture over thetas chosen
beforehand; by Markov's inequality the mixture reaches 1 / alpha with probability alpha at most, and the
largest sum of d for which it does not is the bound. Large thetas serve a program that repeats itself exactly,
small ones a noisy program."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.scoring.certificate.sampling import Floats, SamplingPlan, mixed

THETAS = ((0.96, 0.99), (0.01, 0.5), (0.01, 0.25), (0.01, 0.1), (0.01, 0.03))
"""(weight, share of the largest lawful theta); the weights sum to 1. The first alone decides where noise is
small."""


class Bound(NamedTuple):
    """Nats a token, over all scored tokens. `total` holds with confidence 1 - alpha; the parts add up to
    it."""

    total: float
    mixture: float  # -ln(1 - eps): the judge's share
    sampling: float  # what the coins may have missed, and the gains they found
    uncovered: float  # tokens that no coin could reach, at their largest gain
    mean_gain: float  # unbiased estimate of mean d, for comparison; not a bound


def gains(plan: SamplingPlan, nats_P: Floats) -> Floats:
    """d at the asked tokens, nats. nats_P: what the witness's row costs at each, +inf where it gave none that
    counts, which is then charged the largest gain."""
    return np.minimum(mixed(nats_P, plan.reference_P, plan.eps) - plan.mixed_P, plan.largest_P)


def bound(plan: SamplingPlan, d_P: Floats, alpha: float | None = None) -> Bound:
    """The bound from d at the asked tokens, of which only those chosen by a coin count."""
    scale = 1 / plan.n_scored
    certain = float(d_P[plan.pi_P == 1].sum())  # no coin decided there: the sum is known
    ratio_C = (d_P / plan.pi_P)[plan.selected_P & (plan.pi_P < 1)]
    sampled = 0.0
    if plan.theta_max > 0:
        sampled = largest_sum(
            [(weight, factor * plan.theta_max) for weight, factor in THETAS],
            ratio_C,
            plan.alpha if alpha is None else alpha,
        )
    mixture, sampling, uncovered = (
        -math.log1p(-plan.eps),
        (certain + sampled) * scale,
        plan.uncovered_nats * scale,
    )
    return Bound(
        mixture + sampling + uncovered, mixture, sampling, uncovered, (certain + float(ratio_C.sum())) * scale
    )


def largest_sum(thetas: list[tuple[float, float]], ratio_C: Floats, alpha: float) -> float:
    """The S at which sum_j w_j exp(theta_j S) prod_C (1 - theta_j d/pi) = 1 / alpha: the bound on the sum of
    d, nats."""
    logs = [(math.log(weight) + float(np.log1p(-theta * ratio_C).sum()), theta) for weight, theta in thetas]
    target = -math.log(alpha)
    high = min((target - log) / theta for log, theta in logs)  # one term alone reaches the target there
    low = high - math.log(len(logs)) / min(theta for _, theta in logs)
    for _ in range(80):
        middle = 0.5 * (low + high)
        total = float(np.logaddexp.reduce([log + theta * middle for log, theta in logs]))
        low, high = (middle, high) if total < target else (low, middle)
    return high


def expected(mean_reference_gap: float, n_probes: float, alpha: float, eps: float) -> float:
    """G in nats a token of a program that repeats itself exactly. mean_floor_gap: mean of -ln b - c."""
    weight, factor = THETAS[0]
    return -math.log1p(-eps) + (-math.log(alpha * weight)) * (mean_reference_gap - math.log(eps)) / (
        factor * n_probes
    )
