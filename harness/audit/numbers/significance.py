"""Compute the significance test again from the seeds, under both rule profiles (harness/edition.py).

The test is one-sided, against the baseline that submission.json names. A folder gives one number for its
baseline, so it counts as a constant, as in the early records; the baseline's own spread would make p larger.
It is a question only where neither profile is met.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.findings import (
    MAX_LINES,
    Texts,
    bytes_per_token,
    on_record_track,
    passed,
    question,
    quote,
    unknown,
)
from harness.audit.numbers.seeds import by_seed
from harness.audit.record.facts import Record
from harness.edition import SIGNIFICANCE
from harness.verdict.rule_info import RuleInfo

SIGNIFICANCE_TEST = RuleInfo(
    id="significance",
    title="Not significantly better than the baseline",
    condition=None,
    source="README R5, #1902",
    checks="the one-sided test of the seeds against the stated baseline as a constant, under both rule "
    "profiles",
    example="three seeds a hair under their baseline",
    not_covered="the baseline's own spread, which no folder states; baselines that only a README names; it "
    "is a question only where neither profile is met",
)


def recomputed(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compute p of `not better than the stated baseline by the margin` for the seeds of the headline."""
    claim, scores = record.claim(), by_seed(record)
    baseline = claim.baseline_bpb if claim else None
    ratio = next((found for _, score in record.chosen() for found in [bytes_per_token(score)] if found), None)
    if baseline is None or ratio is None or len({bpb.value for bpb in scores.values()}) < 2:
        reason = (
            "no baseline in submission.json"
            if baseline is None
            else "no bytes per token"
            if ratio is None
            else "fewer than two different scores"
        )
        yield unknown(
            SIGNIFICANCE_TEST, f"not computed: {reason}", "seeds with their scores, and the baseline's"
        )
        return
    from harness.scoring.significance import welch  # scipy loads late

    values = [bpb.value for bpb in scores.values()]
    tests = [welch(values, [baseline.value] * 2, rule, sum(ratio) / 2) for rule in SIGNIFICANCE]
    results = "; ".join(
        f"{test.profile} p = {test.p:.2g} (below {test.p_below:g} is better by {test.margin_bpb:.4f})"
        for test in tests
    )
    message = f"{len(values)} seeds against {baseline.value}: {results}"
    evidence = quote(texts, baseline, *scores.values())[:MAX_LINES]
    if any(test.better for test in tests) or not on_record_track(record, texts):
        yield passed(SIGNIFICANCE_TEST, message, evidence)
    else:
        yield question(SIGNIFICANCE_TEST, message, evidence, "more seeds, or the baseline's own logs")


RULES = (SIGNIFICANCE_TEST,)
CHECKS = (recomputed,)
