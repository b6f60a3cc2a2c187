"""Read one line of a log: its prefix, its score, and its point in a training curve.

Both dialects are read: `key:value` of the starting script, and `key: value` with a dump of hyper-parameters
(#1394 and later). A line may have an epoch time, a date or a rank before its text. Lines are cut at MAX_LINE
characters and every pattern is bounded, so reading takes time linear in the log's size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.record.facts import Kind, Number, Score

MAX_LINE = 2_000
"""Some runs print all their settings in one line."""
MAX_LINES = 200_000
F = r"([-+]?\d{1,12}\.\d{1,20}(?:e[-+]?\d{1,2})?)"
PREFIX = re.compile(
    r"(?:\d{10}\.\d{1,9} {1,4}|\[[^\]]{1,40}\]:? ?(?:INFO: ?)?"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S{0,12} (?:INFO:? ?)?)"
)
STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)")
EPOCH = re.compile(r"(\d{10})\.\d{1,9} ")
BPB = re.compile(r"val_bp[bp](?:[:=] {0,12}| {1,3})" + F)
NATS = re.compile(r"val_(?:loss|nats)[:=] {0,12}" + F)
STEP = re.compile(r"(?:>>> )?(?:step[: ] ?)?(\d{1,8})/(\d{1,8})\b|(?:>>> )?step:(\d{1,8})\b", re.I)
TRAIN_LOSS = re.compile(r"train_loss[:=] ?" + F)
TRAIN_TIME = re.compile(r"(?:train_)?time[:=] ?(\d{1,9}(?:\.\d{1,9})?)(ms|m|s)\b")
STEP_MS = re.compile(r"step_avg[:=] ?" + F + "ms")
EVAL_TIME = re.compile(r"\b(?:eval_time|time|elapsed|eval)[:=] ?(\d{1,9}(?:\.\d{1,9})?)(ms|s)\b")
SKIPPED = (
    "progress",
    "search",
    "sweep",
    "candidate",
    "epoch",
    "chunk",
    "best",
    "checkpoint",
    "proxy",
    "snapshot",
    "selected",
    "heartbeat",
    "neural_only",
    "ablation",
    "refine",
    "pass ",
    "rank:",
    "summary",
    "wrote",
    "regression",
    "known",
)
"""Words in the labels of intermediate scores."""
PRE_QUANT = ("pre-quant", "pre_quant", "prequant")
"""Words in the labels of scores before quantisation."""
UNQUANTISED = (
    "post_ema",
    "post-ema",
    "swa_eval",
    "raw_",
    "raw ",
    "final_fp",
    "bf16",
    "fp32",
    "post_train",
    "post_average",
    "post_swa",
    "ema",
)
"""Words in the labels of scores before quantisation, if the label has none of QUANTISED."""
QUANTISED = ("roundtrip", "quant", "int4", "int5", "int6", "int7", "int8", "zlib", "zstd", "lzma", "brotli")
MIXED = re.compile(r"slot|etlb|n_?gram|ppm|hedge|mixer|mix(?!ed)|two_pass|rescore|cache|knn|tilt|temped")
SCALE = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Line(NamedTuple):
    """A line of a log without its prefix, and the time stamp in the prefix."""

    number: int
    text: str
    stamp: str | None


def lines(text: str) -> Iterator[Line]:
    """The lines of a log, numbered from 1, cut to MAX_LINE characters."""
    for number, raw in enumerate(text.split("\n")[:MAX_LINES], 1):
        line = raw[:MAX_LINE].rstrip("\r")
        stamp = None
        for _ in range(2):
            prefix = PREFIX.match(line)
            if prefix is None or prefix.end() == len(line):
                break
            dated, epoch = STAMP.search(prefix[0]), EPOCH.match(prefix[0])
            stamp = f"{dated[1]} {dated[2]}" if dated else epoch[1] if epoch else stamp
            line = line[prefix.end() :]
        yield Line(number, line, stamp)


def number(match: str, file: str, line: int | None, scale: float = 1.0) -> Number:
    """A printed number, in the unit of `scale`."""
    return Number.printed(match, file, line).times(scale)


def score(line: Line, file: str) -> Score | None:
    """The score that a line states, or None."""
    bpb = BPB.search(line.text)
    if bpb is None or "{" in line.text or '"' in line.text:
        return None
    nats = NATS.search(line.text)
    label = line.text[: min(bpb.start(), nats.start() if nats else bpb.start())].strip(" :,|→")[:80]
    seconds = EVAL_TIME.search(line.text)
    kind = kind_of(label)
    if kind is None or "(" in label or label.startswith(("#", "return", "print", "log")):
        return None
    return Score(
        kind=kind,
        label=label,
        bpb=number(bpb[1], file, line.number),
        nats=number(nats[1], file, line.number) if nats else None,
        seconds=number(seconds[1], file, line.number, SCALE[seconds[2]])
        if seconds and kind != "training"
        else None,
    )


def kind_of(label: str) -> Kind | None:
    """What a score line scored, by its label; None for an intermediate score."""
    low = label.lower()
    if STEP.match(low):
        return "training"
    if any(word in low for word in SKIPPED):
        return None
    packed = any(word in low for word in QUANTISED)
    whole = low.startswith("diagnostic") or any(word in low for word in UNQUANTISED)
    if any(word in low for word in PRE_QUANT) or (whole and not packed):
        return "pre-quantization"
    if "ttt_phased" in low:
        return "ttt_phased"
    if MIXED.search(low):
        return "mixture"
    if "ttt_lora" in low or "lora_ttt" in low:
        return "ttt_lora"
    if "ttt" in low:
        return "ttt"
    if "sliding" in low:
        return "sliding"
    return "roundtrip" if packed else "other"


class Progress(NamedTuple):
    """A line of a training curve."""

    step: int
    steps: int | None
    seconds: Number | None
    step_ms: Number | None
    train_nats: float | None


def progress(line: Line, file: str) -> Progress | None:
    """The point in a training curve that a line states, or None."""
    at = STEP.match(line.text)
    if at is None or "{" in line.text:
        return None
    time, average, loss = (
        TRAIN_TIME.search(line.text),
        STEP_MS.search(line.text),
        TRAIN_LOSS.search(line.text),
    )
    if not (time or average or loss):
        return None
    return Progress(
        int(at[1] or at[3]),
        int(at[2]) if at[2] else None,
        number(time[1], file, line.number, SCALE[time[2]]) if time else None,
        number(average[1], file, line.number) if average else None,
        float(loss[1]) if loss else None,
    )
