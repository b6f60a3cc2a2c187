"""Bytes per token and validation bytes, from three printed numbers: tokens, nats a token, bits per byte.

nats / (ln 2 x bits per byte) is the number of bytes per token, constant to four decimals over all merged
records of a tokenizer; times the validation tokens it is the number of bytes of the validation text, whatever
the tokenizer: 151.07 to 151.09 million for the 50,000 documents. All by interval arithmetic on the printed
digits, so that four decimals accuse nobody (#586 reads 151.0901e6). Offenders: GDN 177.8e6 (#1687), Scylla
182.8e6 (#1184), sentinels 164.6e6 (#2071; the logs of #1771). Not covered: an error that scales tokens and
bytes alike."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.ask import (
    Texts,
    asked,
    bytes_per_token,
    on_record_track,
    passed,
    places,
    shown,
    unknown,
)
from harness.audit.record.facts import Number, Record, Run, Score

FULL = (151.07e6, 151.09e6)
MIDDLE = 151.08e6
OTHER_SETS = (
    ("the set of the launch day", 155.70e6, 155.84e6),
    ("the first 10,000 documents", 29.5e6, 30.5e6),
)
TOKENIZERS = (
    ("SP1024", 2.4359),
    ("SP1024 on the launch day's set", 2.4423),
    ("SP4096", 3.3195),
    ("SP8192", 3.7266),
    ("SP8192 with CaseOps", 3.1572),
    ("bytes", 1.0),
)
SIGNATURES = (
    ("the leading space counted twice over SP8192 (#1719)", 4.3864),
    ("counting the sentinels of CaseOps as bytes (the logs of #1771)", 3.4397),
)
STANDARD = {1024: "2.4359", 4096: "3.3195", 8192: "3.7266 (3.1572 with CaseOps)"}
TOKENS = (
    ("SP1024", 1024, 61.95e6, 62.03e6),
    ("SP4096", 4096, 45.48e6, 45.53e6),
    ("SP8192", 8192, 40.50e6, 40.56e6),
    ("SP8192 with CaseOps", 8192, 47.80e6, 47.86e6),
)
"""Vocabulary and token counts of the whole set, with what truncation to a multiple of the sequence length may
drop."""
SLACK = 0.0005
"""Relative: scored sets end at multiples of the sequence length, so ratios differ a little beyond their
digits."""
CUT = 0.002
"""What a last sequence that is not full may leave out: 24,576 tokens of #914, which reads 32,768 at once."""
PARTIAL = 0.075
"""A part of the set may differ in bytes per token by this share (unofficial runs that score a sample: up to
5.4 %)."""
VAGUE = 0.01
"""Relative width: with so few digits one set cannot be told from another."""
FLOOR_BPB = 0.70
"""Reviewers' rule of thumb."""
DECODED = "the bytes of the text counted by decoding the tokens, and the score computed with them"
Interval = tuple[float, float]


def validation_bytes(record: Record, texts: Texts) -> Iterator[Finding]:
    """Tokens x bytes per token against the bytes of the validation text; of headline runs that read alike the
    first is told."""
    told = set()
    for run, score in record.chosen():
        ratio = bytes_per_token(score)
        if ratio is None or run.val_tokens is None:
            missing = "validation tokens" if ratio else "nats"
            yield unknown("validation-bytes", f"{shown(run)} prints no {missing}", "a log that prints them")
            return
        found = _set_of(record, texts, run, score, ratio, run.val_tokens)
        if found.outcome not in told:
            told.add(found.outcome)
            yield found
    if not record.headline:
        yield unknown("validation-bytes", "no log shows the headline score", "the log")


def _set_of(record: Record, texts: Texts, run: Run, score: Score, ratio: Interval, tokens: Number) -> Finding:
    low, high = ratio[0] * tokens.value, ratio[1] * tokens.value
    where = places(texts, tokens, score.bpb)
    if high > low * (1 + VAGUE):
        return unknown(
            "validation-bytes",
            f"{shown(run)}: its digits allow {low / 1e6:.1f} to {high / 1e6:.1f} million bytes",
            "more digits",
            where,
        )
    numbers = (
        f"{shown(run)}: {tokens.value:,.0f} tokens x {_middle(ratio):.4f} bytes a token = "
        f"{(low + high) / 2e6:.3f} million bytes"
    )
    if low <= FULL[1] and high >= FULL[0]:
        reader = _tokenizer(ratio) or "a tokenizer of its own"
        return passed("validation-bytes", f"{numbers}, the whole set, read by {reader}", where)
    everywhere = (
        _everywhere(run, ratio)
        and on_record_track(record, texts)
        and not _stated_over_the_whole(record, tokens)
    )
    other = next((name for name, least, most in OTHER_SETS if low <= most and high >= least), None)
    if other:
        return asked(
            "validation-bytes",
            f"{numbers}: {other}, not the {MIDDLE / 1e6} million of the whole set",
            where,
            "the score over all 50,000 documents",
            proved="10,000" in other and everywhere,
        )
    same = next(
        (
            name
            for name, vocabulary, least, most in TOKENS
            if least <= tokens.value <= most
            and (run.vocabulary.value == vocabulary if run.vocabulary else _signature(ratio))
        ),
        None,
    )
    off = (low + high) / 2 / MIDDLE - 1
    if same and abs(off) < CUT and _tokenizer(ratio) == same:
        return passed(
            "validation-bytes", f"{numbers}, the whole set but for a cut of its end, read by {same}", where
        )
    why = f"; as many tokens as {same} makes of the whole set" if same else ""
    return asked(
        "validation-bytes",
        f"{numbers}, {off:+.2%} beside the {MIDDLE / 1e6} million of the whole set{why}",
        where,
        DECODED,
        proved=bool(same) and abs(off) > PARTIAL and score.kind != "mixture" and everywhere,
    )


def _stated_over_the_whole(record: Record, tokens: Number) -> bool:
    """Whether bits and nats of all that is claimed belong to the whole set: then only the log is off
    (#1771)."""
    whole = [(claim.nats, claim.bpb) for claim in record.claims]
    seeds = [(one.nats, one.bpb) for claim in record.claims for one in claim.results]
    stated = [
        bytes_per_token(Score(kind="other", label="", nats=nats, bpb=bpb))
        for nats, bpb in whole + seeds
        if bpb
    ]
    ratios = [ratio for ratio in stated if ratio]
    return bool(ratios) and all(
        low * tokens.value <= FULL[1] and high * tokens.value >= FULL[0] for low, high in ratios
    )


def _signature(ratio: Interval) -> str | None:
    """The known fault that makes this ratio."""
    return next((name for name, known in SIGNATURES if _meet(ratio, (known, known))), None)


def fingerprint(record: Record, texts: Texts) -> Iterator[Finding]:
    """Bytes per token against known tokenizers, sets and faults, by the first headline line, else by
    submission.json."""
    for run, score in record.chosen()[:1]:
        ratio = bytes_per_token(score)
        if ratio and ratio[1] < ratio[0] * (1 + VAGUE):
            yield _by_line(texts, run, score, ratio)
            return
    claim = record.claim()
    stated = Score(kind="other", label="", nats=claim.nats, bpb=claim.bpb) if claim and claim.bpb else None
    ratio = bytes_per_token(stated) if stated else None
    fault = _signature(ratio) if ratio and ratio[1] < ratio[0] * (1 + VAGUE) else None
    if claim and ratio and fault:  # of other ratios nothing is said: the two numbers may be of two lines
        yield asked(
            "bytes-per-token",
            f"{claim.file} states {_middle(ratio):.4f} bytes a token, what {fault} gives",
            places(texts, claim.nats, claim.bpb),
            DECODED,
        )
    else:
        yield unknown(
            "bytes-per-token", "no headline line has nats and digits enough", "a log that prints them"
        )


def _by_line(texts: Texts, run: Run, score: Score, ratio: Interval) -> Finding:
    where = places(texts, score.bpb, run.vocabulary)
    standard = STANDARD.get(int(run.vocabulary.value)) if run.vocabulary and run.val_tokens is None else None
    known, fault = _tokenizer(ratio), _signature(ratio)
    said = f"{shown(run)}: {_middle(ratio):.4f} bytes a token"
    if known:
        return passed("bytes-per-token", f"{said}, as {known}", where)
    if fault:
        return asked("bytes-per-token", f"{said}, what {fault} gives", where, DECODED)
    if standard and run.vocabulary and score.kind != "mixture":
        return asked(
            "bytes-per-token",
            f"{said}, where the standard tokenizer of {run.vocabulary.value:,.0f} has {standard}",
            where,
            DECODED,
        )
    return unknown("bytes-per-token", f"{said}, of no tokenizer and set known here", DECODED, where)


def one_ratio(record: Record, texts: Texts) -> Iterator[Finding]:
    """All score lines of the headline runs belong to one text, so their nats and bits per byte have one
    ratio."""
    lines = [
        (run, score, ratio)
        for index in dict.fromkeys(one.run for one in record.headline)
        for run in [record.runs[index]]
        for score in run.scores
        for ratio in [bytes_per_token(score)]
        if ratio
    ]
    heads = [line for line in lines if any(line[1] is score for _, score in record.chosen())]
    if not heads:
        yield unknown(
            "nats-and-bytes", "no headline line prints nats beside bits per byte", "a log that prints them"
        )
        return
    for run, score, ratio in heads:
        other = next((line for line in lines if not _meet(ratio, line[2])), None)
        if other:
            yield asked(
                "nats-and-bytes",
                f"bytes per token is {_middle(ratio):.4f} by `{score.label}` of {shown(run)} and "
                f"{_middle(other[2]):.4f} by `{other[1].label}` of {shown(other[0])}: further apart than "
                "their digits, "
                "and one text has one",
                places(texts, score.bpb, other[1].bpb),
                "how each of the two was computed",
            )
            return
    ratio = heads[0][2]
    yield passed(
        "nats-and-bytes",
        f"{len(lines)} lines with nats and bits per byte have one ratio, {_middle(ratio):.4f}",
    )


def floor(record: Record, texts: Texts) -> Iterator[Finding]:
    """Scores below what reviewers take on trust."""
    bpb, chosen, claim = record.headline_bpb, record.chosen(), record.claim()
    if bpb is not None and bpb < FLOOR_BPB:
        fact = chosen[0][1].bpb if chosen else claim.bpb if claim else record.readme_bpb
        yield asked(
            "score-floor",
            f"{bpb:.4g} bits per byte: below {FLOOR_BPB:.2f} reviewers ask how",
            places(texts, fact),
            "the scores of single tokens, and the sum of each distribution",
        )


def _tokenizer(ratio: Interval) -> str | None:
    return next((name for name, known in TOKENIZERS if _meet(ratio, (known, known))), None)


def _everywhere(run: Run, ratio: Interval) -> bool:
    """Whether lines of at least two kinds have this ratio and none has another: one line alone may be
    misprinted."""
    ratios = [(score.kind, found) for score in run.scores for found in [bytes_per_token(score)] if found]
    return len({kind for kind, _ in ratios}) > 1 and all(_meet(ratio, found) for _, found in ratios)


def _meet(first: Interval, second: Interval) -> bool:
    return first[0] <= second[1] * (1 + SLACK) and second[0] <= first[1] * (1 + SLACK)


def _middle(ratio: Interval) -> float:
    return math.fsum(ratio) / 2
