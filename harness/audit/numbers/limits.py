"""Check bytes against 16,000,000 and clocks against 600 s, wherever the folder states them.

Over the cap in a log and under it in the JSON is a question of which is counted (#1412, #1835); over it
everywhere is proof. Clocks are judged as reviewers did: the train loop may overshoot by its last step (99 %
of public logs by 1.2 s), and evaluation is the final scored path (`total_eval_time`) without diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.audit.finding import Finding
from harness.audit.numbers.findings import (
    MAX_LINES,
    Texts,
    on_record_track,
    passed,
    question,
    quote,
    run_name,
    unknown,
)
from harness.audit.record.facts import Number, Record, Run
from harness.edition import PROFILES
from harness.verdict.rule_info import RuleInfo

OFFICIAL = PROFILES["record"]
CAP = OFFICIAL.counted_bytes
WELL_OVER = 1.02
"""A clock that is over by more than this factor is not explained by a last step or by rounding."""
LEAST_BYTES = 100_000
"""A stated artifact size below this is in another unit."""
PACKED = 0.6
"""A program was counted packed where its bytes are less than this share of the shipped program's."""


ARTIFACT_SIZE = RuleInfo(
    id="artifact-size",
    title="The artifact is more than 16,000,000 bytes",
    condition=None,
    source="README R1, #1835, #1412",
    checks="the counted bytes of headline logs and of submission*.json, in decimal megabytes",
    example="#1412: logs of 16,059,704 bytes beside 15,976,275 in the JSON",
    not_covered="files that nobody counts; `fail` only on the record track where log and JSON both are over",
)


def artifact(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the counted bytes of headline logs and submission*.json with the cap."""
    claim = record.claim()
    logged = [run.counted_bytes for run, _ in record.chosen() if run.counted_bytes]
    claimed = [claim.counted_bytes, *(one.counted_bytes for one in claim.results)] if claim else []
    stated = [found for found in claimed if found and found.value > LEAST_BYTES]
    if not (logged or stated):
        yield unknown(
            ARTIFACT_SIZE, "neither a log nor the JSON states the counted bytes", "the size line of the run"
        )
        return
    most = max((*logged, *stated), key=lambda found: found.value)
    over = [found for found in (*logged, *stated) if found.value > CAP]
    under = [found for found in (*logged, *stated) if found.value <= CAP]
    if not over:
        yield passed(
            ARTIFACT_SIZE,
            f"at most {most.value:,.0f} of {CAP:,} bytes, in {len(under)} places",
            quote(texts, most),
        )
        return
    beside = f"; elsewhere the folder states {min(found.value for found in under):,.0f}" if under else ""
    yield question(
        ARTIFACT_SIZE,
        f"{most.value:,.0f} bytes where {CAP:,} are allowed{beside}",
        quote(texts, *over[:3], *under[:2])[:MAX_LINES],
        f"the size of the files that the run reads, at most {CAP:,} bytes together",
        proved=bool(logged and stated) and not under and on_record_track(record, texts),
    )


CODE_BYTES = RuleInfo(
    id="code-bytes",
    title="The code that was counted is not the code shipped",
    condition=None,
    source="README R1, #1835",
    checks="code bytes of headline logs against the sizes of the shipped programs",
    example="51,283 bytes logged, 126 kB shipped",
    not_covered="code that was counted in compressed form (`unknown`); a question only where the artifact "
    "with the shipped program would exceed the cap",
)


def code(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the program that the headline logs counted with the programs shipped."""
    sizes = {
        file: len(text.encode()) for file, text in texts.items() if file.endswith(".py") and "!" not in file
    }
    counted = [(run, run.code_bytes) for run, _ in record.chosen() if run.code_bytes]
    if not (counted and sizes):
        reason = "no headline log counts its code" if sizes else "no program is shipped"
        yield unknown(CODE_BYTES, reason, "a code size line, and the program")
        return
    other = next(
        (line for line in counted if line[1].value not in (*sizes.values(), sum(sizes.values()))), None
    )
    if other is None:
        yield passed(
            CODE_BYTES,
            f"the code that {len(counted)} logs count is a file shipped",
            quote(texts, counted[0][1]),
        )
        return
    run, found = other
    entry = max(sizes, key=lambda file: (file.endswith("train_gpt.py"), sizes[file]))
    message = f"{run_name(run)} counts {found.value:,.0f} bytes of code, {entry} has {sizes[entry]:,}"
    model = run.model_bytes.value if run.model_bytes else 0
    evidence = quote(texts, found, run.model_bytes)
    if found.value < PACKED * sizes[entry]:
        yield unknown(
            CODE_BYTES,
            f"{message}: counted packed, it seems, and shipped readable",
            "the command that packs it",
            evidence,
        )
    elif model + sizes[entry] > CAP >= model + found.value:
        yield question(
            CODE_BYTES,
            f"{message}; with the model's {model:,.0f} that is {model + sizes[entry]:,.0f}",
            evidence,
            "the program that was run",
        )
    else:
        yield unknown(
            CODE_BYTES,
            f"{message}: another file, though either is on the same side of the cap",
            "the program that was run",
            evidence,
        )


TRAIN_CLOCK = RuleInfo(
    id="train-clock",
    title="Training took more than 600 s",
    condition=None,
    source="README R2, #1908",
    checks="the train time of headline runs, with half a second of grace",
    example="#1908: 601.2 s",
    not_covered="runs on other hardware: `fail` only beyond 2 % with eight cards and none but H100, "
    "otherwise a question",
)


def train_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the train loop of the headline runs with 600 s."""
    timed = [(run, run.train_seconds) for run, _ in record.chosen()]
    yield from _clock(record, texts, TRAIN_CLOCK, timed)


EVAL_CLOCK = RuleInfo(
    id="eval-clock",
    title="Evaluation took more than 600 s",
    condition=None,
    source="README R3, #889, #1972",
    checks="`total_eval_time`, else the time of the headline line; diagnostics are not counted",
    example="#2018: 639.9 s",
    not_covered="work outside the timed region; `fail` as for train-clock",
)


def eval_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """The evaluation time of the runs behind the headline score, against 600 s."""
    timed = [(run, time) for (run, _), time in zip(record.chosen(), record.eval_seconds(), strict=True)]
    yield from _clock(record, texts, EVAL_CLOCK, timed)


def _clock(
    record: Record, texts: Texts, info: RuleInfo, timed: Sequence[tuple[Run, Number | None]]
) -> Iterator[Finding]:
    """Compare the longest of the times with the limit of TRAIN_CLOCK or EVAL_CLOCK; JSON counts where no log
    has a time.
    """
    verb, field, limit = (
        ("trained", "train_seconds", OFFICIAL.train_seconds)
        if info is TRAIN_CLOCK
        else ("evaluated", "eval_seconds", OFFICIAL.score_seconds)
    )
    known = [(run_name(run), found, _official(record, run)) for run, found in timed if found]
    claim = record.claim()
    if claim and not known:
        stated = [
            (claim.file, getattr(claim, field)),
            *((f"seed {one.seed}", getattr(one, field)) for one in claim.results),
        ]
        known = [(name, found, False) for name, found in stated if found]
    if not known:
        yield unknown(info, "no headline log and no JSON states the time", "the time line of the run")
        return
    name, most, official = max(known, key=lambda one: one[1].value)
    if most.low <= limit + OFFICIAL.grace_seconds:
        yield passed(
            info, f"{name} {verb} for {most.value:,.1f} s, the longest of {len(known)}", quote(texts, most)
        )
    elif not on_record_track(record, texts):
        yield passed(
            info,
            f"{name} {verb} for {most.value:,.1f} s, and is not on the ten-minute track",
            quote(texts, most),
        )
    else:
        yield question(
            info,
            f"{name} {verb} for {most.value:,.1f} s where {limit:.0f} are allowed",
            quote(texts, most),
            "a run within the clock, with its log",
            proved=official and most.low > limit * WELL_OVER,
        )


def _official(record: Record, run: Run) -> bool:
    """Whether log and JSON name eight GPUs and only H100: on other hardware a longer time proves nothing."""
    claim = record.claim()
    cards = [word.value for word in (run.gpu, claim.hardware if claim else None) if word]
    return run.world_size is not None and run.world_size.value == 8 and all("H100" in name for name in cards)


RULES = (ARTIFACT_SIZE, CODE_BYTES, TRAIN_CLOCK, EVAL_CLOCK)
CHECKS = (artifact, code, train_clock, eval_clock)
