"""Training curves and clocks that cannot be: copied runs, a first loss far below chance, stamps that
contradict times.

#1732: from step 400 on the losses of seed 314 are those of seed 42 less exactly 0.0033; step 0 reads 4.82
where ln 8192 is 9.01; a log states 1,086 seconds and its stamps span 773. Independent runs differ in the
third decimal at every step, so a constant difference over MIN_POINTS points is proof that they are not. Not
covered: curves made up with noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations

from harness.audit.finding import Finding
from harness.audit.numbers.ask import Places, Texts, asked, passed, places, shown, unknown
from harness.audit.record.facts import Point, Record, Run, Word

MIN_POINTS = 12
MAX_RUNS = 12
CHANCE = 0.75
"""A first loss below this share of ln V is not an untrained model's."""
SHORT, SHORT_SECONDS = 0.9, 30
"""Stamps that span less than this share of what is stated, and less by more than this, contradict it."""
STEP_TIMES = 0.25
"""Relative: some logs print the time of their last steps and not the mean."""
RESUMED = 0.25
"""Share of the steps before the first that is printed."""


def copies(record: Record, texts: Texts) -> Iterator[Finding]:
    """Pairs of runs of different seeds whose curves or times are one."""
    heads = [record.runs[index] for index in dict.fromkeys(one.run for one in record.headline)]
    rest = [run for run in record.runs if all(run is not head for head in heads)]
    runs = [
        run
        for run in (*heads, *rest)
        if run.seed is not None and run.runs_in_log == 1 and len(run.train_curve) >= MIN_POINTS
    ][:MAX_RUNS]
    if len(runs) < 2:
        yield unknown(
            "independent-runs", "fewer than two seeds with a training curve", "the logs of all seeds"
        )
        return
    found = [
        copied
        for first, second in combinations(runs, 2)
        if first.seed != second.seed
        for copied in [_copied(texts, first, second)]
        if copied
    ]
    yield from found
    if not found:
        yield passed(
            "independent-runs", f"the training curves of {len(runs)} runs differ as independent ones do"
        )


def _copied(texts: Texts, first: Run, second: Run) -> Finding | None:
    there = {point.step: point for point in second.train_curve}
    pairs = [
        (point, there[point.step]) for point in first.train_curve if point.step > 1 and point.step in there
    ]
    tail = pairs[-max(MIN_POINTS, len(pairs) * 3 // 4) :]
    if len({one.nats for one, _ in tail}) < MIN_POINTS * 2 // 3:  # too short, or a curve that stands still
        return None
    gaps = {round(one.nats - other.nats, 6) for one, other in tail}
    timed = [(one.seconds, other.seconds) for one, other in tail if one.seconds and other.seconds]
    same_times = len(timed) >= MIN_POINTS and all(one == other and one != round(one) for one, other in timed)
    gap = abs(next(iter(gaps)))
    if len(gaps) > 1 and not same_times:
        return None
    said = (
        f"print the same {len(timed)} times to the millisecond"
        if len(gaps) > 1
        else f"differ by exactly {gap:.4f} at {len(tail)} steps"
        if gap
        else f"have the same losses at {len(tail)} steps"
    )
    last, its_twin = tail[-1]
    return asked(
        "independent-runs",
        f"{shown(first)} and {shown(second)} {said}: not independent runs",
        _point(texts, first, last) + _point(texts, second, its_twin),
        "the logs that the two runs wrote",
        proved=same_times or gap > 0,
    )  # the same losses at other times may be a seed that never reached the run


def _point(texts: Texts, run: Run, point: Point) -> Places:
    return places(texts, Word(value="", file=run.file, line=point.line))


def first_loss(record: Record, texts: Texts) -> Iterator[Finding]:
    """The first loss of the headline runs against ln V, what chance scores; of the validation loss where step
    0 prints one."""
    seen = 0
    for run, _ in record.chosen():
        first = next((point for point in (*run.val_curve[:1], *run.train_curve[:1]) if point.step <= 1), None)
        if first is None or run.vocabulary is None or run.vocabulary.value < 2:
            continue
        if run.steps and run.steps.value == 0:  # a finished model is scored once more: #174, #1170
            continue
        seen += 1
        chance = math.log(run.vocabulary.value)
        if first.nats < CHANCE * chance:
            yield asked(
                "first-loss",
                f"{shown(run)} begins at {first.nats:.4f} nats, where an untrained model over "
                f"{run.vocabulary.value:,.0f} tokens begins near ln V = {chance:.2f}",
                _point(texts, run, first),
                "what the run starts from",
            )
            return
    if seen:
        yield passed("first-loss", f"{seen} headline runs begin near chance or above")
    else:
        yield unknown(
            "first-loss",
            "no headline log prints its first loss and its vocabulary",
            "the log from its first step",
        )


def stamps(record: Record, texts: Texts) -> Iterator[Finding]:
    """Time stamps of a headline log against the durations that the same log states."""
    for run, _ in record.chosen():
        span = _seconds(run.began, run.ended)
        stated = math.fsum(
            found.value for found in (run.train_seconds, run.eval_seconds) if found and found.file == run.file
        )
        if span is None or not stated or run.runs_in_log > 1:
            continue
        said = f"{shown(run)}: its stamps span {span:,.0f} s, and it states {stated:,.0f} s of training and evaluation"
        where = places(texts, run.began, run.ended, run.train_seconds, run.eval_seconds)
        if span < SHORT * stated and stated - span > SHORT_SECONDS:
            yield asked("time-stamps", said, where, "the log that the run wrote", proved=True)
        else:
            yield passed("time-stamps", said, where)
        return
    yield unknown("time-stamps", "no headline log bears time stamps throughout", "a log with time stamps")


def _seconds(began: Word | None, ended: Word | None) -> float | None:
    if began is None or ended is None:
        return None
    if began.value.isdigit() and ended.value.isdigit():
        return float(ended.value) - float(began.value)
    try:
        return (datetime.fromisoformat(ended.value) - datetime.fromisoformat(began.value)).total_seconds()
    except (ValueError, TypeError):
        return None


def step_times(record: Record, texts: Texts) -> Iterator[Finding]:
    """Steps x time a step against the train clock, of the first headline run that prints all three and began
    at its first step.

    A log of several runs has steps of one and times of another (#460); a resumed one counts steps of before
    (#2113)."""
    for run, _ in record.chosen():
        if run.runs_in_log > 1 or _resumed(run):
            continue
        if not (
            run.steps
            and run.step_ms
            and run.train_seconds
            and run.train_seconds.value > 60
            and run.steps.value > 100
        ):
            continue
        product = run.steps.value * run.step_ms.value / 1000
        said = (
            f"{shown(run)}: {run.steps.value:,.0f} steps x {run.step_ms.value:.2f} ms = {product:,.0f} s, "
            f"{run.train_seconds.value:,.0f} s are stated"
        )
        where = places(texts, run.steps, run.step_ms, run.train_seconds)
        if abs(product / run.train_seconds.value - 1) > STEP_TIMES:
            yield asked("step-times", said, where, "how the step time is measured")
        else:
            yield passed("step-times", said, where)
        return
    yield unknown(
        "step-times",
        "no headline log of one whole run prints steps, step time and train time",
        "a log that prints them",
    )


def _resumed(run: Run) -> bool:
    """Whether the first of several steps that are printed is far from the start; logs that print only the
    last say nothing."""
    printed = {point.step for point in (*run.train_curve, *run.val_curve)}
    return bool(run.steps and len(printed) > 1 and min(printed) > RESUMED * run.steps.value)
