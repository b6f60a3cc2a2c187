"""Check seeds: the headline is their mean and not the best, and each log is of the seed in its name.

A dozen public folders take their best seed as headline (#64, #194, #1981). The official rules forbid choosing
seeds by brute force and ask for an average; early merged records state their first run. Seeds that were run
and not published cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.findings import MAX_LINES, Texts, passed, question, quote, unknown
from harness.audit.record.facts import Number, Record
from harness.audit.record.headline import ALIKE_BPB, agree, options
from harness.audit.record.logs import seed_in_name
from harness.verdict.rule_info import RuleInfo

FEW = 9
"""Numbers up to this one in a file's name may count the files (seed1, seed2) and not be seeds."""


def by_seed(record: Record) -> dict[int, Number]:
    """Each seed's score, of the same kind as the headline.

    From the logs where they confirm the claim, else from submission*.json.
    """
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
    # where no log states the claim, the chosen lines are of another score: #1881, #511
    unconfirmed = not record.confirmed and len(stated) > 1
    return stated if unconfirmed or len(stated) > len(found) else found


HEADLINE_MEAN = RuleInfo(
    id="headline-mean",
    title="The headline is the best seed",
    condition=None,
    source="README R5, R10, #2124",
    checks="the stated score against the mean and the best of the seeds that logs or JSON give",
    example="#1981: the headline is the smallest score of its seeds, not their mean",
    not_covered="whether the seed was fixed beforehand; early merged records state their first run, so it "
    "is a question",
)


def mean_or_best(record: Record, texts: Texts) -> Iterator[Finding]:
    """Check whether submission.json states the mean of its seeds or the best of them."""
    claim, scores = record.claim(), by_seed(record)
    if claim is None or claim.bpb is None or len(scores) < 2:
        yield unknown(
            HEADLINE_MEAN, "fewer than two seeds with a score, or no stated score", "the scores of all seeds"
        )
        return
    mean = math.fsum(bpb.value for bpb in scores.values()) / len(scores)
    best = min(scores.values(), key=lambda bpb: bpb.value)
    stated, evidence = claim.bpb, quote(texts, claim.bpb, *scores.values())[:MAX_LINES]
    if agree(stated, mean, best.half):
        yield passed(
            HEADLINE_MEAN, f"{stated.value} is the mean of {len(scores)} seeds", quote(texts, stated)
        )
    elif agree(stated, best.value, best.half):
        yield question(
            HEADLINE_MEAN,
            f"{stated.value} is the best of {len(scores)} seeds, whose mean is {mean:.5f}",
            evidence,
            "the mean as the headline, or word that the seed was fixed beforehand",
        )
    else:
        one = any(agree(stated, bpb.value, bpb.half) for bpb in scores.values())
        what = "one seed's score, and not the best" if one else "no mean of the seeds read"
        yield unknown(
            HEADLINE_MEAN,
            f"{stated.value} is {what}; the mean of {len(scores)} is {mean:.5f}",
            "which seeds make the headline",
            evidence,
        )


ONE_LOG_TWO_SEEDS = RuleInfo(
    id="one-log-two-seeds",
    title="One log is filed under two seeds",
    condition=None,
    source="README R5",
    checks="logs equal byte for byte",
    example="train_seed10.log and train_seed20.log with the same content",
    not_covered="logs that differ by a character; independent-runs checks those",
)


def one_log_twice(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find one log under two seeds' names, which is one run."""
    for copy, kept in record.copies:
        first, second = seed_in_name(copy), seed_in_name(kept)
        if first is not None and second is not None and first != second:
            yield question(
                ONE_LOG_TWO_SEEDS,
                f"{copy} and {kept} are one file byte for byte, under two seeds' names",
                (Evidence(copy, None, ""), Evidence(kept, None, "")),
                "the log of the other seed",
            )


SEED_OF_LOG = RuleInfo(
    id="seed-of-log",
    title="A log prints another seed than its name",
    condition=None,
    source="README R5",
    checks="the seed line against the file's name",
    example="train_seed0.log prints 1337",
    not_covered="names with numbers up to 9, which may number the files",
)


def mislabelled(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find logs that print another seed than their names."""
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
            yield question(
                SEED_OF_LOG,
                f"{run.file} prints the seed {logged.value:.0f}",
                quote(texts, logged),
                "the log of the seed that its name tells, or the other name",
            )


RULES = (HEADLINE_MEAN, ONE_LOG_TWO_SEEDS, SEED_OF_LOG)
CHECKS = (mean_or_best, one_log_twice, mislabelled)
