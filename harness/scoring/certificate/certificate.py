"""Certify one score: witnesses' responses in; a bound, tests and the four conditions out.

    plan = sampling.draw(seed, reported, n_probes)       after the ledger closed, seed = os.urandom(32)
    ... each witness is queried at plan.asked_P ...
    certificate = certify(reported, plan, [first, second], boundaries=..., adapts=...)
    certificate.public()                                 for verdict.json

Where `wants_second_round` is true, something is unexplained: draw again with round_number=2 and 8 times the
probes, and query fresh witnesses. Whether the witness was isolated from the scorer is the runner's part: see
docs/certificate.md, Isolation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.scoring.certificate import bound as bounds, detection
from harness.scoring.certificate.detection import Gains, Outcome, Test
from harness.scoring.certificate.forecast import DECISIVE_NATS, expected, probes_for, sample
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import ALPHAS, Floats, ReportedScore, SamplingPlan
from harness.scoring.robust import robust_sd

TOO_WIDE, UNEXPLAINED, NO_ANSWER = "bound too wide", "unexplained gains", "probes without answer"
TARGET_BPB = 0.0005
SECOND_ROUND_FACTOR = 8
PROVING_SPIKES = 16  # so many single gains and no single loss as large prove a gain: 0.5^16 is LEVEL
PUBLIC_KEYS = {"round_number": "look"}
"""Keys of verdict.json whose names are older than the code's."""
BY_GAINS = ("mean", "sign", "spikes", "suspects")
"""Tests that more probes can decide."""
MAX_NATS = 1e3
"""A larger loss counts as this one where gains are compared, so that infinity stays out of the arithmetic."""


class Condition(NamedTuple):
    """What the certificate says about one of the challenge's four conditions, C1 to C4 (#1017)."""

    condition: str
    outcome: Outcome
    evidence: str
    not_covered: str
    why: str = ""
    """Why it is unknown, in two or three words."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The statement on one score; its fields are keys of verdict.json (see `public`).

    Nats and bits per byte are over all scored tokens, G_covered_nats over the covered ones alone.
    """

    G_nats: float
    G_bpb: float
    G_covered_nats: float
    alpha: float
    round_number: int
    n_probes: int
    asked: int
    unanswered: int
    covered_share: float
    parts_nats: dict[str, float]
    mean_gain_nats: float
    largest_gain_nats: float
    largest_gain_position: int | None
    detection: dict[str, dict[str, float]]
    probes_for_target: int | None
    G_bpb_with_8_times: float
    noise_nats: float | None
    tests: tuple[Test, ...]
    conditions: tuple[Condition, ...]
    guarantee: str

    @property
    def failed(self) -> bool:
        return any(condition.outcome == "fail" for condition in self.conditions)

    @property
    def wants_second_round(self) -> bool:
        """Whether something lies beyond the noise that more probes can explain or prove."""
        return (
            self.round_number == 1
            and not self.failed
            and any(test.outcome == "unknown" and test.name in BY_GAINS for test in self.tests)
        )

    def public(self) -> dict[str, Any]:
        """The certificate as verdict.json has it: plain JSON types, no NaN, no infinity."""
        shown = {
            PUBLIC_KEYS.get(field.name, field.name): getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        shown["tests"] = [test._asdict() for test in self.tests]
        shown["conditions"] = [condition._asdict() for condition in self.conditions]
        return {**shown, "wants_second_look": self.wants_second_round, "target_bpb": TARGET_BPB}


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """One or two witnesses' responses beside the reported losses, all at the probes of one plan."""

    positions_P: npt.NDArray[np.int64]
    reported_P: Floats
    first: Responses
    second: Responses | None
    chunk_tokens: int
    adapts: bool

    @property
    def answered_by_all_P(self) -> npt.NDArray[np.bool_]:
        return (
            self.first.answered_P if self.second is None else self.first.answered_P & self.second.answered_P
        )

    def gains(self, which_P: npt.NDArray[np.bool_]) -> Gains:
        """Gains at some of the probes, all answered by the first witness."""
        positions_P, reported_P = self.positions_P[which_P], self.reported_P[which_P]
        d1_P = np.minimum(self.first.nats_P[which_P], MAX_NATS) - reported_P
        d2_P = d1_P
        if (
            self.second is not None
        ):  # where the second witness gave no usable row, the first one's gain is used for both
            d2_P = np.minimum(self.second.charged_P()[which_P], MAX_NATS) - reported_P
            d2_P = np.where(self.second.answered_P[which_P], d2_P, d1_P)
        blocks_P = detection.blocks(positions_P, self.chunk_tokens, self.adapts)
        return Gains(positions_P, d1_P, d2_P, blocks_P, self.adapts, self.second is not None)


def certify(
    reported: ReportedScore,
    plan: SamplingPlan,
    responses: Sequence[Responses],
    *,
    boundaries: Sequence[BoundaryPair] = (),
    adapts: bool = False,
    batched: bool = False,
    decisive: float = DECISIVE_NATS,
) -> Certificate:
    """The certificate of one seed.

    `responses`: of one or two witnesses, each over plan.asked_P in that order. The bound uses the first one
    alone; the second measures noise. `boundaries`: the chunk boundaries that the first witness passed.
    `adapts`: whether the program declares that it learns between chunks. `batched`: whether many contexts
    were queried at once, which shows a witness more than the strict prefix; the guarantee then says so.
    `decisive`: the largest bound, in nats a token, with which C1 passes (forecast.decisive_nats).
    """
    for each in responses:
        assert len(each.nats_P) == len(plan.asked_P), (
            f"{len(each.nats_P)} responses to {len(plan.asked_P)} probes"
        )
    assert 1 <= len(responses) <= 2, f"{len(responses)} witnesses, expected one or two"
    first, second = responses[0], responses[1] if len(responses) == 2 else None
    found = bounds.bound(plan, bounds.gains(plan, first.charged_P()))
    nats_per_bit = reported.n_scored / (math.log(2) * reported.n_bytes)
    covered_share = (plan.covered - 1) / plan.n_scored
    covered_nats = found.mixture + found.sampling / covered_share
    reported_P = reported.nats_T[plan.asked_P].astype(np.float64)
    compared = _Comparison(plan.asked_P, reported_P, first, second, reported.chunk_tokens, adapts)
    selected = compared.gains(first.answered_P & plan.selected_P)
    confirmable = compared.gains(compared.answered_by_all_P & plan.selected_P)
    outliers = compared.gains(first.answered_P & ~plan.selected_P)
    logsumexp_P = np.concatenate([each.logsumexp_P for each in responses])
    tests = _tests(selected, confirmable, outliers, boundaries, logsumexp_P)
    unanswered, n_selected = int((~first.answered_P).sum()), int(plan.selected_P.sum())
    largest = int(np.argmax(selected.d1_P)) if len(selected.d1_P) else None
    excess = max(0.0, found.total - bounds.bound(plan, bounds.gains(plan, reported_P)).total)
    losses = sample(reported)
    n_second_round = min(SECOND_ROUND_FACTOR * math.ceil(plan.n_expected), plan.n_scored)
    return Certificate(
        G_nats=found.total,
        G_bpb=found.total * nats_per_bit,
        G_covered_nats=covered_nats,
        alpha=plan.alpha,
        round_number=plan.round_number,
        n_probes=n_selected,
        asked=len(plan.asked_P),
        unanswered=unanswered,
        covered_share=covered_share,
        parts_nats={"mixture": found.mixture, "sampling": found.sampling, "uncovered": found.uncovered},
        mean_gain_nats=found.mean_gain,
        largest_gain_nats=float(min(selected.d1_P[largest], MAX_NATS)) if largest is not None else 0.0,
        largest_gain_position=int(selected.positions_P[largest]) if largest is not None else None,
        detection={f"{share:g}": _detection_odds(share, n_selected) for share in (0.01, 0.001)},
        probes_for_target=probes_for(TARGET_BPB / nats_per_bit - excess, losses, plan.n_scored),
        G_bpb_with_8_times=(expected(losses, n_second_round) + excess) * nats_per_bit,
        noise_nats=None if second is None else robust_sd(selected.repeat_P),
        tests=tests,
        conditions=_conditions(
            tests, plan, found.total, covered_nats, unanswered, reported.chunk_tokens, decisive
        ),
        guarantee=_guarantee(plan, found.total * nats_per_bit, covered_share, batched),
    )


def _tests(
    selected: Gains,
    confirmable: Gains,
    outliers: Gains,
    boundaries: Sequence[BoundaryPair],
    logsumexp_P: Floats,
) -> tuple[Test, ...]:
    """All tests.

    `selected`: probes of the random draw that the first witness answered; `confirmable`: those of them that
    every witness answered; `outliers`: the probes chosen because the reported loss was low.

    A failure is withheld (unknown instead) unless the probes in `confirmable` show it with two witnesses,
    since one witness's own noise looks like a gain. All failures are withheld where more than half of the
    boundary predictions of scorer and witness differ.
    """
    rows, boundary = detection.row_test(logsumexp_P), detection.boundary_test(boundaries, selected)
    if not len(selected.d1_P):
        return rows, boundary
    tests = _gain_tests(selected, boundaries)
    if not confirmable.twice or len(confirmable.d1_P) < len(selected.d1_P):
        can_confirm = confirmable.twice and len(confirmable.d1_P)
        again = _gain_tests(confirmable, boundaries) if can_confirm else ()
        confirmed = {test.name for test in again if test.outcome == "fail"}
        reason = "no second witness confirms it"
        tests = tuple(test if test.name in confirmed else _withhold(test, reason) for test in tests)
    if 2 * boundary.numbers["apart"] > max(boundary.numbers["borders"], 1):
        reason = "the scorer's boundary predictions differ from the witness's"
        tests = tuple(_withhold(test, reason) for test in tests)
    return (
        *tests,
        detection.outlier_test(outliers, detection.spike_size(selected)),
        boundary,
        detection.spread_test(selected),
        rows,
    )


def _gain_tests(gains: Gains, boundaries: Sequence[BoundaryPair]) -> tuple[Test, ...]:
    """The three tests of gains: the only ones whose failure fails C1 (`row_test` can fail C2)."""
    return (detection.mean_test(gains, boundaries), detection.sign_test(gains), detection.spike_test(gains))


def _withhold(test: Test, reason: str) -> Test:
    """A failure becomes unknown, for the reason given; any other outcome stays."""
    if test.outcome != "fail":
        return test
    return test._replace(outcome="unknown", text=f"{test.text}; withheld: {reason}")


def _conditions(
    tests: tuple[Test, ...],
    plan: SamplingPlan,
    total_nats: float,
    covered_nats: float,
    unanswered: int,
    chunk_tokens: int,
    decisive: float,
) -> tuple[Condition, ...]:
    """The outcomes of C1 to C4 of #1017.

    C3 and C4 follow from C1: between chunks the message order enforces them, inside one they hold as far as
    the program is causal.
    """
    rows = next(test for test in tests if test.name == "rows")
    about_gains = [test for test in tests if test.name != "rows"]
    failed = [test.text for test in about_gains if test.outcome == "fail"]
    unclear = [test for test in about_gains if test.outcome == "unknown"]
    causal: Outcome = "unknown"
    why = NO_ANSWER if unanswered else ""
    evidence = f"at most {total_nats:.5f} nats a token are unearned"
    if failed:
        causal = "fail"
        evidence = f"the scorer gained what a strict predictor cannot: {'; '.join(failed)}"
    elif unclear:
        evidence = "; ".join(test.text for test in unclear) + _remedy({test.name for test in unclear}, plan)
        why = UNEXPLAINED
    elif not unanswered and total_nats > decisive:
        evidence = (
            f"at most {total_nats:.3f} nats a token are unearned, {covered_nats:.5f} over the text that the "
            f"witness covered: too wide to decide, {decisive:g} would be enough"
        )
        why = TOO_WIDE
    elif not unanswered:
        causal = "pass"
    if unanswered:
        evidence += (
            f"; {unanswered:,} of {len(plan.asked_P):,} questions got no answer and count as the largest gain"
        )
    inside: Outcome = "pass" if causal == "pass" else "unknown"
    normalised: Outcome = inside if rows.outcome == "pass" else rows.outcome
    order = f"enforced by the message order between chunks of {chunk_tokens:,} tokens; inside one chunk: "
    return (
        Condition(
            "C1",
            causal,
            evidence,
            "text known from elsewhere, training on validation text, gains below G",
            why,
        ),
        Condition(
            "C2",
            normalised,
            rows.text
            + ("" if causal == "pass" else "; whether the reported losses come from these rows is open"),
            "rows at tokens that were not probed, except as far as G bounds them",
            why or ("" if normalised != "unknown" else "rows unclear"),
        ),
        Condition(
            "C3",
            inside,
            order + evidence,
            "what a program does inside one chunk, except as far as G bounds it",
            why,
        ),
        Condition("C4", inside, order + evidence, "runs made elsewhere and not reported", why),
    )


def _remedy(unclear: set[str], plan: SamplingPlan) -> str:
    """What would decide these tests."""
    if plan.round_number == 1 and unclear & set(BY_GAINS):
        n_probes = SECOND_ROUND_FACTOR * math.ceil(plan.n_expected)
        return f"; a second round of {n_probes:,} probes would decide it"
    if unclear & {"borders", "spread"}:
        return "; a witness that computes as the scorer did (docs/protocol.md) would decide it"
    return "; a program whose numbers repeat exactly would decide it"


def _detection_odds(share: float, n_probes: int) -> dict[str, float]:
    """For a scorer that looks at a random `share` of its targets: the probability that a probe hits one of
    them (`met`), and that enough probes do to prove it (`proved`).
    """
    from scipy import stats

    met = stats.binom(n_probes, share)
    return {"met": float(met.sf(0)), "proved": float(met.sf(PROVING_SPIKES - 1))}


def _guarantee(plan: SamplingPlan, g_bpb: float, covered_share: float, batched: bool) -> str:
    """The statement that the bound proves (docs/certificate.md, The guarantee)."""
    seen, whoever, assumed = "shown only the text before it", "whatever the program does, ", ""
    if batched:
        seen, whoever = "shown contexts that never hold it, many at once", ""
        assumed = " and that each of its rows depends on its own context alone"
    reach = (
        f" The witness covered {covered_share:.1%} of the text; every token beyond counts as if all it could "
        "gain were gained."
    )
    return (
        f"After the score was fixed, the judge drew {int(plan.selected_P.sum()):,} of {plan.n_scored:,} "
        "tokens at random, by a seed drawn only then. At each, a fresh copy of this code and artifact, "
        f"{seen}, committed its full distribution first. With {1 - sum(ALPHAS):.0%} confidence over this "
        f"random draw, {whoever}a causal, normalised, single-pass predictor built from this code and "
        f"artifact (mixed with a share {plan.eps:.2g} of the judge's own n-gram) scores at most "
        f"{g_bpb:.4f} bits per byte more than was reported.{'' if covered_share == 1 else reach} This "
        f"assumes that nothing passed from scorer to witness outside the socket{assumed}."
    )
