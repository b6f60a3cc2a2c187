"""Training curves and clocks that cannot be: runs that are copies of each other, a first loss below chance, stamps that contradict times.

#1732: from step 400 on the losses of seed 314 are those of seed 42 less exactly 0.0033; step 0 reads 4.82 where ln 8192 is 9.01; 1,086
seconds are claimed of a log whose stamps span 773. Independent runs differ in the third decimal at every step, so a
constant difference over MIN_POINTS points is proof that they are not. Not covered: curves made up with noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import Texts, places, shown
from harness.audit.record.facts import Point, Record, Run, Word

MIN_POINTS = 12
CHANCE = 0.75
"""A first loss below this share of ln V is not an untrained model's."""


def copies(record: Record, texts: Texts) -> Iterator[Finding]:
    """Pairs of runs of different seeds whose curves or times are one."""
    runs = [record.runs[index] for index in dict.fromkeys(one.run for one in record.headline)]
    runs += [run for run in record.runs if all(run is not known for known in runs)]
    runs = [run for run in runs if run.seed is not None and run.runs_in_log == 1 and len(run.train_curve) >= MIN_POINTS][:12]
    if len(runs) < 2:
        yield Finding("independent-runs", None, "unknown", "fewer than two seeds with a training curve", (), "the logs of all seeds")
        return
    clean = True
    for index, first in enumerate(runs):
        for second in runs[index + 1:]:
            if first.seed != second.seed and (found := _copied(texts, first, second)):
                clean = False
                yield found
    if clean:
        yield Finding("independent-runs", None, "pass", f"the training curves of {len(runs)} runs differ as independent ones do")


def _copied(texts: Texts, first: Run, second: Run) -> Finding | None:
    there = {point.step: point for point in second.train_curve}
    pairs = [(point, there[point.step]) for point in first.train_curve if point.step > 1 and point.step in there]
    tail = pairs[-max(MIN_POINTS, len(pairs) * 3 // 4):]
    if len(tail) < MIN_POINTS:
        return None
    if len({one.nats for one, _ in tail}) < MIN_POINTS * 2 // 3:  # a curve that stands still says nothing
        return None
    gaps = {round(one.nats - other.nats, 6) for one, other in tail}
    timed = [(one.seconds, other.seconds) for one, other in tail if one.seconds and other.seconds]
    same_times = len(timed) >= MIN_POINTS and all(one == other and one != round(one) for one, other in timed)
    if len(gaps) > 1 and not same_times:
        return None
    if len(gaps) > 1:
        said, proved = f"print the same {len(timed)} times to the millisecond", True
    else:
        gap = abs(gaps.pop())
        said = f"have the same loss at {len(tail)} steps" if not gap else f"differ by exactly {gap:.4f} at {len(tail)} steps"
        proved = bool(gap) or same_times  # the same losses at other times may be a seed that does not reach the run
    return Finding("independent-runs", None, "fail" if proved else "question", f"{shown(first)} and {shown(second)} {said}: not independent runs",
                   (*_point(texts, first, tail[-1][0]), *_point(texts, second, tail[-1][1])), "the logs that the two runs wrote")


def _point(texts: Texts, run: Run, point: Point) -> tuple[Evidence, ...]:
    return places(texts, (Word(value="", file=run.file, line=point.line),))


def first_loss(record: Record, texts: Texts) -> Iterator[Finding]:
    """The first loss of the headline runs against ln V, what chance scores."""
    for run, _ in record.chosen():
        points = [point for point in run.val_curve[:1] or run.train_curve[:1] if point.step <= 1]
        if not points or run.vocabulary is None or run.vocabulary.value < 2:
            continue
        chance = math.log(run.vocabulary.value)
        low = min(points, key=lambda point: point.nats)
        if low.nats < CHANCE * chance:
            yield Finding("first-loss", None, "question", f"{shown(run)} begins at {low.nats:.4f} nats; an untrained model over "
                          f"{run.vocabulary.value:,.0f} tokens begins near ln V = {chance:.2f}", _point(texts, run, low), "what the run starts from")
            return
    if any(run.train_curve and run.vocabulary for run, _ in record.chosen()):
        yield Finding("first-loss", None, "pass", "the headline runs begin at chance, or their first loss is not printed")


def stamps(record: Record, texts: Texts) -> Iterator[Finding]:
    """Time stamps of a log against the durations that the same log states."""
    for run, _ in record.chosen():
        span = _seconds(run.began, run.ended)
        stated = sum(found.value for found in (run.train_seconds, run.eval_seconds) if found and found.file == run.file)
        if span is None or not stated:
            continue
        where = places(texts, (run.began, run.ended, run.train_seconds, run.eval_seconds))
        if span < 0.9 * stated and stated - span > 30:
            yield Finding("time-stamps", None, "fail", f"{shown(run)}: its stamps span {span:,.0f} s, and it states {stated:,.0f} s "
                          "of training and evaluation", where, "the log that the run wrote")
        else:
            yield Finding("time-stamps", None, "pass", f"{shown(run)}: stamps span {span:,.0f} s, {stated:,.0f} s are stated", where)
        return


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
    """Steps x time a step against the train clock."""
    for run, _ in record.chosen():
        if run.steps and run.step_ms and run.train_seconds and run.train_seconds.value > 60 and run.steps.value > 100:
            product = run.steps.value * run.step_ms.value / 1000
            if abs(product / run.train_seconds.value - 1) > 0.25:  # some print the time of the last steps only
                yield Finding("step-times", None, "question", f"{shown(run)}: {run.steps.value:,.0f} steps x {run.step_ms.value:.2f} ms = "
                              f"{product:,.0f} s, and {run.train_seconds.value:,.0f} s are stated",
                              places(texts, (run.steps, run.step_ms, run.train_seconds)), "how the step time is measured")
                return
