"""`pgolf list`, and the commands that take a submission's name for its newest run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UsageError
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.run_folders import write_run

MAY, JUNE, JULY = (f"2026-0{month}-01T10:20:30+00:00" for month in (5, 6, 7))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `runs` of an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def rows() -> list[dict[str, Any]]:
    found = json.loads(pgolf("list", "--json").stdout)
    assert (found["schema"], found["runs"]) == (1, "runs")
    listed: list[dict[str, Any]] = found["rows"]
    return listed


def test_without_runs_the_list_says_what_makes_one(runs: Path) -> None:
    assert pgolf("list").stdout == "runs holds no run yet: `pgolf run submissions/NAME` makes one\n"
    assert rows() == []


def test_the_newest_run_comes_first_with_all_that_is_known(runs: Path) -> None:
    old = write_run(runs, "uniform", MAY, verdict="invalid", mean_bpb=None, shown=None)
    new = write_run(
        runs, "my-idea", JUNE, train_seconds=4.5, verdict="valid", mean_bpb=2.1, shown=["C2", "C4"]
    )
    first, second = rows()
    assert first == {
        "submission": "my-idea",
        "profile": "pocket",
        "dataset": "pocket",
        "train_seconds": 4.5,
        "bpb": 2.1,
        "shown": ["C2", "C4"],
        "verdict": "valid",
        "date": JUNE,
        "run_dir": str(new.path),
        "reason": None,
    }
    assert (second["verdict"], second["bpb"], second["shown"]) == ("invalid", None, None)
    lines = pgolf("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["submission", "profile", "dataset"]
    assert lines[1].split() == [
        *("my-idea", "pocket", "pocket", "4.5", "s", "2.1000", "C2", "C4", "valid"),
        *("2026-06-01", "10:20", str(new.path)),
    ]
    assert lines[2].split()[3:7] == ["–", "–", "–", "invalid"]
    assert lines[2].rstrip().endswith(str(old.path))


def test_a_run_that_shows_no_condition_differs_from_one_whose_verdict_does_not_say(runs: Path) -> None:
    write_run(runs, "uniform", MAY, shown=[])
    assert rows()[0]["shown"] == []
    assert " none " in pgolf("list").stdout


def test_a_run_without_a_verdict_is_unfinished_and_comes_with_what_resumes_it(runs: Path) -> None:
    folder = write_run(runs, "uniform", MAY)
    assert rows()[0]["verdict"] == "unfinished"
    assert f"{folder.path}: no verdict yet: the same `pgolf run` resumes it" in pgolf("list").stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "the whole"),
        ("[" * 100_000, "not valid JSON (maximum recursion"),
        ('{"schema": 2}', "schema: Input should be 1"),
        ('{"schema": 1, "verdict": "valid"}', "dataset: Field required"),
        (
            '{"schema": 1, "verdict": "valid", "dataset": {"name": "x"}, "mean_bpb": NaN}',
            "mean_bpb: Input should be a finite number",
        ),
    ],
)
def test_a_damaged_verdict_becomes_a_row_with_the_reason(runs: Path, content: str, says: str) -> None:
    good, damaged = write_run(runs, "my-idea", MAY, verdict="valid"), write_run(runs, "uniform", JUNE)
    damaged.verdict.write_text(content)
    first, second = rows()
    assert (first["verdict"], first["bpb"], second["run_dir"]) == ("unreadable", None, str(good.path))
    assert says in first["reason"]
    assert says in pgolf("list").stdout


def test_what_strangers_wrote_controls_no_terminal(runs: Path) -> None:
    folder = write_run(runs, "uniform", MAY, shown=["C2\x1b[31m"], dataset={"name": "a\nb"})
    folder.path.rename(folder.path.parent / "pocket-0123456789ab")
    printed = pgolf("list").stdout
    assert "C2\\x1b[31m" in printed and "a\\nb" in printed
    assert "\x1b" not in printed


def test_a_record_that_cannot_be_read_comes_last_with_the_reason(runs: Path) -> None:
    write_run(runs, "uniform", "never")
    write_run(runs, "my-idea", MAY, verdict="valid")
    assert [row["verdict"] for row in rows()] == ["valid", "unreadable"]


def test_report_takes_a_name_for_the_newest_run(runs: Path) -> None:
    write_run(runs, "my-idea", MAY, verdict="invalid")
    folder = write_run(runs, "my-idea", JULY)
    assert f"report: {folder.path}/report.md" in pgolf("report", "my-idea").stdout
    assert folder.page.exists()


@pytest.mark.parametrize("words", [("report",), ("rescore",), ("export",), ("compare", "uniform")])
def test_every_command_that_takes_a_run_suggests_near_names(runs: Path, words: tuple[str, ...]) -> None:
    write_run(runs, "uniform", MAY)
    refused = pgolf(*words, "unifrom").exception
    assert isinstance(refused, UsageError)
    assert (refused.message.split(":")[0], refused.hint) == ("unifrom", "did you mean uniform?")
