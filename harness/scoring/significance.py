"""Statistics of a few seeds: mean, spread, interval, and the challenge's test for 'better than'.

The test is one-sided Welch with a margin: is our mean below the baseline's mean less the margin? Both
samples' variance counts (early records tested against a constant, docs/rules.md, Better than). Reported only;
it changes no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.edition import Significance


class Summary(NamedTuple):
    mean: float
    sd: float | None
    ci95: tuple[float, float] | None


class WelchTest(NamedTuple):
    """p of 'not better by the margin', and whether it is below the profile's level."""

    profile: str
    margin_bpb: float
    t: float
    df: float
    p: float
    p_below: float
    better: bool


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and Student's 95 % interval; the latter two are null below two
    values."""
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
    """One-sided Welch test of `ours` (bits per byte by seed) against `baseline` less the rule's margin.

    t = (m1 - m2) / sqrt(v1 + v2) with v = sd^2 / n, and df = (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 -
    1)). Each sample has at least two values, and one of them varies."""
    from scipy import stats

    assert min(len(ours), len(baseline)) > 1 and has_spread(ours, baseline), (
        f"undefined for {ours} and {baseline}"
    )
    margin = rule.margin_nats / math.log(2) / bytes_per_token
    (mean1, v1), (mean2, v2) = _mean_and_its_variance(ours), _mean_and_its_variance(baseline)
    t = (mean1 - (mean2 - margin)) / math.sqrt(v1 + v2)
    df = (v1 + v2) ** 2 / (v1**2 / (len(ours) - 1) + v2**2 / (len(baseline) - 1))
    p = float(stats.t.cdf(t, df))
    return WelchTest(rule.name, margin, t, df, p, rule.p_below, p < rule.p_below)


def _mean_and_its_variance(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
