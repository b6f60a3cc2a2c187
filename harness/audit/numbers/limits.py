"""Bytes against 16,000,000 and clocks against 600 s, from every place that states them.

Over the cap in a log and under it in the JSON is a question of which is counted (#1412, #1835); over it in both is proved. Clocks are judged
as reviewers did: the train loop may overshoot by its last step (99 % of public logs by 1.2 s), and what counts as evaluation
is the final scored path (`total_eval_time`), not diagnostics. Not covered: files that a run reads and nobody counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import Finding
from harness.audit.numbers.ask import Texts, on_record_track, places, shown
from harness.audit.record.facts import Number, Record, Run
from harness.edition import PROFILES

CAP = PROFILES["record"].counted_bytes
TRAIN, EVAL = PROFILES["record"].train_seconds, PROFILES["record"].score_seconds
GRACE = PROFILES["record"].grace_seconds
WELL_OVER = 1.02
"""A clock over by more is no last step and no rounding."""


def artifact(record: Record, texts: Texts) -> Iterator[Finding]:
    """Counted bytes of the logs and of submission*.json against the cap."""
    logged = [run.counted_bytes for run, _ in record.chosen() if run.counted_bytes]
    claim = record.claim()
    stated = [] if claim is None else [found for found in (claim.counted_bytes, *(one.counted_bytes for one in claim.results)) if found]
    stated = [found for found in stated if found.value > 100_000]
    if not (logged or stated):
        yield Finding("artifact-size", None, "unknown", "neither a log nor the JSON states the counted bytes", (), "the size line of the run")
        return
    over = [found for found in (*logged, *stated) if found.value > CAP]
    if not over:
        most = max((*logged, *stated), key=lambda found: found.value)
        yield Finding("artifact-size", None, "pass", f"at most {most.value:,.0f} of {CAP:,} bytes, in {len(logged) + len(stated)} places",
                      places(texts, (most,)))
        return
    both = any(found in logged for found in over) and any(found in stated for found in over)
    under = [found for found in (*logged, *stated) if found.value <= CAP]
    proved = both and not under and on_record_track(record)
    beside = f"; elsewhere the folder states {min(found.value for found in under):,.0f}" if under else ""
    yield Finding("artifact-size", None, "fail" if proved else "question",
                  f"{max(found.value for found in over):,.0f} bytes where {CAP:,} are allowed{beside}", places(texts, (*over[:3], *under[:2])),
                  "the size of the files that the run reads, at most 16,000,000 bytes together")


def code(record: Record, texts: Texts) -> Iterator[Finding]:
    """The program that a log counted against the programs shipped."""
    sizes = {file: len(text.encode()) for file, text in texts.items() if file.endswith(".py") and "!" not in file}
    counted = [(run, run.code_bytes) for run, _ in record.chosen() if run.code_bytes]
    if not counted or not sizes:
        yield Finding("code-bytes", None, "unknown", "no log counts the code" if sizes else "no program is shipped", (), "a code size line")
        return
    for run, found in counted:
        if found.value in sizes.values() or found.value == sum(sizes.values()):
            continue
        entry = max(("train_gpt.py", *sizes), key=lambda file: (file in sizes, file.endswith("train_gpt.py"), sizes.get(file, 0)))
        total = run.model_bytes.value + sizes[entry] if run.model_bytes else 0
        packed = found.value < 0.6 * sizes[entry]
        said = f"{shown(run)} counts {found.value:,.0f} bytes of code, {entry} has {sizes[entry]:,}"
        if packed:
            yield Finding("code-bytes", None, "unknown", f"{said}: counted packed, it seems, and shipped readable", places(texts, (found,)),
                          "the packed program, or the command that packs it")
        elif total > CAP and (run.counted_bytes is None or run.counted_bytes.value <= CAP):
            yield Finding("code-bytes", None, "question", f"{said}; with the model's {total - sizes[entry]:,.0f} that is {total:,.0f}",
                          places(texts, (found, run.model_bytes)), "the program that was run")
        else:
            yield Finding("code-bytes", None, "unknown", f"{said}: not the same file, though both are within the cap",
                          places(texts, (found,)), "the program that was run")
        return
    yield Finding("code-bytes", None, "pass", f"the code that {len(counted)} logs count is a file shipped", places(texts, (counted[0][1],)))


def train_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """The train loop of the headline runs against 600 s."""
    yield from _clock(record, texts, "train-clock", "trained", TRAIN, [(run, run.train_seconds) for run, _ in record.chosen()])


def eval_clock(record: Record, texts: Texts) -> Iterator[Finding]:
    """The final scored path of the headline runs against 600 s."""
    yield from _clock(record, texts, "eval-clock", "evaluated", EVAL, [(run, time) for (run, _), time in zip(record.chosen(), record.eval_seconds(), strict=True)])


def _clock(record: Record, texts: Texts, rule: str, verb: str, limit: float, timed: list[tuple[Run, Number | None]]) -> Iterator[Finding]:
    claim, field = record.claim(), "train_seconds" if rule == "train-clock" else "eval_seconds"
    known = [(shown(run), found, _official(record, run)) for run, found in timed if found]
    if claim and not known:
        known = [(claim.file, one, False) for one in [getattr(claim, field)] if one]
        known += [(f"seed {one.seed}", found, False) for one in claim.results for found in [getattr(one, field)] if found]
    if not known:
        yield Finding(rule, None, "unknown", "no headline log and no JSON states the time", (), "the time line of the run")
        return
    name, most, official = max(known, key=lambda one: one[1].value)
    if most.low <= limit + GRACE or not on_record_track(record):
        aside = "" if most.low <= limit + GRACE else "; not on the ten-minute track"
        yield Finding(rule, None, "pass", f"{name} {verb} for {most.value:,.1f} s, the longest of {len(known)}{aside}", places(texts, (most,)))
        return
    proved = most.low > limit * WELL_OVER and official
    yield Finding(rule, None, "fail" if proved else "question", f"{name} {verb} for {most.value:,.1f} s of {limit:.0f} s allowed",
                  places(texts, (most,)), "a run within the clock, with its log")


def _official(record: Record, run: Run) -> bool:
    """Whether log and JSON speak of eight cards and of none but H100: on others a longer time proves nothing."""
    claim = record.claim()
    named = [word.value for word in (run.gpu, claim.hardware if claim else None) if word]
    return run.world_size is not None and run.world_size.value == 8 and all("H100" in name for name in named)
