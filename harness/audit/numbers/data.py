"""Find traces of data that a run must not read: validation text in training shards, gates on targets.

#2127: prepared with `--val-docs=10000`, training begins at document 10,000 and so holds most of the
validation text; such logs print `train_shards: 1499`. #2018, #2118: counters above zero of within-word and
word-start gates, which read the token to be predicted. Both are traces and not proof (#1967 disputes its
own), so they are questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.audit.finding import MAX_TEXT, Evidence, Finding
from harness.audit.numbers.findings import Texts, question, quote, run_name
from harness.audit.record.facts import Record
from harness.audit.record.lines import MAX_LINE, MAX_LINES
from harness.verdict.rule_info import RuleInfo

SUSPECT_SHARDS = 1499
GATE = re.compile(r"\b(within_gate|word_gate)=([1-9]\d{0,11})\b")


TRAIN_SHARDS = RuleInfo(
    id="train-shards",
    title="Training shards of a preparation that holds validation text",
    condition="C1",
    source="#2127, #2018",
    checks="1,499 training shards",
    example="#1967: 1,499 train shards instead of 80",
    not_covered="other shard counts; the count is a trace and no proof, so it is a question",
)


def overlap(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find the shard count of the preparation that trains on validation documents."""
    for run, _ in record.chosen():
        if run.train_shards and run.train_shards.value == SUSPECT_SHARDS:
            yield question(
                TRAIN_SHARDS,
                f"{run_name(run)} trains on {SUSPECT_SHARDS} shards, the count of a preparation whose "
                "training text holds validation documents (#2127)",
                quote(texts, run.train_shards),
                "hashes of the shards, or how they were made",
            )
            return


TARGET_GATES = RuleInfo(
    id="target-gates",
    title="Gates that read the target were used",
    condition="C1",
    source="#1420, #2018, #2118",
    checks="counters of within-word or word-start gates above zero",
    example="#2118: within_gate=9866847",
    not_covered="counters under other names",
)


def gates(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find counters of gates that read the token to be predicted."""
    for run, _ in record.chosen():
        for number, line in enumerate(texts.get(run.file, "").split("\n")[:MAX_LINES], 1):
            match = GATE.search(line[:MAX_LINE]) if "_gate=" in line else None
            if match:
                yield question(
                    TARGET_GATES,
                    f"{run_name(run)} counts {int(match[2]):,} uses of {match[1]}, a gate that reads "
                    "whether the token to be predicted begins a word (#1420, #2018)",
                    (Evidence(run.file, number, line.strip()[:MAX_TEXT]),),
                    "the counter at zero, or the code of the gate",
                )
                return


RULES = (TRAIN_SHARDS, TARGET_GATES)
CHECKS = (overlap, gates)
