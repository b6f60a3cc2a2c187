"""The four conditions of #1017: causal, normalised, scored before learnt from, one pass.

The order of messages proves C3 and C4 between chunks. What happens inside a chunk, and whether a number came from
a distribution at all, only a witness can show; without one C1 and C2 stay unknown and say so.
"""

from __future__ import annotations

import statistics
from typing import Any

from harness.records import Attempt
from harness.rules.base import Evidence, Judged, Rule, ended_early, violated

ROW_TOLERANCE = 1e-3
"""Largest |logsumexp| of a border row; float32 logits stay below 1e-4 (docs/protocol.md)."""
BORDER_TOLERANCE = 1e-3
"""Largest honest difference, in nats, between a token's number and the row given before it was shown, same shapes."""
BORDER_BREACH = 0.05
"""Beyond this no arithmetic noise explains the difference (bf16 rows differ by 0.02), unless MANY_BORDERS show such noise."""
BORDER_GAP = 0.2
"""Beyond this none of any number is noise: noise of 0.0125 reached 0.13 at most in measurements."""
BORDER_SPREADS, MANY_BORDERS = 8.0, 24
"""Robust standard deviations that one must exceed where there are many: noise of 0.0125 reaches 0.05 now and then."""


def _scored(evidence: Evidence) -> list[Attempt]:
    return [attempt for record in evidence.seeds if (attempt := record.done("score")) is not None]


def _causal(evidence: Evidence) -> Judged:
    return Judged("unknown", "no witness was run: whether a number used its own token, or later ones of its chunk, was not "
                  "probed")


def _normalised(evidence: Evidence) -> Judged:
    rows = [border["logsumexp"] for attempt in _scored(evidence) for border in attempt.facts["borders"]]
    worst = max(rows, key=abs, default=0.0)
    if abs(worst) > ROW_TOLERANCE:
        return Judged("fail", f"a border row sums to exp({worst:.2e}) instead of 1 (tolerance {ROW_TOLERANCE:g} nats)")
    if not rows:
        return Judged("unknown", "no border row was given, and no witness was run")
    return Judged("unknown", f"{len(rows)} border rows sum to 1 (largest |logsumexp| {abs(worst):.1e}); no witness was run "
                  "for the tokens between them")


def _borders(evidence: Evidence) -> Judged:
    return judge_borders([border for attempt in _scored(evidence) for border in attempt.facts["borders"]])


def judge_borders(borders: list[dict[str, Any]]) -> Judged:
    """Is what was said of each chunk's first token the same before and after it was shown? Borders as in run.json."""
    if not borders:
        return Judged("unknown", "no chunk border was scored")
    worst = max(borders, key=lambda border: abs(border["before_nats"] - border["after_nats"]))
    difference = worst["before_nats"] - worst["after_nats"]
    text = (f"{len(borders)} borders: largest difference {difference:+.2e} nats, at token {worst['position']} "
            f"({worst['before_nats']:.6f} before it was shown, {worst['after_nats']:.6f} after)")
    if abs(difference) <= BORDER_TOLERANCE:
        return Judged("pass", text)
    sizes = [abs(border["before_nats"] - border["after_nats"]) for border in borders]
    noise = 1.4826 * BORDER_SPREADS * statistics.median(sizes) if len(borders) >= MANY_BORDERS else 0.0
    torn = abs(difference) > max(BORDER_BREACH, min(noise, BORDER_GAP))
    return Judged("fail" if torn else "unknown", text)


def _score_first(evidence: Evidence) -> Judged:
    if (failed := violated(evidence, ("track",))) is not None:
        return failed
    done = _scored(evidence)
    if not done:
        return Judged("unknown", "no seed was scored")
    learned = [len(attempt.facts["borders"]) for attempt in done if attempt.claims["adapts"]]
    how = f"`adapt` was never sent (track {evidence.manifest.track})"
    if learned:
        how = (f"{sum(learned):,} times `adapt` was sent, each after every number of the chunks up to there was committed to the "
               "ledger and before the next chunk was shown; the border row that came back was given blind")
    some = f" in {len(learned)} of them" if 0 < len(learned) < len(done) else ""
    return Judged("pass", f"{how}, in chunks of {done[0].claims['chunk_tokens']:,} tokens, over {len(done)} seeds{some}")


def _single_pass(evidence: Evidence) -> Judged:
    done = _scored(evidence)
    if not done:
        return Judged("unknown", "no seed was scored")
    return Judged("pass", f"{done[0].facts['scored_tokens']:,} tokens revealed once, in order, each answered once"
                  + ended_early(evidence, "score", "scoring attempts"))


RULES = (
    Rule("causal", "C1", "#1017 C1", "text known from elsewhere, training on validation text", _causal,
         decides_records=True),
    Rule("normalised", "C2", "#1017 C2, #886, #1147", "tokens between the borders, without a witness", _normalised,
         decides_records=True),
    Rule("border-rows", "C1", "docs/protocol.md", "tokens between the borders", _borders, decides_records=True),
    Rule("score-first", "C3", "#1017 C3, #402, #1376", "what a program does inside one chunk", _score_first),
    Rule("single-pass", "C4", "#1017 C4, #573, #846", "runs made elsewhere and not reported", _single_pass),
)
