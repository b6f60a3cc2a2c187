"""Rules on the four conditions of #1017: causal, normalised, scored before learnt from, single pass.

Message order enforces C3 and C4 between chunks. What happens inside a chunk, and whether a number came from a
distribution at all, only a witness can show: without one all four stay unknown and say so. A condition that
was not probed is never better than one that was probed and found open.
"""

from __future__ import annotations

from typing import Any

from harness.base.text import count
from harness.edition import TOLERANCES
from harness.run.records import Attempt
from harness.runners.base import COOPERATIVE
from harness.scoring.robust import robust_sd
from harness.scoring.rows import sums_to_one
from harness.verdict.rule_info import RuleInfo
from harness.verdict.rules.base import CheckResult, Evidence, Rule, ended_early, violated

NO_SCORE, NO_WITNESS, CUT_OFF, NO_ISOLATION = "no score", "no witness", "witness cut off", "no isolation"
MANY_BOUNDARIES = 24
"""With this many boundaries, their own spread tells what is noise: noise of 0.0125 nats sometimes reaches
0.05."""


def _scored(evidence: Evidence) -> list[Attempt]:
    return [attempt for record in evidence.seeds if (attempt := record.done("score")) is not None]


def certified(evidence: Evidence, name: str) -> CheckResult | None:
    """What the witnesses of all scored seeds say together of condition `name`; None where no seed has one.

    A seed whose witness could not be queried, or was not, leaves the condition unknown.
    """
    queried = {
        record.seed: attempt.facts
        for record in evidence.seeds
        if record.done("score") is not None and (attempt := record.done("witness")) is not None
    }
    if not queried:
        return None
    found = {seed: _condition(facts, name) for seed, facts in queried.items()}
    without = [
        str(record.seed)
        for record in evidence.seeds
        if record.done("score") is not None and record.seed not in queried
    ]
    for outcome in ("fail", "unknown"):
        reasons = [
            f"seed {seed}: {condition['evidence']}"
            for seed, condition in found.items()
            if condition["outcome"] == outcome
        ]
        whys = [condition.get("why", "") for condition in found.values() if condition["outcome"] == outcome]
        if outcome == "unknown" and without:
            reasons.append(f"no witness was asked about seeds {', '.join(without)}")
            whys.append(NO_WITNESS)
        if outcome == "unknown" and name != "C2" and not evidence.isolated:
            whys.append(NO_ISOLATION)
        if reasons:
            return CheckResult(outcome, "; ".join(reasons), why=", ".join(dict.fromkeys(filter(None, whys))))
    if contested := [f"{later['folder']} of seed {later['seed']}" for later in evidence.later_failures(name)]:
        return CheckResult(
            "unknown",
            f"a later certificate fails {name}: {', '.join(contested)}",
            why="a later certificate fails",
        )
    if name == "C2":
        return CheckResult(
            "pass", "; ".join(f"seed {seed}: {condition['evidence']}" for seed, condition in found.items())
        )
    return _bounded(evidence, {seed: facts["certificate"] for seed, facts in queried.items()})


def _bounded(evidence: Evidence, certificates: dict[int, dict[str, Any]]) -> CheckResult:
    """The result for a condition that every seed's certificate shows, with the certificates' bounds."""
    bounds = {seed: each["G_bpb"] for seed, each in certificates.items()}
    text = (
        f"with 99 % confidence at most {max(bounds.values()):.4f} bits per byte are unearned (seeds "
        f"{', '.join(f'{seed} {bound:.4f}' for seed, bound in bounds.items())}; "
        f"{min(each['n_probes'] for each in certificates.values()):,} probes or more each)"
    )
    strict = [each["lanes"]["G_bpb"] for each in certificates.values() if each["lanes"] is not None]
    if strict:
        text += (
            f", if each row depends on its own context alone; {max(strict):.4f} by strict prefixes, without "
            "this assumption"
        )
    if not evidence.isolated:
        return CheckResult("unknown", f"{COOPERATIVE}; but for that, {text}", why=NO_ISOLATION)
    return CheckResult("pass", text)


def _condition(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """What a certificate says of condition `name`.

    A condition that only the missing isolation leaves open (`cooperative`) passes here: `_bounded` judges
    isolation once for all seeds.
    """
    if facts["certificate"] is None:
        return {"outcome": "unknown", "evidence": facts["unasked"], "why": "no certificate"}
    found: dict[str, Any] = {each["condition"]: each for each in facts["certificate"]["conditions"]}[name]
    return {**found, "outcome": "pass"} if found.get("cooperative") else found


def witness_cut_off(evidence: Evidence) -> str | None:
    """A sentence about a witness that began and did not finish; None where there is none."""
    cut = [
        record.seed
        for record in evidence.seeds
        if record.done("witness") is None and any(attempt.stage == "witness" for attempt in record.attempts)
    ]
    return (
        f"the witness of seed {cut[0]} was cut off: the same command goes on with it, with the same random "
        "seed"
        if cut
        else None
    )


CAUSAL = RuleInfo(
    id="causal",
    title="A score used its own token or later text",
    condition="C1",
    source="#1017 C1, docs/certificate.md",
    checks="the certificates of all scored seeds: fresh copies of the model, asked at random positions "
    "without the text that follows, against the scores that were reported",
    example="#1229: a delta is fitted to the positions that are then scored (SLOT, 0.9300)",
    not_covered="text known from elsewhere, training on validation text, gains below the bound, a witness "
    "that computes more than its scorer",
)


def _causal(evidence: Evidence) -> CheckResult:
    if (found := certified(evidence, "C1")) is not None:
        return found
    if not _scored(evidence):
        return CheckResult("unknown", "no seed was scored", why=NO_SCORE)
    return CheckResult(
        "unknown",
        witness_cut_off(evidence)
        or "no witness was asked: whether a number used its own token, or later ones of its chunk, was not "
        "probed",
        why=_unasked(evidence),
    )


def _unasked(evidence: Evidence) -> str:
    """Why C1, C3 and C4 are unknown without a witness; on a runner without isolation one would not help."""
    missing = CUT_OFF if witness_cut_off(evidence) else NO_WITNESS
    return missing if evidence.isolated else f"{missing}, {NO_ISOLATION}"


NORMALISED = RuleInfo(
    id="normalised",
    title="Scores come from no distribution over the vocabulary",
    condition="C2",
    source="#1017 C2, #886, #1147",
    checks="whether border rows and the witness's rows sum to 1, within 0.001 nats",
    example="#886: a hashed n-gram mixture whose probabilities sum to about 277",
    not_covered="rows that were not probed, except as far as the bound G limits them",
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
    if not _scored(evidence):
        return CheckResult("unknown", "no seed was scored", why=NO_SCORE)
    given = (
        f"{count(len(rows), 'border row')} given, summing to 1 (largest |logsumexp| {abs(worst):.1e})"
        if rows
        else "no border row was given"
    )
    if (cut_off := witness_cut_off(evidence)) is not None:
        return CheckResult("unknown", f"{given}; {cut_off}", why=CUT_OFF)
    return CheckResult(
        "unknown", f"{given}; no witness was asked for the tokens between them", why=NO_WITNESS
    )


BORDER_ROWS = RuleInfo(
    id="border-rows",
    title="The score of a chunk's first token changed once the token was known",
    condition="C1",
    source="docs/protocol.md",
    checks="for each chunk, the score of its first token against the row that was given before the token was "
    "shown: pass up to 0.001 nats, fail beyond 0.05 (with 24 or more that show noise: 8 of its standard "
    "deviations, 0.2 at most), unknown between",
    example="3.06 nats for a token in the row given before it was shown, 3.00 nats after",
    not_covered="tokens between the borders",
)


def _boundaries(evidence: Evidence) -> CheckResult:
    done = _scored(evidence)
    if not done:
        return CheckResult("unknown", "no seed was scored", why=NO_SCORE)
    return check_boundaries([boundary for attempt in done for boundary in attempt.facts["borders"]])


def check_boundaries(boundaries: list[dict[str, Any]]) -> CheckResult:
    """Compare the score of each chunk's first token before and after the token was shown.

    `boundaries` are the objects under `borders` in run.json.
    """
    if not boundaries:
        return CheckResult("pass", "the whole text is one chunk: there is no border to compare")
    worst = max(boundaries, key=lambda boundary: abs(boundary["before_nats"] - boundary["after_nats"]))
    difference = worst["before_nats"] - worst["after_nats"]
    text = (
        f"{count(len(boundaries), 'border')}: largest difference {difference:+.2e} nats, at token "
        f"{worst['position']} ({worst['before_nats']:.6f} before it was shown, {worst['after_nats']:.6f} "
        "after)"
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
    return CheckResult("fail" if torn else "unknown", text, why="" if torn else "border rows differ")


SCORE_FIRST = RuleInfo(
    id="score-first",
    title="Text was learnt from before it was scored",
    condition="C3",
    source="#1017 C3, #402, #1376",
    checks="whether the scores of each chunk were committed before `adapt` and before the next chunk; track "
    "A never adapts; inside a chunk, the certificates",
    example="#1376: six epochs of training on the validation tokens before they are scored (0.7094)",
    not_covered="what a program does inside one chunk, except as far as the bound G limits it",
)


def _score_first(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("track",))) is not None:
        return failed
    done = _scored(evidence)
    if not done:
        return CheckResult("unknown", "no seed was scored", why=NO_SCORE)
    learned = [len(attempt.facts["borders"]) for attempt in done if attempt.claims["adapts"]]
    how = f"`adapt` was never sent (track {evidence.track})"
    if learned and not sum(learned):
        how = "`adapt` was never sent: the whole text is one chunk"
    elif learned:
        how = (
            f"{sum(learned):,} times `adapt` was sent, each time after all scores so far were committed to "
            "the ledger and before the next chunk was shown; the answer predicts that chunk's first token"
        )
    some = f" in {len(learned)} of them" if 0 < len(learned) < len(done) else ""
    return _with_inside(
        evidence,
        "C3",
        f"{how}, in chunks of {done[0].claims['chunk_tokens']:,} tokens, over {count(len(done), 'seed')}"
        f"{some}",
    )


SINGLE_PASS = RuleInfo(
    id="single-pass",
    title="Text was scored more than once",
    condition="C4",
    source="#1017 C4, #573, #846",
    checks="whether every token was revealed once, in order, and answered once; scorings and witnesses that "
    "ended early are counted; inside a chunk, the certificates",
    example="#573: the smallest of the scores that a token had in three passes (1.0523)",
    not_covered="runs made elsewhere and not reported",
)


def _single_pass(evidence: Evidence) -> CheckResult:
    done = _scored(evidence)
    if not done:
        return CheckResult("unknown", "no seed was scored", why=NO_SCORE)
    return _with_inside(
        evidence,
        "C4",
        f"{done[0].facts['scored_tokens']:,} tokens revealed once, in order, each answered once"
        + ended_early(evidence, "score", "scoring attempt")
        + ended_early(evidence, "witness", "witness attempt"),
    )


def _with_inside(evidence: Evidence, name: str, order: str) -> CheckResult:
    """`order`, what the order of messages shows between chunks, with what the certificates show inside."""
    inside = certified(evidence, name) or CheckResult(
        "unknown", witness_cut_off(evidence) or "no witness was asked", why=_unasked(evidence)
    )
    shown = "what the certificates bound, as under `causal`" if inside.outcome == "pass" else inside.evidence
    return inside._replace(evidence=f"between chunks: {order}; inside one: {shown}")


DOCUMENTS = RuleInfo(
    id="documents",
    title="Documents cost impossibly few bits",
    condition=None,
    source="#168, #262, #275",
    checks="the bits of every scored document; unknown where some cost impossibly little, never a failure",
    example="#262: 4.24 MB of the artifact hold a tenth of the validation text (1.0539)",
    not_covered="text that was memorised and whose gain is spread over many documents",
)


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
    Rule(CAUSAL, _causal, decides="always"),
    Rule(NORMALISED, _normalised, decides="always"),
    Rule(BORDER_ROWS, _boundaries, decides="always"),
    Rule(SCORE_FIRST, _score_first, decides="always"),
    Rule(DOCUMENTS, _documents),
    Rule(SINGLE_PASS, _single_pass, decides="always"),
)
