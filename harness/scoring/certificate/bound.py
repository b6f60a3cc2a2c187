"""G: an upper bound on what is unearned in a score, for any program (proof: docs/certificate.md).

With d_t = h^_t - c^_t (the witness's loss less the reported one, both mixed with the reference model), I_t =
1 where the judge's random draw selected t, and E over that draw alone,

    E[1 - theta I_t d_t / pi_t | what came before] = 1 - theta d_t <= exp(-theta d_t)

so prod_t (1 - theta I_t d_t / pi_t) exp(theta d_t) is a supermartingale that starts at 1, for every theta
below min pi / U (tokens with pi = 1 are always selected, so their d is summed). So is a mixture over thetas
chosen beforehand; by Markov's inequality the mixture reaches 1 / alpha with probability alpha at most, and
the bound is the largest sum of d for which it does not. Large thetas suit a program that repeats itself
exactly, small ones a noisy program.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.scoring.certificate.sampling import Floats, SamplingPlan, mixed

THETAS = ((0.96, 0.99), (0.01, 0.5), (0.01, 0.25), (0.01, 0.1), (0.01, 0.03))
"""(weight, theta as a share of the largest allowed one); the weights sum to 1. Where noise is small,
the first alone decides."""


class Bound(NamedTuple):
    """Nats a token, over all scored tokens. `total` holds with confidence 1 - alpha."""

    total: float  # the sum of the next three
    mixture: float  # -ln(1 - eps): what mixing in the reference model may cost
    sampling: float  # the gains found, and those that the random draw may have missed
    uncovered: float  # tokens that the draw could not select, at their largest gain
    mean_gain: float  # unbiased estimate of mean d, for comparison; not a bound


def gains(plan: SamplingPlan, nats_P: Floats) -> Floats:
    """d at the probes, nats, at most U.

    nats_P: the witness's loss at each, +inf where it gave no usable row.
    """
    return np.minimum(mixed(nats_P, plan.reference_P, plan.eps) - plan.mixed_P, plan.largest_P)


def bound(plan: SamplingPlan, d_P: Floats, alpha: float | None = None) -> Bound:
    """The bound from d at the probes; outliers that the random draw did not select have no effect."""
    scale = 1 / plan.n_scored
    certain = float(d_P[plan.pi_P == 1].sum())  # always selected: the sum is known
    ratio_R = (d_P / plan.pi_P)[plan.selected_P & (plan.pi_P < 1)]
    sampled = 0.0
    if plan.theta_max > 0:
        sampled = largest_sum(
            [(weight, factor * plan.theta_max) for weight, factor in THETAS],
            ratio_R,
            plan.alpha if alpha is None else alpha,
        )
    mixture = -math.log1p(-plan.eps)
    sampling = (certain + sampled) * scale
    uncovered = plan.uncovered_nats * scale
    mean_gain = (certain + float(ratio_R.sum())) * scale
    return Bound(mixture + sampling + uncovered, mixture, sampling, uncovered, mean_gain)


def largest_sum(thetas: list[tuple[float, float]], ratio_R: Floats, alpha: float) -> float:
    """The bound on the sum of d, in nats: the S for which

        sum_j w_j exp(theta_j S) prod_R (1 - theta_j d/pi) = 1/alpha.

    thetas: pairs (w_j, theta_j). ratio_R: d/pi at the tokens that the draw selected.
    """
    logs = [(math.log(weight) + float(np.log1p(-theta * ratio_R).sum()), theta) for weight, theta in thetas]
    target = -math.log(alpha)
    high = min((target - log) / theta for log, theta in logs)  # one term alone reaches the target there
    low = high - math.log(len(logs)) / min(theta for _, theta in logs)
    for _ in range(80):
        middle = 0.5 * (low + high)
        total = float(np.logaddexp.reduce([log + theta * middle for log, theta in logs]))
        low, high = (middle, high) if total < target else (low, middle)
    return high
