"""Bytes per token and validation bytes, from three printed numbers: tokens, nats a token, bits per byte.

nats / (ln 2 x bits per byte) is the number of bytes per token, constant over all merged records of a tokenizer to four decimals; times
the validation tokens it is the number of bytes of the validation text, whatever the tokenizer: 151.07 to 151.09 million for the 50,000
documents. All by interval arithmetic on the printed digits, so that four decimals accuse nobody (#586 reads 151.0901e6). Offenders:
GDN 177.8e6 (#1545), Scylla 182.8e6 (#1184), sentinels 164.6e6 (#1771). Not covered: an error that scales tokens and bytes alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.ask import Texts, bytes_per_token, on_record_track, places, shown
from harness.audit.record.facts import Number, Record, Run, Score

FULL = (151.07e6, 151.09e6)
OTHER_SETS = (("the set of the launch day", 155.70e6, 155.84e6), ("the first 10,000 documents", 29.5e6, 30.5e6))
TOKENIZERS = (("SP1024", 2.4359), ("SP1024 on the launch day's set", 2.4423), ("SP4096", 3.3195), ("SP8192", 3.7266),
              ("SP8192 with CaseOps", 3.1572), ("bytes", 1.0))
STANDARD = {1024: (2.4359,), 4096: (3.3195,), 8192: (3.7266, 3.1572)}
TOKENS = (("SP1024", 1024, 61.95e6, 62.03e6), ("SP4096", 4096, 45.48e6, 45.53e6), ("SP8192", 8192, 40.50e6, 40.56e6),
          ("SP8192 with CaseOps", 8192, 47.80e6, 47.86e6))
"""Vocabulary and token counts of the full set, with what truncation to a multiple of the sequence length may drop."""
SLACK = 0.0005
"""Relative: scored sets end at multiples of the sequence length, so ratios differ a little beyond their digits."""
PARTIAL = 0.075
"""A part of the set may differ in bytes per token by this share (unofficial runs that score a sample: up to 5.4 %)."""
VAGUE = 0.01
"""Digits too few to tell one set from another."""
FLOOR_BPB = 0.70
"""Reviewers' rule of thumb: nothing valid was ever below."""


def validation_bytes(record: Record, texts: Texts) -> Iterator[Finding]:
    """Tokens x bytes per token against the bytes of the validation text, headline run by headline run."""
    told: set[tuple[str, str]] = set()
    for run, score in record.chosen():
        ratio = bytes_per_token(score)
        if ratio is None or run.val_tokens is None:
            yield _unknown("validation-bytes", f"{shown(run)} prints no {'validation tokens' if ratio else 'nats'} to compute them from")
            return
        found = _validation(record, texts, run, score, ratio, run.val_tokens)
        key = (found.outcome, found.message.split(":")[-1][:40])
        if key not in told:
            told.add(key)
            yield found
    if not record.headline:
        yield _unknown("validation-bytes", "no log shows the headline score")


def _validation(record: Record, texts: Texts, run: Run, score: Score, ratio: tuple[float, float], tokens: Number) -> Finding:
    low, high = ratio[0] * tokens.value, ratio[1] * tokens.value
    numbers = f"{tokens.value:,.0f} tokens x {(ratio[0] + ratio[1]) / 2:.4f} bytes a token = {(low + high) / 2e6:.3f} million bytes"
    where = places(texts, (tokens, score.bpb))
    if high > low * (1 + VAGUE):
        return _unknown("validation-bytes", f"{shown(run)}: the printed digits allow {low / 1e6:.1f} to {high / 1e6:.1f} million bytes")
    name = _tokenizer(ratio) or "a tokenizer of its own"
    if low <= FULL[1] and high >= FULL[0]:
        return Finding("validation-bytes", None, "pass", f"{shown(run)}: {numbers}, the whole set, read by {name}", where)
    other = next((name for name, least, most in OTHER_SETS if low <= most and high >= least), None)
    if other:
        part = "10,000" in other
        proved = part and on_record_track(record) and _everywhere(run, ratio)
        return Finding("validation-bytes", None, "fail" if proved else "question",
                       f"{shown(run)}: {numbers}: {other}, not the 151.08 million of the whole set", where,
                       "the score over all 50,000 documents")
    same_tokens = next((name for name, vocabulary, least, most in TOKENS if least <= tokens.value <= most
                        and run.vocabulary and run.vocabulary.value == vocabulary), None)
    off = (low + high) / 2 / 151.08e6 - 1
    proved = bool(same_tokens) and abs(off) > PARTIAL and score.kind != "mixture" and on_record_track(record) and _everywhere(run, ratio)
    why = f"; as many tokens as {same_tokens} makes of the whole set" if same_tokens else ""
    return Finding("validation-bytes", None, "fail" if proved else "question",
                   f"{shown(run)}: {numbers}, {off:+.2%} beside the 151.08 million of the whole set{why}", where,
                   "the bytes of the text counted by decoding the tokens, and the score computed with them")


def _tokenizer(ratio: tuple[float, float]) -> str | None:
    return next((name for name, known in TOKENIZERS if _meet(ratio, (known, known))), None)


def fingerprint(record: Record, texts: Texts) -> Iterator[Finding]:
    """Bytes per token against the known tokenizers and sets; against the standard one of its size where no token count is printed."""
    for run, score in record.chosen()[:1]:
        ratio = bytes_per_token(score)
        if ratio is None or ratio[1] > ratio[0] * (1 + VAGUE):
            yield _unknown("bytes-per-token", f"{shown(run)} prints no nats, or too few digits")
            return
        known, middle, where = _tokenizer(ratio), _middle(ratio), places(texts, (score.bpb, run.vocabulary))
        if known:
            yield Finding("bytes-per-token", None, "pass", f"{middle:.4f}, as {known}", where)
            return
        standard = STANDARD.get(int(run.vocabulary.value)) if run.vocabulary else None
        if standard and run.vocabulary and run.val_tokens is None and score.kind != "mixture":
            yield Finding("bytes-per-token", None, "question", f"{shown(run)}: {middle:.4f} bytes a token; the standard tokenizers of "
                          f"{run.vocabulary.value:,.0f} tokens have {' and '.join(map(str, standard))}", where,
                          "the tokenizer, and the bytes counted by decoding the tokens")
        else:
            yield Finding("bytes-per-token", None, "unknown", f"{middle:.4f}, of no tokenizer and set known here", where,
                          "the tokenizer, and the bytes counted by decoding the tokens")


def _everywhere(run: Run, ratio: tuple[float, float]) -> bool:
    """Whether at least two kinds of lines of the run have this ratio, and none another."""
    ratios = [(score.kind, found) for score in run.scores for found in [bytes_per_token(score)] if found]
    return len({kind for kind, _ in ratios}) > 1 and all(_meet(ratio, found) for _, found in ratios)


def _meet(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[0] <= second[1] * (1 + SLACK) and second[0] <= first[1] * (1 + SLACK)


def one_ratio(record: Record, texts: Texts) -> Iterator[Finding]:
    """All score lines of a run belong to one text, so their nats and bits per byte have one ratio; and so have all seeds."""
    lines = [(run, score, ratio) for index in {one.run for one in record.headline} for run in [record.runs[index]]
             for score in run.scores for ratio in [bytes_per_token(score)] if ratio]
    if not lines:
        yield _unknown("nats-and-bytes", "no headline log prints nats beside bits per byte")
        return
    heads = [line for line in lines if any(line[1] is score for _, score in record.chosen())] or lines[-1:]
    for run, score, ratio in heads:
        other = next((line for line in lines if not _meet(ratio, line[2])), None)
        if other:
            yield Finding("nats-and-bytes", None, "question",
                          f"bytes per token is {_middle(ratio):.4f} by `{score.label}` of {shown(run)} and {_middle(other[2]):.4f} by "
                          f"`{other[1].label}` of {shown(other[0])}: beyond the printed digits, and one text has one",
                          places(texts, (score.bpb, other[1].bpb)), "how each of the two lines was computed")
            return
    yield Finding("nats-and-bytes", None, "pass", f"{len(lines)} lines with nats and bits per byte have one ratio, {_middle(heads[0][2]):.4f}")


def floor(record: Record, texts: Texts) -> Iterator[Finding]:
    """Scores that no valid submission has come near."""
    if record.headline_bpb is not None and record.headline_bpb < FLOOR_BPB:
        chosen = record.chosen()
        claim = record.claim()
        fact = chosen[0][1].bpb if chosen else claim.bpb if claim else record.readme_bpb
        yield Finding("score-floor", None, "question", f"{record.headline_bpb:.4g} bits per byte: nothing valid was ever below {FLOOR_BPB}",
                      places(texts, (fact,)), "the scores of single tokens, and a sum of each distribution")


def _middle(ratio: tuple[float, float]) -> float:
    return math.fsum(ratio) / 2


def _unknown(rule: str, why: str) -> Finding:
    return Finding(rule, None, "unknown", why, (), "a log that prints them")
