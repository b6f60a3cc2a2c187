"""A call keeps to its timetable by a made-up clock, and loses no row whatever happens."""

from __future__ import annotations

import json

import pytest

from golf.bench.gpu.call import Call
from golf.bench.gpu.results import Failed, Found, Journal, Skipped
from golf.bench.gpu.timetable import FIRST, SECOND, Entry, Timetable

ENTRIES = tuple(Entry(10 * i, 10, name, 4, f"what {name} decides") for i, name in enumerate("abcd"))


class Clock:
    """A clock that only the rows move."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def call(tmp_path, clock):
    with Call(Timetable(ENTRIES, clock), Journal(tmp_path / "out"), tmp_path / "logs") as call:
        yield call


def taking(clock, seconds, given):
    """A row that takes so many seconds and notes how many it was given."""

    def run(allowed):
        given.append(allowed)
        clock.now += seconds
        return Found(f"took {seconds}", {"seconds": seconds})

    return run


def outcomes(call):
    return [(row.name, row.outcome) for row in call.journal.rows]


@pytest.mark.parametrize("entries", [FIRST, SECOND], ids=["first", "second"])
def test_a_call_takes_less_than_nine_minutes_and_no_row_is_there_twice(entries):
    assert max(entry.end for entry in entries) < 540
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(entry.least < entry.seconds and entry.decides for entry in entries)
    assert [entry.start for entry in entries] == sorted(entry.start for entry in entries)


def test_a_row_that_begins_early_may_use_what_is_left_until_its_end(call, clock):
    given = []
    for name in "ab":
        call.row(name, taking(clock, 2, given))
    assert given == [10, 18]


def test_a_late_row_is_shortened_and_one_without_enough_time_is_skipped_and_says_so(call, clock):
    given = []
    for name, seconds in zip("abcd", (15, 11, 1, 1), strict=True):
        call.row(name, taking(clock, seconds, given))
    assert given == [10, 5, 4, 13]
    call.journal.rows.clear()
    clock.now += 9
    call.row("d", taking(clock, 1, given))
    (row,) = call.journal.rows
    assert row.outcome == "skipped" and row.seen == "it needs 4 s, and 3 s were left"


def test_a_row_that_raises_has_failed_and_the_others_still_run(call, clock, capsys):
    def failing(seconds):
        raise Failed("wrong by far")

    def broken(seconds):
        return 1 / 0

    def absent(seconds):
        raise Skipped("no script")

    for name, run in zip("abcd", (failing, broken, absent, taking(clock, 1, [])), strict=True):
        call.row(name, run)
    assert outcomes(call) == [("a", "failed"), ("b", "failed"), ("c", "skipped"), ("d", "ok")]
    assert [row.seen for row in call.journal.rows[:2]] == [
        "wrong by far",
        "ZeroDivisionError: division by zero",
    ]
    assert "Traceback" in capsys.readouterr().err


def test_every_row_is_on_disk_as_soon_as_it_ends(call, clock):
    for number, name in enumerate("ab", 1):
        call.row(name, taking(clock, 1, []))
        lines = call.journal.lines.read_text().splitlines()
        assert [json.loads(line)["name"] for line in lines] == list("ab"[:number])


def test_rows_that_never_began_are_on_record_as_skipped(call, clock):
    call.row("a", taking(clock, 1, []))
    call.finish()
    assert outcomes(call) == [("a", "ok"), ("b", "skipped"), ("c", "skipped"), ("d", "skipped")]


def test_the_reports_name_machine_date_outcome_and_what_a_row_decides(call, clock):
    call.row("a", taking(clock, 61, []))
    call.finish()
    text = call.journal.write({"card": "a card", "date": "today"})
    assert text.startswith("card a card, date today\n")
    assert "| a | ok | took 61 | 61.0 | 1:01 | what a decides |" in text
    assert "| b | SKIPPED | the call ended before | 0.0 |" in text
    whole = json.loads((call.journal.folder / "gpu.json").read_text())
    assert whole["machine"]["card"] == "a card" and whole["rows"][0]["numbers"] == {"seconds": 61}
