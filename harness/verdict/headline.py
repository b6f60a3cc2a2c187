"""The headline of a verdict: the number first, what is shown of C1 to C4, then the verdict with its rules.

    1.6780 bits per byte (sd 0.0020, 3 of 3 seeds); shown: C2; not shown: C1, C3, C4 (no isolation)
    INCONCLUSIVE by causal, score-first, single-pass: my-idea in profile pocket, on pocket, local runner

Runs, `pgolf score` and lists of runs use the same words. Only keys of verdict.json are read.
"""

from __future__ import annotations

from typing import Any

from harness.base.text import count


def headline(verdict: dict[str, Any]) -> str:
    """Both lines of the headline as one text."""
    return f"{result(verdict)}. {decision(verdict)}"


def result(verdict: dict[str, Any]) -> str:
    """The mean score, its spread and seeds, and which of the four conditions are shown."""
    return f"{_score(verdict)}; {standing(verdict)}"


def decision(verdict: dict[str, Any]) -> str:
    """The verdict with the rules that decided it, then what was run on what."""
    rules = f" by {', '.join(verdict['decided_by'])}" if verdict["decided_by"] else ""
    seconds = verdict["shortened_train_seconds"]
    clock = "" if seconds is None else f", train clock shortened to {seconds:g} s"
    return (
        f"{verdict['verdict'].upper()}{rules}: {verdict['submission']} in profile {verdict['profile']}, on "
        f"{verdict['dataset']['name']}, {verdict['runner']} runner{clock}"
    )


def standing(verdict: dict[str, Any]) -> str:
    """What is shown of C1 to C4, and what is not; conditions with the same reason stand together."""
    reasons: dict[str, list[str]] = {}
    for condition, why in verdict["not_shown"].items():
        reasons.setdefault(why, []).append(condition)
    missing = ", ".join(f"{', '.join(conditions)} ({why})" for why, conditions in reasons.items())
    shown = ", ".join(verdict["shown"]) or "nothing"
    return f"shown: {shown}" + (f"; not shown: {missing}" if missing else "")


def _score(verdict: dict[str, Any]) -> str:
    rows = verdict["seeds"]
    scored = [row for row in rows if row["bpb"] is not None]
    of = f"{len(scored)} of {count(len(rows), 'seed')}"
    if not scored:
        return f"no score ({of})"
    spread = "" if verdict["sd_bpb"] is None else f"sd {verdict['sd_bpb']:.4f}, "
    return f"{verdict['mean_bpb']:.4f} bits per byte ({spread}{of})"
