"""What the cross-checks share: findings in short, the track, evidence lines, intervals. Not covered: any
rule."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from harness.audit.finding import Evidence, Finding
from harness.audit.record.facts import Number, Record, Run, Score, Word

MAX_TEXT = 200
Texts = Mapping[str, str]
Places = tuple[Evidence, ...]
OFF_TRACK = ("non_record", "non-record", "nonrecord", "non record", "not a record", "negative result")

NO_RECORD = re.compile(r"non-?record\W+([^\s.,;:]+ ){0,3}submission", re.I)
OPENING = 2_000
"""Characters of a README in which it says what it is."""


def passed(rule: str, message: str, where: Places = ()) -> Finding:
    """The numbers fit together."""
    return Finding(rule, None, "pass", message, where)


def unknown(rule: str, why: str, clears: str, where: Places = ()) -> Finding:
    """The folder does not say enough."""
    return Finding(rule, None, "unknown", why, where, clears)


def asked(
    rule: str, message: str, where: Places, clears: str, *, proved: bool = False, condition: str | None = None
) -> Finding:
    """The numbers do not fit: a question, or `fail` where they prove it."""
    return Finding(rule, condition, "fail" if proved else "question", message, where, clears)


def on_record_track(record: Record, texts: Texts) -> bool:
    """Whether the folder claims a place under the ten-minute rules: path or JSON say so, and nothing takes it
    back."""
    claim = record.claim()
    said = f"{record.folder}/{claim.track.value if claim and claim.track else ''}".lower()
    return "10min" in said.replace("_", "").replace("-", "") and not off_record_track(record, texts)


def off_record_track(record: Record, texts: Texts) -> bool:
    """Whether the folder itself says that it asks for no place: by its shelf, its track, its name, its title,
    or in the opening of a README (#272, #1978: non-record submissions on the record track's shelf).

    Not the opposite of on_record_track: a folder that names no track is on neither side.
    """
    claim = record.claim()
    readmes = (text for file, text in texts.items() if file.lower().startswith("readme"))
    said = [
        *record.folder.split("/")[-3:],
        record.title or "",
        *(fact.value for fact in ((claim.track, claim.name) if claim else ()) if fact),
    ]
    return any(word in text.lower() for text in said for word in OFF_TRACK) or any(
        NO_RECORD.search(text[:OPENING]) for text in readmes
    )


def places(texts: Texts, *facts: Number | Word | None) -> Places:
    """The lines in which facts stand, each once."""
    return tuple(dict.fromkeys(_place(texts, fact) for fact in facts if fact))


def many(texts: Texts, facts: Iterable[Number | Word | None]) -> Places:
    """The same for any number of facts, the first six."""
    return places(texts, *facts)[:6]


def _place(texts: Texts, fact: Number | Word) -> Evidence:
    lines = texts.get(fact.file, "").split("\n", fact.line or 0)
    text = lines[fact.line - 1] if fact.line and len(lines) >= fact.line else ""
    return Evidence(fact.file, fact.line, text.strip()[:MAX_TEXT])


def shown(run: Run) -> str:
    """A run as a sentence names it."""
    return f"{run.file} (seed {run.seed})" if run.seed is not None else run.file


def bytes_per_token(score: Score) -> tuple[float, float] | None:
    """The interval of bytes per token that a line's digits allow: nats / (ln 2 x bits per byte)."""
    if score.nats is None or score.nats.low <= 0 or score.bpb.low <= 0:
        return None
    return score.nats.low / math.log(2) / score.bpb.high, score.nats.high / math.log(2) / score.bpb.low
