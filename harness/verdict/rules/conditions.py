"""The four conditions of #1017: causal, normalised, scored before learnt from, one pass.

The order of messages proves C3 and C4 between chunks. What happens inside a chunk, and whether a number came
from a distribution at all, only a witness can show; without one C1 and C2 stay unknown and say so."""

from __future__ import annotations

from typing import Any

from harness.edition import SIGNIFICANCE, TOLERANCES
from harness.run.records import Attempt
from harness.runners.base import COOPERATIVE
from harness.scoring.robust import robust_sd
from harness.scoring.rows import sums_to_one
from harness.verdict.rules.base import CheckResult, Evidence, Rule, ended_early, violated

RECORD_NATS = next(test.margin_nats for test in SIGNIFICANCE if test.name == "readme")
"""A record must clear its margin with all that is not certified counted against it, so that may not be more
than the margin."""
MANY_BOUNDARIES = 24
"""From so many on, their own spread says what is noise: noise of 0.0125 nats reaches 0.05 now and then."""


def _scored(evidence: Evidence) -> list[Attempt]:
    return [attempt for record in evidence.seeds if (attempt := record.done("score")) is not None]


def certified(evidence: Evidence, name: str) -> CheckResult | None:
    """What the witnesses of all scored seeds say of one condition together; None where none was asked.

    Raises nothing: a seed whose witness could not be asked, or was not, leaves the condition unknown.
    """
    asked = {
        record.seed: attempt.facts
        for record in evidence.seeds
        if record.done("score") is not None and (attempt := record.done("witness")) is not None
    }
    if not asked:
        return None
    found = {seed: _condition(facts, name) for seed, facts in asked.items()}
    unasked = [
        str(record.seed)
        for record in evidence.seeds
        if record.done("score") is not None and record.seed not in asked
    ]
    for outcome in ("fail", "unknown"):
        told = [
            f"seed {seed}: {condition['evidence']}"
            for seed, condition in found.items()
            if condition["outcome"] == outcome
        ]
        if outcome == "unknown" and unasked:
            told.append(f"no witness was asked about seeds {', '.join(unasked)}")
        if told:
            return CheckResult(outcome, "; ".join(told))
    if name == "C2":
        return CheckResult(
            "pass", "; ".join(f"seed {seed}: {condition['evidence']}" for seed, condition in found.items())
        )
    return _bounded(evidence, {seed: facts["certificate"] for seed, facts in asked.items()})


def _bounded(evidence: Evidence, made: dict[int, dict[str, Any]]) -> CheckResult:
    """A condition that every seed's certificate shows, with the bounds that it rests on."""
    bounds = {seed: each["G_bpb"] for seed, each in made.items()}
    text = (
        f"with 99 % confidence at most {max(bounds.values()):.4f} bits per byte are unearned (seeds "
        f"{', '.join(f'{seed} {bound:.4f}' for seed, bound in bounds.items())}; "
        f"{min(each['n_probes'] for each in made.values()):,} probes or more each)"
    )
    strict = [each["lanes"]["G_bpb"] for each in made.values() if each["lanes"] is not None]
    if strict:
        text += f", if a row depends on its own context alone; {max(strict):.4f} by strict prefixes, which assume nothing of it"
    if not evidence.isolated:
        return CheckResult("unknown", f"{COOPERATIVE}; but for that, {text}")
    if evidence.profile == "record" and max(each["G_nats"] for each in made.values()) > RECORD_NATS:
        return CheckResult(
            "unknown",
            f"{text}: more than the {RECORD_NATS:g} nats a token that a record must be better by; more "
            "probes would decide it",
        )
    return CheckResult("pass", text)


def _condition(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """A certificate's word; what only the runner leaves open (witness.py) is judged here for all seeds
    together."""
    if facts["certificate"] is None:
        return {"outcome": "unknown", "evidence": facts["unasked"]}
    found: dict[str, Any] = next(
        each for each in facts["certificate"]["conditions"] if each["condition"] == name
    )
    return {**found, "outcome": "pass"} if found.get("cooperative") else found


def witness_cut_off(evidence: Evidence) -> str | None:
    """Why a witness that was begun did not end; None where none was."""
    cut = [
        record.seed
        for record in evidence.seeds
        if record.done("witness") is None and any(attempt.stage == "witness" for attempt in record.attempts)
    ]
    return (
        f"the witness of seed {cut[0]} was cut off: the same command goes on with it, with the same coins"
        if cut
        else None
    )


def _causal(evidence: Evidence) -> CheckResult:
    return certified(evidence, "C1") or CheckResult(
        "unknown",
        witness_cut_off(evidence)
        or (
            "no witness was asked: whether a number used its own token, or later ones of its chunk, was not "
            "probed"
        ),
    )


def _normalised(evidence: Evidence) -> CheckResult:
    rows = [boundary["logsumexp"] for attempt in _scored(evidence) for boundary in attempt.facts["borders"]]
    worst = max(rows, key=abs, default=0.0)
    if not sums_to_one(worst):
        return CheckResult(
            "fail",
            f"a border row sums to exp({worst:.2e}) instead of 1 (tolerance {TOLERANCES.row_nats:g} nats)",
        )
    if (found := certified(evidence, "C2")) is not None:
        return found
    if not rows:
        return CheckResult("unknown", "no border row was given, and no witness was asked")
    return CheckResult(
        "unknown",
        f"{len(rows)} border rows sum to 1 (largest |logsumexp| {abs(worst):.1e}); no witness was asked "
        "for the tokens between them",
    )


def _boundaries(evidence: Evidence) -> CheckResult:
    return check_boundaries(
        [boundary for attempt in _scored(evidence) for boundary in attempt.facts["borders"]]
    )


def check_boundaries(boundaries: list[dict[str, Any]]) -> CheckResult:
    """Is what was said of each chunk's first token the same before and after it was shown? Borders as in
    run.json."""
    if not boundaries:
        return CheckResult("unknown", "no chunk border was scored")
    worst = max(boundaries, key=lambda boundary: abs(boundary["before_nats"] - boundary["after_nats"]))
    difference = worst["before_nats"] - worst["after_nats"]
    text = (
        f"{len(boundaries)} borders: largest difference {difference:+.2e} nats, at token {worst['position']} "
        f"({worst['before_nats']:.6f} before it was shown, {worst['after_nats']:.6f} after)"
    )
    if abs(difference) <= TOLERANCES.boundary_nats:
        return CheckResult("pass", text)
    sizes = [abs(boundary["before_nats"] - boundary["after_nats"]) for boundary in boundaries]
    noise = (
        TOLERANCES.boundary_spreads * robust_sd(sizes, centre=0.0)
        if len(boundaries) >= MANY_BOUNDARIES
        else 0.0
    )
    torn = abs(difference) > max(TOLERANCES.boundary_breach_nats, min(noise, TOLERANCES.boundary_gap_nats))
    return CheckResult("fail" if torn else "unknown", text)


def _score_first(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("track",))) is not None:
        return failed
    done = _scored(evidence)
    if not done:
        return CheckResult("unknown", "no seed was scored")
    learned = [len(attempt.facts["borders"]) for attempt in done if attempt.claims["adapts"]]
    how = f"`adapt` was never sent (track {evidence.manifest.track})"
    if learned:
        how = (
            f"{sum(learned):,} times `adapt` was sent, each after every number of the chunks up to there was "
            "committed to the "
            "ledger and before the next chunk was shown; the border row that came back was given blind"
        )
    some = f" in {len(learned)} of them" if 0 < len(learned) < len(done) else ""
    return _with_inside(
        evidence,
        "C3",
        f"{how}, in chunks of {done[0].claims['chunk_tokens']:,} tokens, over {len(done)} seeds{some}",
    )


def _single_pass(evidence: Evidence) -> CheckResult:
    done = _scored(evidence)
    if not done:
        return CheckResult("unknown", "no seed was scored")
    return _with_inside(
        evidence,
        "C4",
        f"{done[0].facts['scored_tokens']:,} tokens revealed once, in order, each answered once"
        + ended_early(evidence, "score", "scoring attempts")
        + ended_early(evidence, "witness", "witnesses"),
    )


def _with_inside(evidence: Evidence, name: str, order: str) -> CheckResult:
    """What the order of messages shows between chunks, and where a witness was asked, what it says of their
    inside."""
    inside = certified(evidence, name)
    if inside is None:
        return (
            CheckResult("pass", order)
            if evidence.isolated
            else CheckResult("unknown", f"{COOPERATIVE}; but for that, {order}")
        )
    shown = "what the certificates bound, as under `causal`" if inside.outcome == "pass" else inside.evidence
    return inside._replace(evidence=f"between chunks: {order}; inside one: {shown}")


def _documents(evidence: Evidence) -> CheckResult:
    scans = {
        record.seed: scan
        for record in evidence.seeds
        if (done := record.done("score")) is not None and (scan := done.facts.get("documents")) is not None
    }
    if not scans:
        return CheckResult("unknown", "no seed was scanned document by document")
    odd = [f"seed {seed}: {scan['text']}" for seed, scan in scans.items() if scan["outcome"] != "pass"]
    return (
        CheckResult("unknown", "; ".join(odd))
        if odd
        else CheckResult("pass", next(iter(scans.values()))["text"])
    )


RULES = (
    Rule(
        "causal",
        "C1",
        "#1017 C1, docs/certificate.md",
        "text known from elsewhere, training on validation text, gains below "
        "the bound, a witness that thinks longer than its scorer",
        _causal,
        decides_records=True,
    ),
    Rule(
        "normalised",
        "C2",
        "#1017 C2, #886, #1147",
        "rows that were not asked for, but for the bound",
        _normalised,
        decides_records=True,
    ),
    Rule(
        "border-rows",
        "C1",
        "docs/protocol.md",
        "tokens between the borders",
        _boundaries,
        decides_records=True,
    ),
    Rule(
        "score-first",
        "C3",
        "#1017 C3, #402, #1376",
        "what a program does inside one chunk, but for the bound",
        _score_first,
    ),
    Rule(
        "documents",
        None,
        "#168, #262, #275",
        "text that was learned by heart and paid for little by little",
        _documents,
    ),
    Rule("single-pass", "C4", "#1017 C4, #573, #846", "runs made elsewhere and not reported", _single_pass),
)
