"""Bytes against 16,000,000 and clocks against 600 s, from every place that states them.

Over the cap in a log and under it in the JSON is a question of which is counted (#1412, #1835); over it
everywhere is proved. Clocks are judged as reviewers did: the train loop may overshoot by its last step (99 %
of public logs by 1.2 s), and what counts as evaluation is the final scored path (`total_eval_time`), not
diagnostics. Not covered: files that a run reads uncounted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.audit.finding import Finding
from harness.audit.numbers.ask import Texts, asked, many, on_record_track, passed, places, shown, unknown
from harness.audit.record.facts import Number, Record, Run
from harness.edition import PROFILES

OFFICIAL = PROFILES["record"]
CAP = OFFICIAL.counted_bytes
WELL_OVER = 1.02
"""A clock over by more than this factor is no last step and no rounding."""
LEAST_BYTES = 100_000
"""Below, a stated artifact size is in other units."""
PACKED = 0.6
"""A program counted at less than this share of the one shipped was counted packed."""


def artifact(record: Record, texts: Texts) -> Iterator[Finding]:
    """Counted bytes of the headline logs and of submission*.json against the cap."""
    claim = record.claim()
    logged = [run.counted_bytes for run, _ in record.chosen() if run.counted_bytes]
    claimed = [claim.counted_bytes, *(one.counted_bytes for one in claim.results)] if claim else []
    stated = [found for found in claimed if found and found.value > LEAST_BYTES]
    if not (logged or stated):
        yield unknown(
            "artifact-size", "neither a log nor the JSON states the counted bytes", "the size line of the run"
        )
        return
    most = max((*logged, *stated), key=lambda found: found.value)
    over = [found for found in (*logged, *stated) if found.value > CAP]
    under = [found for found in (*logged, *stated) if found.value <= CAP]
    if not over:
        yield passed(
            "artifact-size",
            f"at most {most.value:,.0f} of {CAP:,} bytes, in {len(under)} places",
            places(texts, most),
        )
        return
    beside = f"; elsewhere the folder states {min(found.value for found in under):,.0f}" if under else ""
    yield asked(
        "artifact-size",
        f"{most.value:,.0f} bytes where {CAP:,} are allowed{beside}",
        many(texts, (*over[:3], *under[:2])),
        f"the size of the files that the run reads, at most {CAP:,} bytes together",
        proved=bool(logged and stated) and not under and on_record_track(record, texts),
    )


def code(record: Record, texts: Texts) -> Iterator[Finding]:
    """The program that the headline logs counted against the programs shipped."""
    sizes = {
        file: len(text.encode()) for file, text in texts.items() if file.endswith(".py") and "!" not in file
    }
    counted = [(run, run.code_bytes) for run, _ in record.chosen() if run.code_bytes]
    if not (counted and sizes):
        why = "no headline log counts its code" if sizes else "no program is shipped"
        yield unknown("code-bytes", why, "a code size line, and the program")
        return
    other = next(
        (line for line in counted if line[1].value not in (*sizes.values(), sum(sizes.values()))), None
    )
    if other is None:
        yield passed(
            "code-bytes",
            f"the code that {len(counted)} logs count is a file shipped",
            places(texts, counted[0][1]),
        )
        return
    run, found = other
    entry = max(sizes, key=lambda file: (file.endswith("train_gpt.py"), sizes[file]))
    said = f"{shown(run)} counts {found.value:,.0f} bytes of code, {entry} has {sizes[entry]:,}"
    model = run.model_bytes.value if run.model_bytes else 0
    where = places(texts, found, run.model_bytes)
    if found.value < PACKED * sizes[entry]:
        yield unknown(
            "code-bytes",
            f"{said}: counted packed, it seems, and shipped readable",
            "the command that packs it",
            where,
        )
    elif model + sizes[entry] > CAP >= model + found.value:
        yield asked(
            "code-bytes",
            f"{said}; with the model's {model:,.0f} that is {model + sizes[entry]:,.0f}",
            where,
            "the program that was run",
        )
    else:
        yield unknown(
            "code-bytes",
            f"{said}: another file, though either is on the same side of the cap",
            "the program that was run",
            where,
        )


def train_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """The train loop of the headline runs against 600 s."""
    timed = [(run, run.train_seconds) for run, _ in record.chosen()]
    yield from _clock(record, texts, "train-clock", "trained", OFFICIAL.train_seconds, timed)


def eval_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """The final scored path of the headline runs against 600 s."""
    timed = [(run, time) for (run, _), time in zip(record.chosen(), record.eval_seconds(), strict=True)]
    yield from _clock(record, texts, "eval-clock", "evaluated", OFFICIAL.score_seconds, timed)


def _clock(
    record: Record,
    texts: Texts,
    rule: str,
    verb: str,
    limit: float,
    timed: Sequence[tuple[Run, Number | None]],
) -> Iterator[Finding]:
    known = [(shown(run), found, _official(record, run)) for run, found in timed if found]
    claim, field = record.claim(), "train_seconds" if rule == "train-clock" else "eval_seconds"
    if claim and not known:
        stated = [
            (claim.file, getattr(claim, field)),
            *((f"seed {one.seed}", getattr(one, field)) for one in claim.results),
        ]
        known = [(name, found, False) for name, found in stated if found]
    if not known:
        yield unknown(rule, "no headline log and no JSON states the time", "the time line of the run")
        return
    name, most, official = max(known, key=lambda one: one[1].value)
    if most.low <= limit + OFFICIAL.grace_seconds:
        yield passed(
            rule, f"{name} {verb} for {most.value:,.1f} s, the longest of {len(known)}", places(texts, most)
        )
    elif not on_record_track(record, texts):
        yield passed(
            rule,
            f"{name} {verb} for {most.value:,.1f} s, and is not on the ten-minute track",
            places(texts, most),
        )
    else:
        yield asked(
            rule,
            f"{name} {verb} for {most.value:,.1f} s where {limit:.0f} are allowed",
            places(texts, most),
            "a run within the clock, with its log",
            proved=official and most.low > limit * WELL_OVER,
        )


def _official(record: Record, run: Run) -> bool:
    """Whether log and JSON speak of eight cards and of none but H100: on others a longer time proves
    nothing."""
    claim = record.claim()
    cards = [word.value for word in (run.gpu, claim.hardware if claim else None) if word]
    return run.world_size is not None and run.world_size.value == 8 and all("H100" in name for name in cards)
