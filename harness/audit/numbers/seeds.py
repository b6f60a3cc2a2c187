"""Seeds: the headline is their mean and not the best, they are distinct, and each log is of the seed that its
name tells.

Best-of-seeds headlines stand in a dozen public folders (#64, #194, #1981). The official rules forbid choosing
seeds by brute force and ask for an average; early merged records state their first run. Not covered: seeds
that were run and not published."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import Texts, asked, many, passed, places, unknown
from harness.audit.record.facts import Number, Record
from harness.audit.record.headline import ALIKE_BPB, agree, options
from harness.audit.record.logs import seed_in_name

FEW = 9
"""Up to here a number in a file's name may count the seeds: seed1, seed2, seed3."""


def by_seed(record: Record) -> dict[int, Number]:
    """Each seed's score in the kind of the headline: from the logs where they say what is claimed, else from
    submission*.json."""
    claim, chosen = record.claim(), record.chosen()
    kinds = {score.kind for _, score in chosen}
    found = {run.seed: score.bpb for run, score in chosen if run.seed is not None}
    for run in record.runs if len(kinds) == 1 else ():
        at = options(run).get(next(iter(kinds)))
        if run.seed is not None and at is not None:
            found.setdefault(run.seed, run.scores[at].bpb)
    middle = chosen[0][1].bpb.value if chosen else 0.0
    found = {seed: bpb for seed, bpb in found.items() if abs(bpb.value - middle) < ALIKE_BPB}
    stated = {
        one.seed: one.bpb for one in (claim.results if claim else ()) if one.seed is not None and one.bpb
    }
    unsaid = (
        not record.confirmed and len(stated) > 1
    )  # the lines chosen are another score than the claim: #1881, #511
    return stated if unsaid or len(stated) > len(found) else found


def mean_or_best(record: Record, texts: Texts) -> Iterator[Finding]:
    """Whether submission.json states the mean of its seeds or the best of them."""
    claim, scores = record.claim(), by_seed(record)
    if claim is None or claim.bpb is None or len(scores) < 2:
        yield unknown(
            "headline-mean",
            "fewer than two seeds with a score, or no stated score",
            "the scores of all seeds",
        )
        return
    mean = math.fsum(bpb.value for bpb in scores.values()) / len(scores)
    best = min(scores.values(), key=lambda bpb: bpb.value)
    stated, where = claim.bpb, many(texts, (claim.bpb, *scores.values()))
    if agree(stated, mean, best.half):
        yield passed(
            "headline-mean", f"{stated.value} is the mean of {len(scores)} seeds", places(texts, stated)
        )
    elif agree(stated, best.value, best.half):
        yield asked(
            "headline-mean",
            f"{stated.value} is the best of {len(scores)} seeds, whose mean is {mean:.5f}",
            where,
            "the mean as the headline, or word that the seed was fixed beforehand",
        )
    else:
        one = any(agree(stated, bpb.value, bpb.half) for bpb in scores.values())
        what = "one seed's score, and not the best" if one else "no mean of the seeds read"
        yield unknown(
            "headline-mean",
            f"{stated.value} is {what}; the mean of {len(scores)} is {mean:.5f}",
            "which seeds make the headline",
            where,
        )


def one_log_twice(record: Record, texts: Texts) -> Iterator[Finding]:
    """One log under two seeds' names is one run."""
    for copy, kept in record.copies:
        first, second = seed_in_name(copy), seed_in_name(kept)
        if first is not None and second is not None and first != second:
            yield asked(
                "one-log-two-seeds",
                f"{copy} and {kept} are one file byte for byte, under two seeds' names",
                (Evidence(copy, None, ""), Evidence(kept, None, "")),
                "the log of the other seed",
            )


def mislabelled(record: Record, texts: Texts) -> Iterator[Finding]:
    """A log that prints another seed than its name tells."""
    claim = record.claim()
    stated = claim.seeds if claim else ()
    for run in record.runs:
        named, logged = run.named_seed, run.logged_seed
        if (
            named is None
            or logged is None
            or logged.value == named
            or "seed" not in run.file.rsplit("/", 1)[-1].lower()
        ):
            continue
        if named > FEW or named in stated:
            yield asked(
                "seed-of-log",
                f"{run.file} prints the seed {logged.value:.0f}",
                places(texts, logged),
                "the log of the seed that its name tells, or the other name",
            )
