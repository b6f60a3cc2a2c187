"""Measure how much the audit reads of public folders, and what its rules on numbers find there.

    python -m harness.audit.corpus.measure DIR...

A fact counts as read where a log states it for the headline run, and as agreeing where the folder's own JSON
states the same. Folders are those that `pgolf audit` finds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.audit import folder as folder_files, record
from harness.audit.numbers import number_findings
from harness.audit.record.facts import Number, Record

FACTS = ("headline", "counted bytes", "train time", "eval time", "steps", "seeds")


def reading(read: Record) -> dict[str, tuple[bool, bool | None]]:
    """For each fact, whether a log states it, and whether the JSON agrees (None: it does not state it)."""
    claim, chosen = read.claim(), read.chosen()
    runs = [run for run, _ in chosen]
    by_seed = {one.seed: one for one in claim.results} if claim else {}

    def fact(name: str, slack: float) -> tuple[bool, bool | None]:
        logged: list[Number] = [
            found
            for found in (
                read.eval_seconds() if name == "eval_seconds" else [getattr(run, name) for run in runs]
            )
            if found
        ]
        stated = [found for found in [getattr(claim, name, None)] if found] if claim else []
        stated += [found for one in by_seed.values() for found in [getattr(one, name)] if found]
        agree = any(abs(one.value - other.value) <= slack + one.half for one in stated for other in logged)
        return bool(logged), agree if stated and logged else None

    seeds = {run.seed for run in read.runs if run.seed is not None}
    stated_seeds = set(claim.seeds) if claim else set()
    return {
        "headline": (bool(chosen), read.confirmed if chosen and claim and claim.bpb else None),
        "counted bytes": fact("counted_bytes", 1.0),
        "train time": fact("train_seconds", 1.0),
        "eval time": fact("eval_seconds", 1.0),
        "steps": fact("steps", 1.0),
        "seeds": (bool(seeds), stated_seeds <= seeds if stated_seeds and seeds else None),
    }


def tables(folders: Sequence[Path]) -> str:
    """The table of readings and the table of findings, in Markdown."""
    read: Counter[str] = Counter()
    agree: Counter[tuple[str, bool]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    with_logs = 0
    for folder in folders:
        texts = folder_files.read(folder).texts
        facts = record.read(folder.as_posix(), texts)
        with_logs += bool(facts.runs)
        for name, (was_read, agreed) in reading(facts).items():
            read[name] += was_read
            if agreed is not None:
                agree[name, agreed] += 1
        for finding in {(one.rule, one.outcome) for one in number_findings(facts, texts)}:
            found[finding] += 1
    lines = [
        f"{len(folders)} folders, {with_logs} with a log",
        "",
        "| fact | read | stated too | agree |",
        "|---|---|---|---|",
    ]
    for name in FACTS:
        both = agree[name, True] + agree[name, False]
        lines.append(f"| {name} | {read[name]} | {both} | {agree[name, True]} |")
    lines += ["", "| rule | fail | question | unknown | pass |", "|---|---|---|---|---|"]
    for rule in sorted({rule for rule, _ in found}):
        lines.append(
            f"| {rule} | "
            + " | ".join(str(found[rule, outcome]) for outcome in ("fail", "question", "unknown", "pass"))
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables([folder for path in sys.argv[1:] for folder in folder_files.folders(Path(path))]))
