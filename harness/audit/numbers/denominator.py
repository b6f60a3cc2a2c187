"""Check bytes per token and validation bytes from three printed numbers: tokens, nats a token, bits per byte.

nats / (ln 2 x bits per byte) is the number of bytes per token, constant to four decimals over all merged
records of a tokenizer. Multiplied by the validation tokens it is the number of bytes of the validation text,
whatever the tokenizer: 151.07 to 151.09 million for the 50,000 documents. All checks use interval arithmetic
on the printed digits, so that rounding to four decimals accuses nobody (#586 reads 151.0901e6). Known faults:
GDN 177.8e6 (#1687), Scylla 182.8e6 (#1184), sentinels 164.6e6 (#2071; the logs of #1771).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.findings import (
    Texts,
    bytes_per_token,
    on_record_track,
    passed,
    question,
    quote,
    run_name,
    unknown,
)
from harness.audit.record.facts import Number, Record, Run, Score
from harness.verdict.rule_info import RuleInfo

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
"""Vocabulary and the range of token counts of the whole set: truncation to a multiple of the sequence length
drops some."""
SLACK = 0.0005
"""Relative tolerance: scored sets end at multiples of the sequence length, so ratios differ slightly beyond
their digits."""
CUT = 0.002
"""Relative: what leaving out a partial last sequence may drop, such as 24,576 tokens in #914, which reads
32,768 at once."""
PARTIAL = 0.075
"""Relative: a part of the set may differ this much in bytes per token (unofficial runs that score a sample:
up to 5.4 %)."""
VAGUE = 0.01
"""Relative width of an interval that is too wide to tell one set from another."""
FLOOR_BPB = 0.70
"""Reviewers' rule of thumb."""
DECODED = "the bytes of the text counted by decoding the tokens, and the score computed with them"
Interval = tuple[float, float]


VALIDATION_BYTES = RuleInfo(
    id="validation-bytes",
    title="The text that was scored is not the whole validation set",
    condition=None,
    source="README R13, #1017 V, #1719",
    checks="validation tokens x nats / (ln 2 x bits per byte) of the headline line, as an interval of its "
    "printed digits, against 151.07 to 151.09 million bytes; other known sets are named",
    example="#1687: 40,540,160 tokens x 4.3864 = 177.8 million bytes",
    not_covered="an error that scales tokens and bytes alike; `fail` only on the record track where all "
    "lines of the run agree: for the first 10,000 documents, or with a known tokenizer's token count and "
    "more than 7.5 % off",
)


def validation_bytes(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare tokens x bytes per token with the bytes of the validation text; one finding an outcome."""
    reported = set()
    for run, score in record.chosen():
        ratio = bytes_per_token(score)
        if ratio is None or run.val_tokens is None:
            missing = "validation tokens" if ratio else "nats"
            yield unknown(VALIDATION_BYTES, f"{run_name(run)} prints no {missing}", "a log that prints them")
            return
        found = _compare_bytes(record, texts, run, score, ratio, run.val_tokens)
        if found.outcome not in reported:
            reported.add(found.outcome)
            yield found
    if not record.headline:
        yield unknown(VALIDATION_BYTES, "no log shows the headline score", "the log")


def _compare_bytes(
    record: Record, texts: Texts, run: Run, score: Score, ratio: Interval, tokens: Number
) -> Finding:
    low, high = ratio[0] * tokens.value, ratio[1] * tokens.value
    evidence = quote(texts, tokens, score.bpb)
    if high > low * (1 + VAGUE):
        return unknown(
            VALIDATION_BYTES,
            f"{run_name(run)}: its digits allow {low / 1e6:.1f} to {high / 1e6:.1f} million bytes",
            "more digits",
            evidence,
        )
    numbers = (
        f"{run_name(run)}: {tokens.value:,.0f} tokens x {_middle(ratio):.4f} bytes a token = "
        f"{(low + high) / 2e6:.3f} million bytes"
    )
    if low <= FULL[1] and high >= FULL[0]:
        reader = _tokenizer(ratio) or "a tokenizer of its own"
        return passed(VALIDATION_BYTES, f"{numbers}, the whole set, read by {reader}", evidence)
    all_agree = (
        _all_lines_agree(run, ratio)
        and on_record_track(record, texts)
        and not _stated_over_the_whole(record, tokens)
    )
    other = next((name for name, least, most in OTHER_SETS if low <= most and high >= least), None)
    if other:
        return question(
            VALIDATION_BYTES,
            f"{numbers}: {other}, not the {MIDDLE / 1e6} million of the whole set",
            evidence,
            "the score over all 50,000 documents",
            proved="10,000" in other and all_agree,
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
    excess = (low + high) / 2 / MIDDLE - 1
    if same and abs(excess) < CUT and _tokenizer(ratio) == same:
        return passed(
            VALIDATION_BYTES, f"{numbers}, the whole set but for a cut of its end, read by {same}", evidence
        )
    note = f"; as many tokens as {same} makes of the whole set" if same else ""
    return question(
        VALIDATION_BYTES,
        f"{numbers}, {excess:+.2%} beside the {MIDDLE / 1e6} million of the whole set{note}",
        evidence,
        DECODED,
        proved=bool(same) and abs(excess) > PARTIAL and score.kind != "mixture" and all_agree,
    )


def _stated_over_the_whole(record: Record, tokens: Number) -> bool:
    """Whether all claimed pairs of bits and nats fit the whole set: then only the log is wrong (#1771)."""
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
    """The known fault that gives this ratio, or None."""
    return next((name for name, known in SIGNATURES if _overlap(ratio, (known, known))), None)


BYTES_PER_TOKEN = RuleInfo(
    id="bytes-per-token",
    title="Bytes per token are those of no known tokenizer",
    condition=None,
    source="#1017 V, README R6",
    checks="nats / (ln 2 x bits per byte) against the known tokenizers; a question where a known fault gives "
    "this ratio, or where the vocabulary has a standard size and no token count is printed",
    example="#1698: 4.3864, what the leading space counted twice gives over SP8192",
    not_covered="honest tokenizers that are unknown here",
)


def fingerprint(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare bytes per token with known tokenizers and faults.

    Those of the first headline line, else those of submission.json.
    """
    for run, score in record.chosen()[:1]:
        ratio = bytes_per_token(score)
        if ratio and ratio[1] < ratio[0] * (1 + VAGUE):
            yield _by_line(texts, run, score, ratio)
            return
    claim = record.claim()
    stated = Score(kind="other", label="", nats=claim.nats, bpb=claim.bpb) if claim and claim.bpb else None
    ratio = bytes_per_token(stated) if stated else None
    fault = _signature(ratio) if ratio and ratio[1] < ratio[0] * (1 + VAGUE) else None
    if claim and ratio and fault:  # the two numbers may be of two lines, so other ratios tell nothing
        yield question(
            BYTES_PER_TOKEN,
            f"{claim.file} states {_middle(ratio):.4f} bytes a token, what {fault} gives",
            quote(texts, claim.nats, claim.bpb),
            DECODED,
        )
    else:
        yield unknown(
            BYTES_PER_TOKEN, "no headline line has nats and digits enough", "a log that prints them"
        )


def _by_line(texts: Texts, run: Run, score: Score, ratio: Interval) -> Finding:
    evidence = quote(texts, score.bpb, run.vocabulary)
    standard = STANDARD.get(int(run.vocabulary.value)) if run.vocabulary and run.val_tokens is None else None
    known, fault = _tokenizer(ratio), _signature(ratio)
    message = f"{run_name(run)}: {_middle(ratio):.4f} bytes a token"
    if known:
        return passed(BYTES_PER_TOKEN, f"{message}, as {known}", evidence)
    if fault:
        return question(BYTES_PER_TOKEN, f"{message}, what {fault} gives", evidence, DECODED)
    if standard and run.vocabulary and score.kind != "mixture":
        return question(
            BYTES_PER_TOKEN,
            f"{message}, where the standard tokenizer of {run.vocabulary.value:,.0f} has {standard}",
            evidence,
            DECODED,
        )
    return unknown(BYTES_PER_TOKEN, f"{message}, of no tokenizer and set known here", DECODED, evidence)


NATS_AND_BYTES = RuleInfo(
    id="nats-and-bytes",
    title="Nats and bits per byte of two lines do not belong to one text",
    condition=None,
    source="#1017 V, #1732",
    checks="the ratio of all lines of the headline runs, beyond their digits and 0.05 %",
    example="#1732: 3.7286 and 3.7237 bytes a token in one log",
    not_covered="lines over different parts of the set, which differ honestly: so it is a question",
)


def one_ratio(record: Record, texts: Texts) -> Iterator[Finding]:
    """Check that all score lines of the headline runs have the same ratio of nats to bits per byte."""
    lines = [
        (run, score, ratio)
        for index in dict.fromkeys(one.run for one in record.headline)
        for run in [record.runs[index]]
        for score in run.scores
        for ratio in [bytes_per_token(score)]
        if ratio
    ]
    headline_lines = [line for line in lines if any(line[1] is score for _, score in record.chosen())]
    if not headline_lines:
        yield unknown(
            NATS_AND_BYTES, "no headline line prints nats beside bits per byte", "a log that prints them"
        )
        return
    for run, score, ratio in headline_lines:
        other = next((line for line in lines if not _overlap(ratio, line[2])), None)
        if other:
            yield question(
                NATS_AND_BYTES,
                f"bytes per token is {_middle(ratio):.4f} by `{score.label}` of {run_name(run)} and "
                f"{_middle(other[2]):.4f} by `{other[1].label}` of {run_name(other[0])}: further apart than "
                "their digits, "
                "and one text has one",
                quote(texts, score.bpb, other[1].bpb),
                "how each of the two was computed",
            )
            return
    ratio = headline_lines[0][2]
    yield passed(
        NATS_AND_BYTES, f"{len(lines)} lines with nats and bits per byte have one ratio, {_middle(ratio):.4f}"
    )


SCORE_FLOOR = RuleInfo(
    id="score-floor",
    title="The score is below what reviewers accept without asking",
    condition=None,
    source="#959, #1017",
    checks="a headline under 0.70 bits per byte",
    example="#959: 0.00000035",
    not_covered="how the score came about; the floor is a rule of thumb, so it is a question",
)


def floor(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find headlines below the reviewers' rule of thumb."""
    bpb, chosen, claim = record.headline_bpb, record.chosen(), record.claim()
    if bpb is not None and bpb < FLOOR_BPB:
        fact = chosen[0][1].bpb if chosen else claim.bpb if claim else record.readme_bpb
        yield question(
            SCORE_FLOOR,
            f"{bpb:.4g} bits per byte: below {FLOOR_BPB:.2f} reviewers ask how",
            quote(texts, fact),
            "the scores of single tokens, and the sum of each distribution",
        )


def _tokenizer(ratio: Interval) -> str | None:
    return next((name for name, known in TOKENIZERS if _overlap(ratio, (known, known))), None)


def _all_lines_agree(run: Run, ratio: Interval) -> bool:
    """Whether lines of at least two kinds have this ratio and none has another.

    A single line may be misprinted.
    """
    ratios = [(score.kind, found) for score in run.scores for found in [bytes_per_token(score)] if found]
    return len({kind for kind, _ in ratios}) > 1 and all(_overlap(ratio, found) for _, found in ratios)


def _overlap(first: Interval, second: Interval) -> bool:
    return first[0] <= second[1] * (1 + SLACK) and second[0] <= first[1] * (1 + SLACK)


def _middle(ratio: Interval) -> float:
    return math.fsum(ratio) / 2


RULES = (VALIDATION_BYTES, BYTES_PER_TOKEN, NATS_AND_BYTES, SCORE_FLOOR)
CHECKS = (validation_bytes, fingerprint, one_ratio, floor)
