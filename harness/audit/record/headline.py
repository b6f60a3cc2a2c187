"""Choose the score lines of the headline: for the claimed runs, the lines that score what is shipped.

The claim of submission.json selects among final score lines and among runs; it never makes an unquantised
score a headline. The last line of a log is not always the headline: #1334 prints a failed adaptation of 1.336
after the sliding window that it claims, and folders hold ablations and re-runs beside their seeds. Where no
choice agrees with the claim, each seed's line with the highest RANK counts and `confirmed` stays false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.audit.record.facts import FINAL, RANK, Chosen, Claim, Number, Run

MOST_BPB = 1.6
COARSE = 0.0025
"""The largest half unit of a claim that counts: a claim with one decimal would agree with anything."""
COMPUTED, ROUNDED = 1e-10, 5e-5
"""A claim whose half unit is below COMPUTED has more digits than any log prints: it is a mean of rounded
scores, so it is compared as if its half unit were ROUNDED."""
ALIKE_BPB = 0.03
"""Seeds of one configuration differ by less than this; ablations often differ by more."""


class Choice(NamedTuple):
    chosen: tuple[Chosen, ...]
    confirmed: bool


def agree(claimed: Number, value: float, half: float) -> bool:
    """Whether a claim is `value` rounded or truncated; `half` is half a unit of the value's last digit."""
    precision = ROUNDED if claimed.half < COMPUTED else min(claimed.half, COARSE)
    return abs(claimed.value - value) <= 2 * precision + half + 1e-9


def options(run: Run) -> dict[str, int]:
    """For each kind of score line, the index of the last one with the most digits."""
    found: dict[str, int] = {}
    for index, score in enumerate(run.scores):
        kept = found.get(score.kind)
        if kept is None or score.bpb.half <= run.scores[kept].bpb.half:
            found[score.kind] = index
    return found


def _labels(run: Run) -> dict[str, int]:
    """For each label of a final score line, without `_exact`, the index of the last line with the most
    digits; the highest RANK first.
    """
    found: dict[str, int] = {}
    for index, score in enumerate(run.scores):
        kept = found.get(score.name)
        if RANK[score.kind] >= RANK["other"] and (
            kept is None or score.bpb.half <= run.scores[kept].bpb.half
        ):
            found[score.name] = index
    return dict(sorted(found.items(), key=lambda item: -RANK[run.scores[item[1]].kind]))


def choose(runs: Sequence[Run], claim: Claim | None) -> Choice:
    """The runs and score lines of the headline."""
    if not runs:
        return Choice((), False)
    claimed = _claimed(claim) if claim else None
    by_seed = _by_stated_seed(runs, claim) if claim else ()
    if by_seed and (claimed is None or _mean_agrees(runs, by_seed, claimed)):
        return Choice(by_seed, True)
    groups = _groups(runs, claim)
    for group in groups if claimed else ():
        for candidate in (*_by_label(runs, group), _highest_rank(runs, group)):
            if claimed and candidate and _mean_agrees(runs, candidate, claimed):
                return Choice(candidate, True)
    # a single line of a log that holds several runs or settings
    for index, run in enumerate(runs) if claimed else ():
        for at, score in enumerate(run.scores):
            if (
                claimed
                and RANK[score.kind] >= RANK["other"]
                and agree(claimed, score.bpb.value, score.bpb.half)
            ):
                return Choice((Chosen(run=index, score=at),), True)
    if by_seed:
        return Choice(by_seed, False)
    chosen = _highest_rank(runs, groups[0])
    values = [runs[one.run].scores[one.score].bpb.value for one in chosen]
    return Choice(
        chosen if len(chosen) == 1 or (values and max(values) - min(values) < ALIKE_BPB) else (), False
    )


def _claimed(claim: Claim) -> Number | None:
    """The stated score; one merged file has it as its `val_loss`."""
    return claim.bpb or (claim.nats if claim.nats and claim.nats.value < MOST_BPB else None)


def _by_label(runs: Sequence[Run], group: Sequence[int]) -> list[tuple[Chosen, ...]]:
    """One choice of lines for each label that all runs of the group have, the highest RANK first."""
    labels = [_labels(runs[index]) for index in group]
    return [
        tuple(Chosen(run=index, score=own[name]) for index, own in zip(group, labels, strict=True))
        for name in labels[0]
        if all(name in own for own in labels)
    ]


def _by_stated_seed(runs: Sequence[Run], claim: Claim) -> tuple[Chosen, ...]:
    """For every seed with a stated score, the line that agrees best; nothing unless every seed has one."""
    chosen = []
    for one in claim.results:
        if one.bpb is None:
            continue
        near = [
            (abs(one.bpb.value - bpb.value), -RANK[kind], index, at)
            for index, run in enumerate(runs)
            if one.seed in (run.seed, run.named_seed)
            for kind, at in options(run).items()
            for bpb in [run.scores[at].bpb]
            if RANK[kind] > RANK["pre-quantization"] and agree(one.bpb, bpb.value, bpb.half)
        ]
        if not near:
            return ()
        _, _, index, at = min(near)
        chosen.append(Chosen(run=index, score=at))
    return tuple(chosen)


def _groups(runs: Sequence[Run], claim: Claim | None) -> list[list[int]]:
    """Sets of runs that may be the headline, the likeliest first: the stated seeds, one run a seed, all runs,
    each run alone.
    """
    final = [
        index for index, run in enumerate(runs) if any(kind in options(run) for kind in (*FINAL, "other"))
    ]
    usable = final or list(range(len(runs)))
    groups = []
    wanted = claim.seeds if claim else ()
    named = [index for seed in wanted for index in [_run_of(runs, usable, seed)] if index is not None]
    if wanted and len(named) == len(wanted):
        groups.append(named)
    seeds = list(dict.fromkeys(seed for index in usable for seed in [runs[index].seed] if seed is not None))
    one_each = [index for seed in seeds for index in [_run_of(runs, usable, seed)] if index is not None]
    if one_each:
        groups.append(one_each)
    if len({runs[index].seed for index in usable}) == len(usable) or not seeds:
        groups.append(usable)
    groups += [[index] for index in usable]
    return groups


def _run_of(runs: Sequence[Run], usable: Sequence[int], seed: int) -> int | None:
    """The run of a seed: by what its log prints, else by its name. Some merged logs were saved under another
    seed than they print.
    """
    return next(
        (index for index in usable if runs[index].seed == seed),
        next((index for index in usable if runs[index].named_seed == seed), None),
    )


def _highest_rank(runs: Sequence[Run], group: Sequence[int]) -> tuple[Chosen, ...]:
    """Each run's score line with the highest RANK."""
    chosen = []
    for index in group:
        found = options(runs[index])
        if found:
            chosen.append(Chosen(run=index, score=max(found.items(), key=lambda item: RANK[item[0]])[1]))
    return tuple(chosen)


def mean(runs: Sequence[Run], chosen: Sequence[Chosen]) -> tuple[float, float]:
    """The mean of the chosen scores in bits per byte, and half a unit of its last digit."""
    picked = [runs[one.run].scores[one.score].bpb for one in chosen]
    return math.fsum(bpb.value for bpb in picked) / len(picked), max(bpb.half for bpb in picked)


def _mean_agrees(runs: Sequence[Run], chosen: Sequence[Chosen], claimed: Number) -> bool:
    return agree(claimed, *mean(runs, chosen))
