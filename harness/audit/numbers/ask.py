"""What the cross-checks share: the track, evidence lines, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from harness.audit.finding import Evidence
from harness.audit.record.facts import Number, Record, Run, Score, Word

MAX_TEXT = 200
Texts = Mapping[str, str]


def on_record_track(record: Record) -> bool:
    """Whether the folder claims a place under the ten-minute rules, by its path and its JSON."""
    claim = record.claim()
    said = f"{record.folder}/{claim.track.value if claim and claim.track else ''}".lower()
    return "10min" in said.replace("_", "").replace("-", "") and not any(word in said for word in ("non_record", "non-record", "nonrecord"))


def place(texts: Texts, fact: Number | Word | None) -> tuple[Evidence, ...]:
    """The line in which a fact stands."""
    if fact is None:
        return ()
    lines = texts.get(fact.file, "").split("\n", fact.line or 0)
    text = lines[fact.line - 1] if fact.line and len(lines) >= fact.line else ""
    return (Evidence(fact.file, fact.line, text.strip()[:MAX_TEXT]),)


def places(texts: Texts, facts: Iterable[Number | Word | None]) -> tuple[Evidence, ...]:
    """The lines of several facts, each once."""
    return tuple(dict.fromkeys(one for fact in facts for one in place(texts, fact)))


def shown(run: Run) -> str:
    """A run as a sentence names it."""
    return f"{run.file} (seed {run.seed})" if run.seed is not None else run.file


def bytes_per_token(score: Score) -> tuple[float, float] | None:
    """The interval of bytes per token that a line's digits allow: nats / (ln 2 x bits per byte)."""
    if score.nats is None or score.nats.low <= 0 or score.bpb.low <= 0:
        return None
    return score.nats.low / math.log(2) / score.bpb.high, score.nats.high / math.log(2) / score.bpb.low
