"""The significance test, computed again from the seeds, under both rule profiles (harness/edition.py).

One-sided, against the baseline that submission.json names. A folder gives one number for its baseline, so it
is taken as a constant, as the early records did: the baseline's own spread would make p larger. A question
only where neither profile is met. Not covered: baselines that only a README names; whether the right baseline
was named."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.ask import Texts, asked, bytes_per_token, many, on_record_track, passed, unknown
from harness.audit.numbers.seeds import by_seed
from harness.audit.record.facts import Record
from harness.edition import SIGNIFICANCE


def recomputed(record: Record, texts: Texts) -> Iterator[Finding]:
    """p of `not better than the stated baseline by the margin` for the seeds of the headline."""
    claim, scores = record.claim(), by_seed(record)
    baseline = claim.baseline_bpb if claim else None
    ratio = next((found for _, score in record.chosen() for found in [bytes_per_token(score)] if found), None)
    if baseline is None or ratio is None or len({bpb.value for bpb in scores.values()}) < 2:
        why = (
            "no baseline in submission.json"
            if baseline is None
            else "no bytes per token"
            if ratio is None
            else "fewer than two different scores"
        )
        yield unknown("significance", f"not computed: {why}", "seeds with their scores, and the baseline's")
        return
    from harness.scoring.significance import welch  # scipy loads late

    values = [bpb.value for bpb in scores.values()]
    tests = [welch(values, [baseline.value] * 2, rule, sum(ratio) / 2) for rule in SIGNIFICANCE]
    said = "; ".join(
        f"{test.profile} p = {test.p:.2g} (below {test.p_below:g} is better by {test.margin_bpb:.4f})"
        for test in tests
    )
    message = f"{len(values)} seeds against {baseline.value}: {said}"
    where = many(texts, (baseline, *scores.values()))
    if any(test.better for test in tests) or not on_record_track(record, texts):
        yield passed("significance", message, where)
    else:
        yield asked("significance", message, where, "more seeds, or the baseline's own logs")
