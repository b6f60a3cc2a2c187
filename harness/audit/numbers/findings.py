"""What the cross-checks of numbers share: short ways to make findings, the track, quoted lines, intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from harness.audit.finding import MAX_TEXT, Evidence, Finding
from harness.audit.record.facts import Number, Record, Run, Score, Word
from harness.verdict.rule_info import RuleInfo

Texts = Mapping[str, str]
"""The text files of a folder, by path."""
Lines = tuple[Evidence, ...]
MAX_LINES = 6
"""Quoted lines of one finding that rests on all seeds."""
OFF_TRACK = ("non_record", "non-record", "nonrecord", "non record", "not a record", "negative result")
NO_RECORD = re.compile(r"non-?record\W+([^\s.,;:]+ ){0,3}submission", re.I)
OPENING = 2_000
"""Characters of a README in which it says what it is."""


def passed(info: RuleInfo, message: str, evidence: Lines = ()) -> Finding:
    """The numbers agree."""
    return Finding(info.id, None, "pass", message, evidence)


def unknown(info: RuleInfo, reason: str, clears: str, evidence: Lines = ()) -> Finding:
    """The folder does not say enough."""
    return Finding(info.id, None, "unknown", reason, evidence, clears)


def question(info: RuleInfo, message: str, evidence: Lines, clears: str, *, proved: bool = False) -> Finding:
    """The numbers disagree: a question, or `fail` where they prove it."""
    return Finding.of(info, "fail" if proved else "question", message, evidence, clears)


def on_record_track(record: Record, texts: Texts) -> bool:
    """Whether the folder claims a place under the ten-minute rules: its path or JSON says so, and nothing
    revokes it.
    """
    claim = record.claim()
    stated = f"{record.folder}/{claim.track.value if claim and claim.track else ''}".lower()
    return "10min" in stated.replace("_", "").replace("-", "") and not off_record_track(record, texts)


def off_record_track(record: Record, texts: Texts) -> bool:
    """Whether the folder itself says that it asks for no place on the record track.

    Its parent folder, track, name or title says so, or the opening of a README (#272, #1978: non-record
    submissions among those of the record track).

    Not the opposite of on_record_track: a folder that names no track is neither.
    """
    claim = record.claim()
    readmes = (text for file, text in texts.items() if file.lower().startswith("readme"))
    stated = [
        *record.folder.split("/")[-3:],
        record.title or "",
        *(fact.value for fact in ((claim.track, claim.name) if claim else ()) if fact),
    ]
    return any(phrase in text.lower() for text in stated for phrase in OFF_TRACK) or any(
        NO_RECORD.search(text[:OPENING]) for text in readmes
    )


def quote(texts: Texts, *facts: Number | Word | None) -> Lines:
    """The lines in which facts stand, each once."""
    return tuple(dict.fromkeys(_line(texts, fact) for fact in facts if fact))


def _line(texts: Texts, fact: Number | Word) -> Evidence:
    lines = texts.get(fact.file, "").split("\n", fact.line or 0)
    text = lines[fact.line - 1] if fact.line and len(lines) >= fact.line else ""
    return Evidence(fact.file, fact.line, text.strip()[:MAX_TEXT])


def run_name(run: Run) -> str:
    """A run as a sentence names it."""
    return f"{run.file} (seed {run.seed})" if run.seed is not None else run.file


def bytes_per_token(score: Score) -> tuple[float, float] | None:
    """The interval of bytes per token that a line's digits allow: nats / (ln 2 x bits per byte)."""
    if score.nats is None or score.nats.low <= 0 or score.bpb.low <= 0:
        return None
    return score.nats.low / math.log(2) / score.bpb.high, score.nats.high / math.log(2) / score.bpb.low
