"""Read one log: the facts of one run, each with its line.

A fact that is printed twice counts where it was printed last (sizes, clocks) or first (settings, seeds). Many
logs begin with the source code of the run, so lines with a brace or a quote state no facts.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from harness.audit.record.facts import Number, Point, Run, Score, Word
from harness.audit.record.lines import Line, lines, number, progress, score

MAX_POINTS = 20_000
MAX_SCORES = 5_000
"""The last scores of a log are kept: the headline is near the end."""
STAMPED = 0.8
"""Time stamps are used if at least this share of the score and curve lines has one. With fewer, they are a
launcher's and do not tell how long the run took."""
N = r"([\d,]{1,15})"
FIRST: tuple[tuple[str, str, re.Pattern[str], float], ...] = (
    ("val_tokens", "tokens:", re.compile(rf"val_loader:.{{0,300}}tokens:{N}$"), 1),
    ("val_tokens", "val_tokens", re.compile(rf"^.{{0,120}}\bval_tokens[:=] ?{N}\b"), 1),
    ("val_tokens", "alidation tokens", re.compile(rf"^Validation tokens: ?{N}\b"), 1),
    ("train_shards", "train_shards", re.compile(rf"\btrain_shards[:=] ?{N}\b"), 1),
    ("parameters", "params", re.compile(rf"^model_params: ?{N}\b|^params: ?{N}\b"), 1),
    ("world_size", "world", re.compile(rf"\bworld(?:_size)?: ?{N}\b"), 1),
    (
        "train_clock",
        "wall",
        re.compile(r"\bmax_wallclock_seconds[:=] ?(\d{1,7}(?:\.\d{1,9})?)\b|\bwall:(\d{1,7})s"),
        1,
    ),
    ("vocabulary", "vocab_size", re.compile(rf"\bvocab_size[:=] ?{N}\b"), 1),
    ("vocabulary", "vocab=", re.compile(rf"\bvocab={N}\b"), 1),
    ("vocabulary", "_sp", re.compile(r"\bfineweb10B_sp(\d{3,6})\b"), 1),
    ("iterations", "iterations", re.compile(rf"\biterations: ?{N}\b"), 1),
)
LAST: tuple[tuple[str, str, re.Pattern[str], float], ...] = (
    (
        "counted_bytes",
        "ubmission",
        re.compile(rf"^Total (?:\w{{1,20}} )?submission size [^:]{{1,60}}: ?{N} bytes"),
        1,
    ),
    ("counted_bytes", "code = ", re.compile(rf"^artifact: .{{1,60}} code = {N}B"), 1),
    ("counted_bytes", "budget:", re.compile(rf"^.{{0,120}}\bbudget:{N}/16000000"), 1),
    ("counted_bytes", "total", re.compile(rf"^.{{0,120}}\btotal:{N}/16000000"), 1),
    ("counted_bytes", "SUBMISSION_BYTES", re.compile(rf"^FINAL_SUBMISSION_BYTES: ?{N}$"), 1),
    ("counted_bytes", "Total submission: ", re.compile(rf"(?:^|\| )Total submission: {N} bytes"), 1),
    ("counted_bytes", "Total submission int", re.compile(rf"^Total submission int\S{{1,20}}: {N} bytes"), 1),
    ("counted_bytes", "total_artifact_bytes", re.compile(rf"^.{{0,160}}\btotal_artifact_bytes: ?{N}\b"), 1),
    ("model_bytes", "Serialized model ", re.compile(rf"^Serialized model [^:]{{1,60}}: ?{N} bytes"), 1),
    ("model_bytes", "B model", re.compile(rf"^artifact: {N}B model"), 1),
    ("code_bytes", "ode size", re.compile(rf"^Code size(?: \([^)]{{0,20}}\))?: ?{N} bytes"), 1),
    ("code_bytes", "code = ", re.compile(rf"^artifact: .{{1,40}} \+ {N}B code"), 1),
    ("eval_seconds", "total_eval_time", re.compile(r"\btotal_eval_time: ?(\d{1,7}(?:\.\d{1,6})?)s"), 1),
    ("eval_seconds", "valuation time", re.compile(r"^Evaluation time: (\d{1,7}(?:\.\d{1,6})?) ?s"), 1),
    ("train_seconds", "stopping_early", re.compile(r"stopping_early:.{0,60}time: ?(\d{1,10})ms"), 0.001),
    ("train_seconds", "raining time", re.compile(r"^Training time: (\d{1,7}(?:\.\d{1,6})?) ?s"), 1),
    ("steps", "stopping_early", re.compile(rf"stopping_early:.{{0,80}}step: ?{N}"), 1),
)
PLAIN_SIZE = re.compile(rf"^(?:Total submission size|Artifact(?: size)?): {N} bytes")
"""The size of the uncompressed model in the starting script; the only size that other scripts print."""
SEED = re.compile(
    r"^ {0,8}(?:seed[:=] ?|Seed: |SEED=)(\d{1,10})\b|^.{0,60}\bwith seed=(\d{1,10})\b| seed=(\d{1,10})(?: |$)"
)
NAMED_SEED = re.compile(r"seed[_-]?(\d{1,10})(?!\d)", re.I)
NAMED_SHORT = re.compile(r"(?:[_-]s|log_)(\d{1,10})(?=[_.-]|$)", re.I)
"""Less certain patterns: `train_s42.log`, `ternary_log_42.txt`."""
GPU = re.compile(
    r"NVIDIA ((?:GeForce )?(?:H100|H200|A100|B200|GB200|GH200|L40S|L4|RTX|A40|A10|V100)[\w /-]{0,30}?)"
    r"(?: {2}|\s{0,4}\||$| O[nf])"
)
TORCH = re.compile(r"PyTorch(?: version)?:? (\d[\w.+]{1,40})")
PYTHON = re.compile(r"(?:Running Python|Python:?) (3\.[\w.+]{1,20})")


def run(file: str, text: str) -> Run | None:
    """The run that a log describes; None for a text that is not the log of a run."""
    facts: dict[str, Any] = {}
    scores: deque[Score] = deque(maxlen=MAX_SCORES)
    last: Score | None = None
    train: list[Point] = []
    val: list[Point] = []
    plain: Number | None = None
    began: Word | None = None
    ended: Word | None = None
    n_facts = n_stamped = step = 0
    n_runs = 1
    for line in lines(text):
        if not line.text:
            continue
        if line.stamp:
            ended = Word(value=line.stamp, file=file, line=line.number)
            began = began or ended
        found = score(line, file) if "val_bp" in line.text else None
        here = progress(line, file)
        if found or here:
            n_facts += 1
            n_stamped += line.stamp is not None
        if here:
            n_runs, step = n_runs + (here.step < step and here.step <= 1), here.step
            seconds = here.seconds.value if here.seconds else None
            if here.seconds:
                facts["_time"], facts["_step"] = (
                    here.seconds,
                    Number(value=here.step, half=0, file=file, line=line.number),
                )
            if here.step_ms:
                facts["step_ms"] = here.step_ms
            if here.steps and "iterations" not in facts:
                facts["iterations"] = Number(value=here.steps, half=0, file=file, line=line.number)
            if here.train_nats is not None and len(train) < MAX_POINTS:
                train.append(Point(step=here.step, nats=here.train_nats, seconds=seconds, line=line.number))
            if found and found.nats and len(val) < MAX_POINTS:
                val.append(Point(step=here.step, nats=found.nats.value, seconds=seconds, line=line.number))
        if found and found.kind == "training":
            last = found  # only the last one is kept
        elif found:
            scores.append(found)
        elif "{" not in line.text and '"' not in line.text and not here:
            plain = _facts(line, file, facts) or plain
    if not (scores or last or train):
        return None
    if "counted_bytes" not in facts and plain and plain.value < 20e6:
        facts["counted_bytes"] = plain
    seed: Number | None = facts.pop("_seed", None)
    named_seed = seed_in_name(file)
    facts = {"train_seconds": facts.pop("_time", None), "steps": facts.pop("_step", None), **facts}
    if n_stamped >= STAMPED * n_facts:
        facts |= {"began": began, "ended": ended}
    return Run(
        file=file,
        seed=int(seed.value) if seed else named_seed,
        logged_seed=seed,
        named_seed=named_seed,
        runs_in_log=n_runs,
        scores=(*((last,) if last else ()), *scores),
        train_curve=tuple(train),
        val_curve=tuple(val),
        **facts,
    )


def seed_in_name(file: str) -> int | None:
    """The seed in a log's name, or None."""
    name = file.rsplit("/", 1)[-1]
    found = NAMED_SEED.search(name) or NAMED_SHORT.search(name)
    return int(found[1]) if found else None


def _facts(line: Line, file: str, facts: dict[str, Any]) -> Number | None:
    """Add what a line states to `facts`; return a size that the line prints without saying of what."""
    text = line.text
    for name, needle, pattern, scale in LAST:
        if needle in text and (match := pattern.search(text)):
            if name == "code_bytes" and "uncompressed" in text and name in facts:
                continue
            facts[name] = number(_digits(match), file, line.number, scale)
    for name, needle, pattern, scale in FIRST:
        if name not in facts and needle in text and (match := pattern.search(text)):
            facts[name] = number(_digits(match), file, line.number, scale)
    if "_seed" not in facts and "eed" in text.lower() and (match := SEED.search(text)):
        facts["_seed"] = number(_digits(match), file, line.number)
    for name, needle, word in (
        ("gpu", "NVIDIA", GPU),
        ("torch", "PyTorch", TORCH),
        ("python", "Python", PYTHON),
    ):
        if name not in facts and needle in text and (match := word.search(text)):
            facts[name] = Word(value=match[1].strip(), file=file, line=line.number)
    match = PLAIN_SIZE.match(text)
    return number(_digits(match), file, line.number) if match else None


def _digits(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).replace(",", "") or "0"
