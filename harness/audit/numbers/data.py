"""Traces in logs of what a run should not have read: training shards that hold validation text, gates that
look at targets.

#2127: prepared with `--val-docs=10000`, training begins at document 10,000 and so holds most of the
validation text; such logs say `train_shards: 1499`. #2018, #2118: counters above zero of within-word and
word-start gates, which read the token to be predicted. Both are traces and not proof (#1967 disputes its
own), so they are questions. Not covered: other shard counts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import MAX_TEXT, Texts, asked, places, shown
from harness.audit.record.facts import Record
from harness.audit.record.lines import MAX_LINE, MAX_LINES

SUSPECT_SHARDS = 1499
GATE = re.compile(r"\b(within_gate|word_gate)=([1-9]\d{0,11})\b")


def overlap(record: Record, texts: Texts) -> Iterator[Finding]:
    """The shard count of the preparation that trains on validation documents."""
    for run, _ in record.chosen():
        if run.train_shards and run.train_shards.value == SUSPECT_SHARDS:
            yield asked(
                "train-shards",
                f"{shown(run)} trains on {SUSPECT_SHARDS} shards, the count of a preparation whose "
                "training text holds validation documents (#2127)",
                places(texts, run.train_shards),
                "hashes of the shards, or how they were made",
                condition="C1",
            )
            return


def gates(record: Record, texts: Texts) -> Iterator[Finding]:
    """Counters of gates that look at the token to be predicted."""
    for run, _ in record.chosen():
        for number, line in enumerate(texts.get(run.file, "").split("\n")[:MAX_LINES], 1):
            match = GATE.search(line[:MAX_LINE]) if "_gate=" in line else None
            if match:
                yield asked(
                    "target-gates",
                    f"{shown(run)} counts {int(match[2]):,} uses of {match[1]}, a gate that reads "
                    "whether the token to be predicted begins a word (#1420, #2018)",
                    (Evidence(run.file, number, line.strip()[:MAX_TEXT]),),
                    "the counter at zero, or the code of the gate",
                    condition="C1",
                )
                return
