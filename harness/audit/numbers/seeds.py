"""Seeds: the headline is their mean and not the best, they are distinct, and each log is of the seed that its name tells.

Best-of-seeds headlines were found in a dozen public folders (#64, #194, #1981). The official rules forbid choosing seeds by brute force and
ask for an average; early merged records state their first run. Not covered: seeds that were run and not published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import Texts, places
from harness.audit.record.facts import Number, Record
from harness.audit.record.headline import ALIKE_BPB, agree, options
from harness.audit.record.logs import seed_in_name


def by_seed(record: Record) -> dict[int, Number]:
    """Each seed's score in the kind of the headline: from the logs, else from submission*.json."""
    claim = record.claim()
    kinds = {score.kind for _, score in record.chosen()}
    found: dict[int, Number] = {run.seed: score.bpb for run, score in record.chosen() if run.seed is not None}
    for run in record.runs:
        if run.seed is not None and run.seed not in found and len(kinds) == 1:
            at = options(run).get(next(iter(kinds)))
            if at is not None:
                found[run.seed] = run.scores[at].bpb
    if found:
        middle = next(iter(found.values())).value
        found = {seed: bpb for seed, bpb in found.items() if abs(bpb.value - middle) < ALIKE_BPB}
    stated = {one.seed: one.bpb for one in (claim.results if claim else ()) if one.seed is not None and one.bpb}
    return stated if len(stated) > len(found) else found


def best_of(record: Record, texts: Texts) -> Iterator[Finding]:
    """Whether submission.json states the mean of its seeds or the best of them."""
    claim, scores = record.claim(), by_seed(record)
    if claim is None or claim.bpb is None or len(scores) < 2:
        yield Finding("headline-mean", None, "unknown", "fewer than two seeds with a score, or no stated score", (), "the scores of all seeds")
        return
    values = [bpb.value for bpb in scores.values()]
    mean, half = math.fsum(values) / len(values), max(bpb.half for bpb in scores.values())
    best = min(scores.values(), key=lambda bpb: bpb.value)
    if agree(claim.bpb, mean, half):
        yield Finding("headline-mean", None, "pass", f"{claim.bpb.value} is the mean of {len(scores)} seeds", places(texts, (claim.bpb,)))
    elif agree(claim.bpb, best.value, best.half):
        yield Finding("headline-mean", None, "question", f"{claim.bpb.value} is the best of {len(scores)} seeds, whose mean is {mean:.5f}",
                      places(texts, (claim.bpb, *scores.values())), "the mean as the headline, or the seed that was fixed beforehand")
    else:
        one = any(agree(claim.bpb, bpb.value, bpb.half) for bpb in scores.values())
        yield Finding("headline-mean", None, "unknown", f"{claim.bpb.value} is " + ("one seed's score, not the best" if one else "no mean of the seeds read")
                      + f"; the mean of {len(scores)} is {mean:.5f}", places(texts, (claim.bpb,)), "which seeds make the headline")


def distinct(record: Record, texts: Texts) -> Iterator[Finding]:
    """One log under two seeds' names is one run."""
    for copy, kept in record.copies:
        first, second = seed_in_name(copy), seed_in_name(kept)
        if first is not None and second is not None and first != second:
            yield Finding("one-run-two-seeds", None, "question", f"{copy} and {kept} are the same file byte for byte, under two seeds' names",
                          (Evidence(copy, None, ""), Evidence(kept, None, "")), "the log of the other seed")


def mislabelled(record: Record, texts: Texts) -> Iterator[Finding]:
    """A headline log that prints another seed than its name tells."""
    claim = record.claim()
    stated = claim.seeds if claim else ()
    for run in record.runs:
        if run.logged_seed and run.named_seed is not None and run.logged_seed.value != run.named_seed \
                and "seed" in run.file.lower() and (run.named_seed > 9 or run.named_seed in stated):  # seed1, seed2, ... may be a count
            yield Finding("seed-of-log", None, "question", f"{run.file} prints the seed {run.logged_seed.value:.0f}",
                          places(texts, (run.logged_seed,)), "the log of the seed that its name tells, or the other name")
