"""The certificate: one witness's answers become a bound, accusations, and an outcome for each of the four
conditions.

    plan = coins.draw(seed, scored, n_probes)            after the ledger closed, seed = os.urandom(32)
    ... the witness is asked plan.asked_P ...
    certificate = certify(scored, plan, first, second, borders=..., adapts=...)
    certificate.public()                                 for verdict.json

`wants_second_look`: something is unexplained; draw again with look=2 and 8 times the probes, ask fresh
witnesses. Not covered: whether the witness was isolated from the scorer (docs/certificate.md, Isolation)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from harness.scoring.certificate import bound as bounds, detection
from harness.scoring.certificate.detection import Gains, Outcome, Test
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import ALPHAS, ReportedScore, SamplingPlan, mixture_share
from harness.scoring.robust import robust_sd

DECISIVE_NATS = 0.1
"""A bound above this says too little to be called a pass, nats a token; 512 probes of an exact program reach
it."""
TARGET_BPB = 0.0005
SECOND_ROUND_FACTOR = 8
PROVING_SPIKES = 16  # none against: binomial p at LEVEL
PUBLIC_KEYS = {"round_number": "look"}
"""Keys of verdict.json whose names are older than the code's."""
BY_GAINS = ("mean", "sign", "spikes", "suspects")
"""Tests that more probes can decide."""


class Condition(NamedTuple):
    """What the certificate says about one condition of #1017."""

    condition: str
    outcome: Outcome
    evidence: str
    not_covered: str


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Numbers and words. Nats and bits per byte are over all scored tokens; G_covered over the covered ones
    alone."""

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
        """Something lies beyond the noise that more probes can explain or prove."""
        return (
            self.round_number == 1
            and not self.failed
            and any(test.outcome == "unknown" and test.name in BY_GAINS for test in self.tests)
        )

    def public(self) -> dict[str, Any]:
        """As verdict.json shows it: plain JSON types, no NaN, no infinity."""
        shown = {
            PUBLIC_KEYS.get(field.name, field.name): getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        shown["tests"] = [test._asdict() for test in self.tests]
        shown["conditions"] = [condition._asdict() for condition in self.conditions]
        return {**shown, "wants_second_look": self.wants_second_round, "target_bpb": TARGET_BPB}


def certify(
    scored: ReportedScore,
    plan: SamplingPlan,
    first: Responses,
    second: Responses | None = None,
    *,
    boundaries: list[BoundaryPair] | None = None,
    adapts: bool = False,
    lanes: bool = False,
) -> Certificate:
    """The certificate of one seed. Answers stand in the order of plan.asked_P; a second witness was asked the
    same.

    `lanes`: many contexts were asked at once, so more than the strict prefix was visible (the sentence says
    so)."""
    assert len(first.nats_P) == len(plan.asked_P), (
        f"{len(first.nats_P)} answers to {len(plan.asked_P)} questions"
    )
    assert second is None or len(second.nats_P) == len(plan.asked_P), (
        "the second witness was asked something else"
    )
    d_P = bounds.gains(plan, first.charged_P())
    found = bounds.bound(plan, d_P)
    nats_per_bit = scored.n_scored / (math.log(2) * scored.n_bytes)
    covered_share = (plan.covered - 1) / plan.n_scored
    covered_nats = found.mixture + found.sampling / covered_share
    reported_P = scored.nats_T[plan.asked_P].astype(np.float64)
    twice_P = first.answered_P if second is None else first.answered_P & second.answered_P
    asked = _gains(
        plan, reported_P, first, second, first.answered_P & plan.selected_P, scored.chunk_tokens, adapts
    )
    proved = _gains(plan, reported_P, first, second, twice_P & plan.selected_P, scored.chunk_tokens, adapts)
    outliers = _gains(
        plan, reported_P, first, second, first.answered_P & ~plan.selected_P, scored.chunk_tokens, adapts
    )
    sums_P = first.logsumexp_P if second is None else np.concatenate([first.logsumexp_P, second.logsumexp_P])
    tests = _tests(asked, proved, outliers, boundaries or [], sums_P)
    lost = int((~first.answered_P).sum())
    largest = int(np.argmax(asked.d1_P)) if len(asked.d1_P) else None
    plain = bounds.gains(plan, reported_P)
    excess = max(0.0, found.total - bounds.bound(plan, plain).total)
    gap = _reference_gap(scored)
    return Certificate(
        G_nats=found.total,
        G_bpb=found.total * nats_per_bit,
        G_covered_nats=covered_nats,
        alpha=plan.alpha,
        round_number=plan.round_number,
        n_probes=int(plan.selected_P.sum()),
        asked=len(plan.asked_P),
        unanswered=lost,
        covered_share=covered_share,
        parts_nats={"mixture": found.mixture, "sampling": found.sampling, "uncovered": found.uncovered},
        mean_gain_nats=found.mean_gain,
        largest_gain_nats=float(min(asked.d1_P[largest], 1e3)) if largest is not None else 0.0,
        largest_gain_position=int(asked.positions_P[largest]) if largest is not None else None,
        detection={f"{share:g}": _detection(share, int(plan.selected_P.sum())) for share in (0.01, 0.001)},
        probes_for_target=_probes_for(TARGET_BPB / nats_per_bit - excess, gap, plan.n_scored),
        G_bpb_with_8_times=(
            _expected(gap, min(SECOND_ROUND_FACTOR * math.ceil(plan.n_expected), plan.n_scored)) + excess
        )
        * nats_per_bit,
        noise_nats=robust_sd(asked.repeat_P) if second else None,
        tests=tests,
        conditions=_conditions(tests, plan, found.total, covered_nats, lost, scored.chunk_tokens),
        guarantee=_guarantee(scored, plan, found.total * nats_per_bit, covered_share, lanes),
    )


def _gains(
    plan: SamplingPlan,
    reported_P: Any,
    first: Responses,
    second: Responses | None,
    which_P: Any,
    chunk_tokens: int,
    adapts: bool,
) -> Gains:
    d1_P = np.minimum(first.nats_P[which_P], 1e3) - reported_P[which_P]
    d2_P = d1_P
    if second is not None:  # where it kept silent it explains nothing
        d2_P = np.where(second.answered_P, np.minimum(second.charged_P(), 1e3) - reported_P, 0.0)[which_P]
        d2_P = np.where(second.answered_P[which_P], d2_P, d1_P)
    positions_P = plan.asked_P[which_P]
    return Gains(
        positions_P,
        d1_P,
        d2_P,
        detection.blocks(positions_P, chunk_tokens, adapts),
        adapts,
        second is not None,
    )


def _tests(
    asked: Gains, proved: Gains, outliers: Gains, boundaries: list[BoundaryPair], sums_P: Any
) -> tuple[Test, ...]:
    """All tests over what the first witness answered. An accusation is withheld where what both answered
    (`proved`) does not bring it, since one witness's own noise cannot be told from a gain, and where the
    scorer's blind rows are not the witness's."""
    rows, boundary = detection.row_test(sums_P), detection.boundary_test(boundaries, asked)
    if not len(asked.d1_P):
        return rows, boundary
    tests = [detection.mean_test(asked, boundaries), detection.sign_test(asked), detection.spike_test(asked)]
    if not proved.twice or len(proved.d1_P) < len(asked.d1_P):
        both = (
            [
                detection.mean_test(proved, boundaries),
                detection.sign_test(proved),
                detection.spike_test(proved),
            ]
            if (proved.twice and len(proved.d1_P))
            else []
        )
        tests = [
            test
            if test.outcome != "fail" or (both and both[at].outcome == "fail")
            else test._replace(
                outcome="unknown", text=test.text + "; withheld: no second witness said the same"
            )
            for at, test in enumerate(tests)
        ]
    if 2 * boundary.numbers["apart"] > max(boundary.numbers["borders"], 1):
        tests = [
            test._replace(
                outcome="unknown",
                text=test.text + "; withheld: the scorer's blind rows are not the witness's",
            )
            if test.outcome == "fail"
            else test
            for test in tests
        ]
    return (
        *tests,
        detection.outlier_test(outliers, detection.spike_size(asked)),
        boundary,
        detection.spread_test(asked),
        rows,
    )


def _conditions(
    tests: tuple[Test, ...],
    plan: SamplingPlan,
    total_nats: float,
    covered_nats: float,
    lost: int,
    chunk_tokens: int,
) -> tuple[Condition, ...]:
    by_name = {test.name: test for test in tests}
    about_gains = [test for test in tests if test.name != "rows"]
    failed = [test for test in about_gains if test.outcome == "fail"]
    open_ = [test for test in about_gains if test.outcome == "unknown"]
    if failed:
        causal: Outcome = "fail"
        words = "the scorer gained what a strict predictor cannot: " + "; ".join(test.text for test in failed)
    elif open_:
        causal, words = (
            "unknown",
            "; ".join(test.text for test in open_) + _remedy({test.name for test in open_}, plan),
        )
    elif lost:
        causal, words = "unknown", f"at most {total_nats:.5f} nats a token are unearned"
    elif total_nats > DECISIVE_NATS:
        causal, words = (
            "unknown",
            (
                f"at most {total_nats:.3f} nats a token are unearned, {covered_nats:.5f} where the witness "
                f"came: too wide to decide; {DECISIVE_NATS:g} would do"
            ),
        )
    else:
        causal, words = "pass", f"at most {total_nats:.5f} nats a token are unearned"
    rows = by_name["rows"]
    words += (
        f"; {lost:,} of {len(plan.asked_P):,} questions got no answer and count as their largest gain"
        if lost
        else ""
    )
    normalised: Outcome = (
        rows.outcome if rows.outcome != "pass" else "pass" if causal == "pass" else "unknown"
    )
    inside: Outcome = "pass" if causal == "pass" else "unknown"
    order = f"a fact of the message order between chunks of {chunk_tokens:,} tokens; inside one: "
    return (
        Condition(
            "C1", causal, words, "text known from elsewhere, training on validation text, gains below G"
        ),
        Condition(
            "C2",
            normalised,
            rows.text + ("" if causal == "pass" else "; whether the claims are those rows' is open"),
            "rows that were not asked, but for G",
        ),
        Condition("C3", inside, order + words, "what a program does inside one chunk, but for G"),
        Condition("C4", inside, order + words, "runs made elsewhere and not reported"),
    )


def _remedy(open_names: set[str], plan: SamplingPlan) -> str:
    """What would decide an open outcome."""
    if plan.round_number == 1 and open_names & set(BY_GAINS):
        return (
            f"; a second look at {SECOND_ROUND_FACTOR * math.ceil(plan.n_expected):,} probes would decide it"
        )
    if open_names & {"borders", "spread"}:
        return "; a witness that computes as the scorer did (docs/protocol.md) would decide it"
    return "; a program whose numbers repeat exactly would decide it"


def _detection(share: float, n_probes: int) -> dict[str, float]:
    """Peeking at a random share of the tokens: P(a probe meets a peek), and P(enough meet one to prove
    it)."""
    from scipy import stats

    met = stats.binom(n_probes, share)
    return {"met": float(met.sf(0)), "proved": float(met.sf(PROVING_SPIKES - 1))}


def _reference_gap(scored: ReportedScore) -> float:
    return float((-np.log(scored.reference_T[1:]) - scored.nats_T[1:]).mean())


def _expected(gap: float, n_probes: float) -> float:
    return bounds.expected(gap, n_probes, ALPHAS[0], mixture_share(math.ceil(n_probes)))


def _probes_for(target_nats: float, gap: float, n_scored: int) -> int | None:
    """The fewest probes that would reach the target if nothing but sampling stood in the way; None where not
    even all would."""
    if _expected(gap, n_scored) > target_nats:
        return None
    low, high = 1, n_scored
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _expected(gap, middle) <= target_nats else (middle + 1, high)
    return low


def _guarantee(
    scored: ReportedScore, plan: SamplingPlan, g_bpb: float, covered_share: float, lanes: bool
) -> str:
    seen, whoever, assumed = "shown only the text before it", "whatever the program does, ", ""
    if lanes:
        seen, whoever = "shown contexts that never hold it, many at once", ""
        assumed = " and that each of its rows depends on its own context alone"
    reach = (
        ""
        if covered_share == 1
        else (
            f" The witness covered {covered_share:.1%} of the text; every token beyond counts as "
            "if all it could gain were gained."
        )
    )
    return (
        f"After the score was fixed, the judge drew {int(plan.selected_P.sum()):,} of {plan.n_scored:,} "
        "tokens by its own coins. At "
        f"each, a fresh copy of this code and artifact, {seen}, committed its full distribution first. With "
        f"{1 - sum(ALPHAS):.0%} confidence over these coins, {whoever}a causal, normalised, single-pass "
        f"predictor built from this code and artifact (mixed with a share {plan.eps:.2g} of the judge's own "
        "n-gram) scores at "
        f"most {g_bpb:.4f} bits per byte more than was claimed.{reach} This assumes that nothing passed from "
        "scorer to witness "
        f"outside the socket{assumed}."
    )
