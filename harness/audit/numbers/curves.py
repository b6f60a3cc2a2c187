"""Check training curves and clocks: copied runs, impossible first losses, contradictory time stamps.

#1732: from step 400 on the losses of seed 314 are those of seed 42 less exactly 0.0033; step 0 reads 4.82
where ln 8192 is 9.01; a log states 1,086 seconds and its stamps span 773. Independent runs differ in the
third decimal at every step, so a constant difference over MIN_POINTS points proves a copy. Curves that are
invented with noise are not detected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations

from harness.audit.finding import Finding
from harness.audit.numbers.findings import Lines, Texts, passed, question, quote, run_name, unknown
from harness.audit.record.facts import Point, Record, Run, Word
from harness.verdict.rule_info import RuleInfo

MIN_POINTS = 12
MAX_RUNS = 12
CHANCE = 0.75
"""An untrained model's first loss is at least this share of ln V."""
SHORT, SHORT_SECONDS = 0.9, 30
"""Time stamps contradict the stated time where they span less than this share of it and fall short
by more than this many seconds."""
STEP_TIME_TOLERANCE = 0.25
"""Relative: some logs print the time of their last steps and not the mean."""
RESUMED = 0.25
"""A run that prints its first step later than this share of all steps was resumed."""


INDEPENDENT_RUNS = RuleInfo(
    id="independent-runs",
    title="Runs of different seeds are copies",
    condition=None,
    source="README R5, #1732",
    checks="losses at the same steps: equal, or apart by one constant over 12 points; times equal to the "
    "millisecond",
    example="#1732: seed 314 is seed 42 less 0.0033 at 16 steps",
    not_covered="curves that are invented with noise",
)


def copies(record: Record, texts: Texts) -> Iterator[Finding]:
    """Find pairs of runs of different seeds whose curves or times are the same."""
    headline_runs = [record.runs[index] for index in dict.fromkeys(one.run for one in record.headline)]
    rest = [run for run in record.runs if all(run is not head for head in headline_runs)]
    runs = [
        run
        for run in (*headline_runs, *rest)
        if run.seed is not None and run.runs_in_log == 1 and len(run.train_curve) >= MIN_POINTS
    ][:MAX_RUNS]
    if len(runs) < 2:
        yield unknown(INDEPENDENT_RUNS, "fewer than two seeds with a training curve", "the logs of all seeds")
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
            INDEPENDENT_RUNS, f"the training curves of {len(runs)} runs differ as independent ones do"
        )


def _copied(texts: Texts, first: Run, second: Run) -> Finding | None:
    second_points = {point.step: point for point in second.train_curve}
    pairs = [
        (point, second_points[point.step])
        for point in first.train_curve
        if point.step > 1 and point.step in second_points
    ]
    tail = pairs[-max(MIN_POINTS, len(pairs) * 3 // 4) :]
    if len({one.nats for one, _ in tail}) < MIN_POINTS * 2 // 3:  # too short, or a curve that stands still
        return None
    offsets = {round(one.nats - other.nats, 6) for one, other in tail}
    timed = [(one.seconds, other.seconds) for one, other in tail if one.seconds and other.seconds]
    same_times = len(timed) >= MIN_POINTS and all(one == other and one != round(one) for one, other in timed)
    offset = abs(next(iter(offsets)))
    if len(offsets) > 1 and not same_times:
        return None
    relation = (
        f"print the same {len(timed)} times to the millisecond"
        if len(offsets) > 1
        else f"differ by exactly {offset:.4f} at {len(tail)} steps"
        if offset
        else f"have the same losses at {len(tail)} steps"
    )
    last, last_twin = tail[-1]
    return question(
        INDEPENDENT_RUNS,
        f"{run_name(first)} and {run_name(second)} {relation}: not independent runs",
        _point(texts, first, last) + _point(texts, second, last_twin),
        "the logs that the two runs wrote",
        proved=same_times or offset > 0,
    )  # equal losses at different times prove no copy: the seed option may have had no effect


def _point(texts: Texts, run: Run, point: Point) -> Lines:
    return quote(texts, Word(value="", file=run.file, line=point.line))


FIRST_LOSS = RuleInfo(
    id="first-loss",
    title="The first loss is far below chance",
    condition=None,
    source="#1732",
    checks="the loss at step 0 or 1 against 0.75 ln V",
    example="#1732: 4.82 where ln 8192 is 9.01",
    not_covered="whether the run resumed or printed another loss, which begins lower honestly: so it is a "
    "question",
)


def first_loss(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the first loss of the headline runs with ln V, the loss of a uniform guess.

    The validation loss counts where step 0 prints one, else the training loss.
    """
    n_checked = 0
    for run, _ in record.chosen():
        first = next((point for point in (*run.val_curve[:1], *run.train_curve[:1]) if point.step <= 1), None)
        if first is None or run.vocabulary is None or run.vocabulary.value < 2:
            continue
        if run.steps and run.steps.value == 0:  # a finished model is scored once more: #174, #1170
            continue
        n_checked += 1
        chance = math.log(run.vocabulary.value)
        if first.nats < CHANCE * chance:
            yield question(
                FIRST_LOSS,
                f"{run_name(run)} begins at {first.nats:.4f} nats, where an untrained model over "
                f"{run.vocabulary.value:,.0f} tokens begins near ln V = {chance:.2f}",
                _point(texts, run, first),
                "what the run starts from",
            )
            return
    if n_checked:
        yield passed(FIRST_LOSS, f"{n_checked} headline runs begin near chance or above")
    else:
        yield unknown(
            FIRST_LOSS,
            "no headline log prints its first loss and its vocabulary",
            "the log from its first step",
        )


TIME_STAMPS = RuleInfo(
    id="time-stamps",
    title="Time stamps span less time than the log states",
    condition=None,
    source="#1732",
    checks="first and last stamp against the train and evaluation seconds of the same log",
    example="#1732: 773 s of stamps, 1,086 s stated",
    not_covered="logs whose curve and scores bear no stamps",
)


def stamps(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare a headline log's time stamps with the durations that the same log states."""
    for run, _ in record.chosen():
        span = _seconds(run.began, run.ended)
        stated = math.fsum(
            found.value for found in (run.train_seconds, run.eval_seconds) if found and found.file == run.file
        )
        if span is None or not stated or run.runs_in_log > 1:
            continue
        message = (
            f"{run_name(run)}: its stamps span {span:,.0f} s, and it states {stated:,.0f} s of training and "
            "evaluation"
        )
        evidence = quote(texts, run.began, run.ended, run.train_seconds, run.eval_seconds)
        if span < SHORT * stated and stated - span > SHORT_SECONDS:
            yield question(TIME_STAMPS, message, evidence, "the log that the run wrote", proved=True)
        else:
            yield passed(TIME_STAMPS, message, evidence)
        return
    yield unknown(TIME_STAMPS, "no headline log bears time stamps throughout", "a log with time stamps")


def _seconds(began: Word | None, ended: Word | None) -> float | None:
    if began is None or ended is None:
        return None
    if began.value.isdigit() and ended.value.isdigit():
        return float(ended.value) - float(began.value)
    try:
        return (datetime.fromisoformat(ended.value) - datetime.fromisoformat(began.value)).total_seconds()
    except (ValueError, TypeError):
        return None


STEP_TIMES = RuleInfo(
    id="step-times",
    title="Steps x step time is not the train time",
    condition=None,
    source="README R2",
    checks="more than 25 % apart",
    example="6,000 x 776 ms where 1,551 s are stated",
    not_covered="logs that print the time of their last steps only, so it is a question",
)


def step_times(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare steps x time a step with the train time, for the first headline run that prints all three.

    A log of several runs is left out, because it has steps of one and times of another (#460), and so is a
    resumed run, whose steps include those of the run before (#2113).
    """
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
        message = (
            f"{run_name(run)}: {run.steps.value:,.0f} steps x {run.step_ms.value:.2f} ms = {product:,.0f} s, "
            f"{run.train_seconds.value:,.0f} s are stated"
        )
        evidence = quote(texts, run.steps, run.step_ms, run.train_seconds)
        if abs(product / run.train_seconds.value - 1) > STEP_TIME_TOLERANCE:
            yield question(STEP_TIMES, message, evidence, "how the step time is measured")
        else:
            yield passed(STEP_TIMES, message, evidence)
        return
    yield unknown(
        STEP_TIMES,
        "no headline log of one whole run prints steps, step time and train time",
        "a log that prints them",
    )


def _resumed(run: Run) -> bool:
    """Whether the first of several printed steps is far from the start; a log with one step tells nothing."""
    printed = {point.step for point in (*run.train_curve, *run.val_curve)}
    return bool(run.steps and len(printed) > 1 and min(printed) > RESUMED * run.steps.value)


RULES = (INDEPENDENT_RUNS, FIRST_LOSS, TIME_STAMPS, STEP_TIMES)
CHECKS = (copies, first_loss, stamps, step_times)
