"""Measure whether the bound holds, tests prove gains, and honest programs pass, on one score.

The per-token numbers are real, the programs made up (scenarios.py). Tokens are selected by numpy's generator
instead of SHAKE-256: what is tried is the bound over independent draws, not the pseudorandom function.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from harness.scoring.certificate import bound as bounds, reference_model, sampling
from harness.scoring.certificate.certificate import SECOND_ROUND_FACTOR, Certificate, certify
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import ALPHAS, Floats, ReportedScore
from harness.scoring.certificate.simulation.scenarios import CHUNK_TOKENS, Rng, Scenario

PROBES = (512, 4_096, 32_768)
Z = 2.41  # a normal's one-sided 99.2 %
FALSE_ALARM_TOKENS = 60_000

Report = Callable[[str], None]
"""Called with a line that says what is being computed."""


def part_of(reported: ReportedScore, part: slice) -> ReportedScore:
    """The score on a part of the text, with a proportional share of the bytes."""
    tokens_T = reported.tokens_T[part]
    return ReportedScore(
        tokens_T,
        reported.nats_T[part],
        reported.reference_T[part],
        round(reported.n_bytes * len(tokens_T) / len(reported.tokens_T)),
        reported.chunk_tokens,
    )


def certify_round(
    reported: ReportedScore,
    design: sampling.SamplingDesign,
    u_T: Floats,
    witnesses: tuple[Floats, Floats],
    adapts: bool,
) -> Certificate:
    """One certificate: u_T selects the tokens, both witnesses respond with the losses given for them.

    A loss that is not finite is no answer.
    """
    plan = sampling.select(design, u_T)
    responses = [
        Responses(
            np.where(np.isfinite(nats_T[plan.asked_P]), nats_T[plan.asked_P], 0.0),
            np.where(np.isfinite(nats_T[plan.asked_P]), 0.0, np.nan),
        )
        for nats_T in witnesses
    ]
    boundaries = [
        BoundaryPair(t, float(reported.nats_T[t]), float(witnesses[0][t]))
        for t in range(CHUNK_TOKENS, plan.asked_P[-1] + 1, CHUNK_TOKENS)
    ]
    return certify(reported, plan, responses, boundaries=boundaries, adapts=adapts)


def certificates(rng: Rng, honest: ReportedScore, scenario: Scenario, n_probes: int) -> list[Certificate]:
    """The first round's certificate, and the second one's where the first asks for it."""
    reported_T, first_T, second_T = scenario.make(rng, honest, n_probes)
    reported, u_T = dataclasses.replace(honest, nats_T=reported_T), rng.random(len(reported_T))
    witnesses = first_T, second_T
    first = sampling.design(reported, n_probes)
    found = [certify_round(reported, first, u_T, witnesses, scenario.adapts)]
    if found[0].wants_second_round and SECOND_ROUND_FACTOR * n_probes <= honest.n_scored:
        second = sampling.design(reported, SECOND_ROUND_FACTOR * n_probes, round_number=2)
        found.append(certify_round(reported, second, u_T, witnesses, scenario.adapts))
    return found


class Coverage(NamedTuple):
    """One cell of the coverage table: mean d and the mean bound on it, nats a token."""

    gained: float
    bound: float
    share: float  # of the draws, in which the bound held
    normal_share: float  # the same for a normal interval of the same level over a uniform draw


def coverage(rng: Rng, honest: ReportedScore, scenario: Scenario, n_probes: int, draws: int) -> Coverage:
    """How often the bound on mean d holds, without the mixture's known cost, which helps it."""
    reported_T, first_T, _ = scenario.make(rng, honest, n_probes)
    design = sampling.design(dataclasses.replace(honest, nats_T=reported_T), n_probes)
    d_T = np.minimum(
        sampling.mixed(first_T, honest.reference_T, design.eps) - design.mixed_T, design.largest_T
    )
    gained, found, normal = float(d_T[1:].mean()), np.empty(draws), 0
    for i in range(draws):
        plan = sampling.select(design, rng.random(len(d_T)))
        found[i] = bounds.bound(plan, d_T[plan.asked_P]).sampling
        sample = d_T[rng.integers(1, len(d_T), n_probes)]
        normal += bool(sample.mean() + Z * sample.std() / math.sqrt(n_probes) >= gained - 1e-9)
    return Coverage(gained, float(found.mean()), float((found >= gained).mean()), normal / draws)


def outcomes(rng: Rng, honest: ReportedScore, scenario: Scenario, n_probes: int, draws: int) -> Counter[str]:
    """How often C1 of the last round had each outcome, over independent noise and draws.

    Also the number of second rounds (`second`) and the sum of G in 1e-9 nats (`G`).
    """
    counts: Counter[str] = Counter()
    for _ in range(draws):
        rounds = certificates(rng, honest, scenario, n_probes)
        counts["fail" if any(each.failed for each in rounds) else rounds[-1].conditions[0].outcome] += 1
        counts["second"] += len(rounds) > 1
        counts["G"] += round(1e9 * min(each.G_nats for each in rounds))
    return counts


class Power(NamedTuple):
    """Shares of the certificates: gain proved, and left open, over first and second rounds together."""

    n_probes: int
    proved: float
    unknown: float


def power(
    rng: Rng,
    honest: ReportedScore,
    scenarios: Iterable[Scenario],
    probes: Iterable[int],
    draws: int,
    report: Report,
) -> dict[str, list[Power]]:
    """How often a gain is proved, by scenario and number of probes."""
    found: dict[str, list[Power]] = {}
    for scenario in scenarios:
        report(f"power: {scenario.name}")
        for n_probes in probes:
            counts = outcomes(rng, honest, scenario, n_probes, draws)
            found.setdefault(scenario.name, []).append(
                Power(n_probes, counts["fail"] / draws, counts["unknown"] / draws)
            )
    return found


def false_alarms(
    rng: Rng, honest: ReportedScore, scenarios: Iterable[Scenario], draws: int, report: Report
) -> list[list[str]]:
    """Rows (noise, then for each N: certificates, failed, left open, mean G) for honest programs."""
    rows = []
    for scenario in scenarios:
        report(f"false alarms: {scenario.name}")
        row = [scenario.name]
        for n_probes in PROBES:
            small = n_probes < honest.n_scored // 8 and n_probes * 8 < FALSE_ALARM_TOKENS
            text = part_of(honest, slice(0, FALSE_ALARM_TOKENS)) if small else honest
            times = 4 * draws if small else draws
            counts = outcomes(rng, text, scenario, n_probes, times)
            row += [
                f"{times:,}",
                f"{counts['fail']}",
                f"{counts['unknown']}",
                f"{counts['G'] / times / 1e9:.5f}",
            ]
        rows.append(row)
    return rows


def designs(reported: ReportedScore) -> list[list[str]]:
    """Rows of G for a program that repeats itself exactly.

    N; nats by a uniform draw, by an earlier design and by this one; bits per byte by this one.
    """
    rows = []
    target = -math.log(ALPHAS[0])
    bigram_T = reference_model.probabilities(reported.tokens_T, int(reported.tokens_T.max()) + 1, order=1)
    for n_probes in (*PROBES, 262_144):
        if n_probes >= reported.n_scored:
            continue
        eps = 4 / n_probes
        largest_T = -math.log(eps) - np.log(bigram_T) - sampling.mixed(reported.nats_T, bigram_T, eps)
        uniform = -math.log1p(-eps) + target * float(largest_T[1:].max()) / (0.9 * n_probes)
        weight_T = np.maximum(largest_T[1:], largest_T[1:].mean() / 4)
        before = -math.log1p(-eps) + target * float(weight_T.mean()) / (0.9 * n_probes)
        plan = sampling.select(sampling.design(reported, n_probes), np.ones(len(reported.tokens_T)))
        now = bounds.bound(plan, np.zeros(len(plan.asked_P))).total
        bpb = now * reported.n_scored / math.log(2) / reported.n_bytes
        rows.append([f"{n_probes:,}", f"{uniform:.5f}", f"{before:.5f}", f"{now:.5f}", f"{bpb:.5f}"])
    return rows
