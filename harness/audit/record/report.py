"""The seeds of a record as `pgolf audit --json` prints them: null where the folder lacks a fact."""

from __future__ import annotations

from typing import Any

from harness.audit.record.facts import Number, Record, Run, Score, Stated
from harness.audit.record.headline import ALIKE_BPB, options


def seeds(record: Record) -> list[dict[str, Any]]:
    """One object a seed: the headline's seeds, then others that were run and scored in the same way, then
    those in the JSON only.
    """
    claim = record.claim()
    stated = {one.seed: one for one in (claim.results if claim else ())}
    lines = record.chosen() + _others(record)
    times = [
        *record.eval_seconds(),
        *(run.eval_seconds or score.seconds for run, score in lines[len(record.headline) :]),
    ]
    rows = [
        _row(_label(run, stated), run, score, stated.get(_label(run, stated)), time)
        for (run, score), time in zip(lines, times, strict=True)
    ]
    known = {row["seed"] for row in rows}
    return rows + [_row(seed, None, None, one, None) for seed, one in stated.items() if seed not in known]


def _label(run: Run, stated: dict[int | None, Stated]) -> int | None:
    """The seed of a run; where its name and its log differ, the claimed one."""
    return run.named_seed if run.named_seed in stated and run.seed not in stated else run.seed


def _others(record: Record) -> list[tuple[Run, Score]]:
    chosen = record.chosen()
    kinds = {score.kind for _, score in chosen}
    taken = {run.seed for run, _ in chosen}
    found = []
    for run in record.runs if len(kinds) == 1 else ():
        at = options(run).get(next(iter(kinds)))
        if run.seed is None or run.seed in taken or at is None:
            continue
        first, score = chosen[0], run.scores[at]
        if abs(score.bpb.value - first[1].bpb.value) < ALIKE_BPB and _same(
            run.parameters, first[0].parameters
        ):
            taken.add(run.seed)
            found.append((run, score))
    return found


def _same(first: Number | None, second: Number | None) -> bool:
    return (first.value if first else None) == (second.value if second else None)


def _row(
    seed: int | None, run: Run | None, score: Score | None, stated: Stated | None, time: Number | None
) -> dict[str, Any]:
    def pick(*found: Number | None) -> float | None:
        return next((number.value for number in found if number), None)

    def count(*found: Number | None) -> int | None:
        value = pick(*found)
        return None if value is None else round(value)

    return {
        "seed": seed,
        "bpb": pick(score.bpb if score else None, stated.bpb if stated else None),
        "nats_per_token": pick(score.nats if score else None, stated.nats if stated else None),
        "model_bytes": count(run.model_bytes if run else None),
        "code_bytes": count(run.code_bytes if run else None),
        "counted_bytes": count(run.counted_bytes if run else None, stated.counted_bytes if stated else None),
        "train_seconds": pick(run.train_seconds if run else None, stated.train_seconds if stated else None),
        "eval_seconds": pick(time, stated.eval_seconds if stated else None),
        "steps": count(run.steps if run else None, stated.steps if stated else None),
    }
