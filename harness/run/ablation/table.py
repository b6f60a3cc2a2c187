"""Compute the table of an ablation: means with intervals, and differences to the base paired by seed.

Intervals are Student's 95 % intervals over seeds, null for one seed. A row lists its failed and unfinished
pairs; a failed pair still contributes what was measured before it failed. The intervals are not corrected for
the number of variants: of twenty 95 % intervals, one misses on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.run.ablation.pairs import PairResult
from harness.run.ablation.study import BASE, Arm
from harness.scoring import significance

FLOAT16_BYTES = 2
RATIO_IS = (
    "float16 bytes of all parameters (2 for each, counted by the contestant: a claim) divided by the bytes "
    "of the artifact"
)
STEP_IS = (
    "seconds of the judge's train clock divided by steps, so what training does after its last step is in it"
)


class Column(NamedTuple):
    """One measured quantity, and how it is shown."""

    key: str
    heading: str
    form: str
    """Format of its mean."""
    difference: str | None
    """Format of its paired difference; None if none is shown."""


COLUMNS = (
    Column("before", "bpb before packing", "{:.4f}", None),
    Column("after", "bpb after packing", "{:.4f}", "{:+.4f}"),
    Column("gap", "gap", "{:.4f}", "{:+.4f}"),
    Column("bytes", "artifact bytes", "{:,.0f}", "{:+,.0f}"),
    Column("ratio", "ratio", "{:.3f}", None),
    Column("step_seconds", "s a step", "{:.4f}", "{:+.4f}"),
)
COMPARED = tuple(column for column in COLUMNS if column.difference is not None)


def values(found: PairResult) -> dict[str, float | None]:
    """The columns of one result; null for what is unknown."""
    gap = None if found.bpb is None or found.unquantised_bpb is None else found.bpb - found.unquantised_bpb
    known = found.artifact_bytes and found.parameters is not None
    return {
        "before": found.unquantised_bpb,
        "after": found.bpb,
        "gap": gap,
        "bytes": found.artifact_bytes,
        "ratio": FLOAT16_BYTES * found.parameters / found.artifact_bytes if known else None,  # type: ignore[operator]
        "step_seconds": None if found.train_seconds is None else found.train_seconds / found.steps,
    }


def interval(numbers: Sequence[float]) -> dict[str, Any] | None:
    """Mean and 95 % interval over seeds; null for no number, without an interval for one number."""
    if not numbers:
        return None
    summary = significance.summarise(numbers)
    return {"mean": summary.mean, "ci95": summary.ci95 and list(summary.ci95), "n": len(numbers)}


def differences(variant: Mapping[int, PairResult], base: Mapping[int, PairResult], key: str) -> list[float]:
    """Variant minus base, for every seed for which both have the number."""
    pairs = [(values(variant[seed])[key], values(base[seed])[key]) for seed in variant if seed in base]
    return [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]


def rows(
    arms: Sequence[Arm], seeds: Sequence[int], results: Mapping[tuple[str, int], PairResult], cap: int
) -> list[dict[str, Any]]:
    """One row for each arm, the base first; `cap` is the edition's limit on counted bytes."""
    by_arm = {
        arm.name: {seed: results[arm.name, seed] for seed in seeds if (arm.name, seed) in results}
        for arm in arms
    }
    return [_row(arm, seeds, by_arm[arm.name], by_arm[BASE], cap) for arm in arms]


def _row(
    arm: Arm, seeds: Sequence[int], found: Mapping[int, PairResult], base: Mapping[int, PairResult], cap: int
) -> dict[str, Any]:
    measured = {
        column.key: [value for each in found.values() if (value := values(each)[column.key]) is not None]
        for column in COLUMNS
    }
    return {
        "variant": arm.name,
        "changes": None if arm.name == BASE else arm.changes,
        "scored": [seed for seed, each in found.items() if each.outcome == "scored"],
        "unfinished": [seed for seed in seeds if seed not in found],
        "failed": [
            {"seed": seed, "stage": each.stage, "message": each.message}
            for seed, each in found.items()
            if each.outcome != "scored"
        ],
        "over_cap": [seed for seed, each in found.items() if (each.counted_bytes or 0) > cap],
        "values": {key: interval(numbers) for key, numbers in measured.items()},
        "differences": None
        if arm.name == BASE
        else {column.key: interval(differences(found, base, column.key)) for column in COMPARED},
    }
