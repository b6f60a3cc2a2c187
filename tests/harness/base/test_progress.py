"""Progress on stderr: lines with seconds where there is no terminal, bars with times where there is one."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from harness.base.progress import LINE_SECONDS, ProgressDisplay
from harness.base.timing import duration, seconds_left

TITLES = [f"seed {seed} {stage}" for seed in (1, 2, 3) for stage in ("train", "pack")]


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run_stage(display: ProgressDisplay, clock: Clock, title: str, seconds: float) -> None:
    with display.stage(title):
        clock.now += seconds


def fail(display: ProgressDisplay, clock: Clock, title: str) -> None:
    with display.stage(title):
        clock.now += 2
        raise OSError("no disk")


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr; there must be nothing on stdout."""
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_without_a_terminal_a_stage_has_a_line_at_its_begin_and_one_with_its_seconds_at_its_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(clock) as display:
        run_stage(display, clock, "seed 1337 train", 45.12)
    assert said(capsys) == ["seed 1337 train ...", "seed 1337 train: 45.1 s"]


def test_a_long_stage_without_a_terminal_has_a_line_now_and_then_with_what_is_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(clock) as display, display.stage("train") as on_progress:
        for percent in range(101):
            on_progress(percent / 100, f"step {percent}")
            clock.now += 1
    lines = said(capsys)
    assert lines == [
        "train ...",
        "train: 30%, 0:30 elapsed, about 1:10 left",
        "train: 60%, 1:00 elapsed, about 0:40 left",
        "train: 90%, 1:30 elapsed, about 0:10 left",
        "train: 101.0 s",
    ]


def test_a_stage_that_raises_says_after_how_long(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(clock) as display, pytest.raises(OSError, match="no disk"):
        fail(display, clock, "pack")
    assert said(capsys) == ["pack ...", "pack: stopped after 2.0 s"]


def test_a_plan_gives_the_place_of_each_stage_and_what_is_left_of_the_whole(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(clock) as display:
        run_stage(display, clock, "describe", 4)
        display.plan(TITLES)
        for title in TITLES[:3]:
            run_stage(display, clock, title, 60 if title.endswith("train") else 20)
        with display.stage(TITLES[3]) as on_progress:
            clock.now += LINE_SECONDS
            on_progress(0.75, "")
    begins = [line for line in said(capsys) if "..." in line or "%" in line]
    assert begins == [
        "describe ...",
        "seed 1 train ... (stage 1 of 6, 0:00 elapsed)",
        "seed 1 pack ... (stage 2 of 6, 1:00 elapsed)",
        "seed 2 train ... (stage 3 of 6, 1:20 elapsed, about 2:40 left)",
        "seed 2 pack ... (stage 4 of 6, 2:20 elapsed, about 1:40 left)",
        "seed 2 pack: 75%, 0:30 elapsed, about 0:10 left (stage 4 of 6, 2:50 elapsed, about 1:30 left)",
    ]


def test_a_stage_that_failed_is_no_measure_for_later_ones(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(clock) as display:
        display.plan(["seed 1 train", "seed 2 train"])
        with pytest.raises(OSError, match="no disk"):
            fail(display, clock, "seed 1 train")
        run_stage(display, clock, "seed 2 train", 1)
    assert "seed 2 train ... (stage 2 of 2, 0:02 elapsed)" in said(capsys)


def test_on_a_terminal_a_bar_shows_the_times_of_the_stage_and_of_the_whole(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    with ProgressDisplay(clock, console) as display:
        display.plan(TITLES)
        for title in TITLES[:2]:
            run_stage(display, clock, title, 20)
        with display.stage(TITLES[2]) as on_progress:
            clock.now += 10
            on_progress(0.25, "[red]step 7\x1b[2J and more words than a narrow terminal has room for")
            display.bars.refresh()
    shown = stream.getvalue()
    assert "0:10 elapsed, about 0:30 left" in shown
    assert "stage 3 of 6, 0:50 elapsed, about 1:30 left" in shown
    assert "[red]" in shown and "\x1b[2J" not in shown
    assert "seed 1 train: 20.0 s" in shown and "..." not in shown


def test_what_a_contestant_sends_as_its_fraction_never_breaks_the_display(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(clock) as display, display.stage("train") as on_progress:
        for fraction in (-1.0, 0.0, 1e-300, 7.0):
            clock.now += LINE_SECONDS
            on_progress(fraction, "")
    assert [line.split(": ")[1].split(", ", 1) for line in said(capsys)[1:-1]] == [
        ["0%", "0:30 elapsed"],
        ["0%", "1:00 elapsed"],
        ["0%", "1:30 elapsed"],
        ["100%", "2:00 elapsed, about 0:00 left"],
    ]


def test_messages_are_shown_without_markup_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        display.say("[red]a\x1b[2J\nhint: b")
    assert said(capsys) == ["[red]a\\x1b[2J", "hint: b"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (330, "5:30"), (3600, "1:00:00"), (36_061, "10:01:01")]
)
def test_a_duration_is_written_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_nothing_is_said_of_what_is_left_before_two_percent_are_done() -> None:
    assert (seconds_left(10, 0.0), seconds_left(10, 0.019), seconds_left(10, 0.5)) == (None, None, 10)
