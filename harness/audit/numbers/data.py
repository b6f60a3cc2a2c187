"""Traces in logs of data that a run should not have had: shards of training text that overlap the validation text, gates that read targets.

#2127: prepared with `--val-docs=10000`, training begins at document 10,000 and so holds most of the validation text; such logs say
`train_shards: 1499`. #2018, #2118: counters of within-word and word-start gates above zero, whose gate reads the token to be predicted.
Both are traces and not proof (#1967 disputes its own), so they are questions. Not covered: shards under other counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import Texts, places, shown
from harness.audit.record.facts import Record
from harness.audit.record.lines import MAX_LINE, MAX_LINES

SUSPECT_SHARDS = 1499
GATE = re.compile(r"\b(within_gate|word_gate)=([1-9]\d{0,11})\b")


def overlap(record: Record, texts: Texts) -> Iterator[Finding]:
    """The shard count of the preparation that trains on validation documents."""
    for run, _ in record.chosen():
        if run.train_shards and run.train_shards.value == SUSPECT_SHARDS:
            yield Finding("train-shards", "C1", "question", f"{shown(run)} trains on {SUSPECT_SHARDS} shards, the count of a preparation whose training "
                          "text holds validation documents (#2127)", places(texts, (run.train_shards,)), "hashes of the shards, or how they were made")
            return


def gates(record: Record, texts: Texts) -> Iterator[Finding]:
    """Counters of gates that look at the token to be predicted."""
    for run, _ in record.chosen():
        for number, line in enumerate(texts.get(run.file, "").split("\n")[:MAX_LINES], 1):
            if "_gate=" in line and (match := GATE.search(line[:MAX_LINE])):
                yield Finding("target-gates", "C1", "question", f"{shown(run)} counts {int(match[2]):,} uses of {match[1]}, a gate that reads whether "
                              "the token to be predicted begins a word (#1420, #2018)",
                              (Evidence(run.file, number, line.strip()[:200]),), "the counter at zero, or the code of the gate")
                return
