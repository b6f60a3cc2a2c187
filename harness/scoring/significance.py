"""Statistics of a few seeds: mean, standard deviation, interval, and the challenge's test for 'better than'.

The test is Welch's, one-sided, with a margin: is our mean below the baseline's mean less the margin? It uses
the variance of both samples (early records tested against a constant: docs/rules.md, Better than). Its result
is reported and changes no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.edition import Significance


class Summary(NamedTuple):
    """Of a sample of scores; `sd` and `ci95` (95 % interval) are None below two values."""

    mean: float
    sd: float | None
    ci95: tuple[float, float] | None


class WelchTest(NamedTuple):
    """p of 'not better by the margin', and `better`: whether it is below the profile's level p_below."""

    profile: str
    margin_bpb: float
    t: float
    df: float
    p: float
    p_below: float
    better: bool


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and Student's 95 % interval of at least one value."""
    from scipy import stats

    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Summary(mean, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(mean, sd, (mean - half, mean + half))


def has_spread(*samples: Sequence[float]) -> bool:
    """Whether any sample varies; Welch's test is undefined where none does."""
    return any(len(set(sample)) > 1 for sample in samples)


def welch(
    ours: Sequence[float], baseline: Sequence[float], rule: Significance, bytes_per_token: float
) -> WelchTest:
    """One-sided Welch test of `ours` (bits per byte, by seed) against `baseline` less the rule's margin.

    t = (m1 - m2) / sqrt(v1 + v2) and df = (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 - 1)), with v = sd^2 /
    n. Each sample needs at least two values, and one of them must vary.
    """
    from scipy import stats

    assert min(len(ours), len(baseline)) > 1 and has_spread(ours, baseline), (
        f"undefined for {ours} and {baseline}"
    )
    margin = rule.margin_nats / math.log(2) / bytes_per_token
    (mean1, v1), (mean2, v2) = _mean_and_variance_of_mean(ours), _mean_and_variance_of_mean(baseline)
    t = (mean1 - (mean2 - margin)) / math.sqrt(v1 + v2)
    df = (v1 + v2) ** 2 / (v1**2 / (len(ours) - 1) + v2**2 / (len(baseline) - 1))
    p = float(stats.t.cdf(t, df))
    return WelchTest(rule.name, margin, t, df, p, rule.p_below, p < rule.p_below)


def _mean_and_variance_of_mean(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
