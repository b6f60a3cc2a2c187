"""`pgolf list`, and the commands that take a submission's name for its newest run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UsageError
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.run_folders import write_run
from tests.harness.fakes.verdicts import broken, certified, record, witnessed

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
    old = write_run(runs, "uniform", MAY, seed=broken(1, "train", "failed", "protocol"))
    new = write_run(runs, "my-idea", JUNE, train_seconds=4.5, isolated=True, seed=witnessed(1))
    first, second = rows()
    assert first == {
        "submission": "my-idea",
        "profile": "pocket",
        "dataset": "pocket",
        "train_seconds": 4.5,
        "bpb": 2.1,
        "seeds": "1/1",
        "shown": ["C1", "C2", "C3", "C4"],
        "verdict": "valid",
        "date": JUNE,
        "run_dir": str(new.path),
        "reason": None,
    }
    assert (second["verdict"], second["bpb"], second["shown"]) == ("invalid", None, [])
    lines = pgolf("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["submission", "profile", "dataset"]
    assert lines[1].split() == [
        *("my-idea", "pocket", "pocket", "4.5", "s", "2.1000", "1/1", "C1", "C2", "C3", "C4", "valid"),
        *("2026-06-01", "10:20", str(new.path)),
    ]
    assert lines[2].split()[3:7] == ["–", "–", "0/1", "nothing"]
    assert lines[2].rstrip().endswith(str(old.path))


def test_the_list_says_what_the_records_say_and_not_a_verdict_json_that_somebody_wrote(runs: Path) -> None:
    folder = write_run(runs, "uniform", MAY, seed=record(1))
    folder.verdict.write_text(json.dumps({"schema": 1, "verdict": "valid", "mean_bpb": 0.5}))
    (row,) = rows()
    assert (row["verdict"], row["bpb"]) == ("inconclusive", 2.1)


def test_a_damaged_plan_becomes_a_row_with_the_reason(runs: Path) -> None:
    good, damaged = write_run(runs, "my-idea", MAY), write_run(runs, "uniform", JUNE)
    damaged.plan.write_text("{")
    first, second = rows()
    assert (first["verdict"], first["bpb"], second["run_dir"]) == ("unreadable", None, str(good.path))
    assert "not valid JSON" in first["reason"]
    assert "not valid JSON" in pgolf("list").stdout


def test_a_record_that_no_run_writes_becomes_a_row_with_the_reason(runs: Path) -> None:
    folder = write_run(runs, "uniform", MAY, seed=record(1))
    stored = json.loads(folder.seed(1).record.read_text())
    del stored["attempts"][-1]["facts"]["borders"]
    folder.seed(1).record.write_text(json.dumps(stored))
    (row,) = rows()
    assert (row["verdict"], "its records cannot be judged (KeyError" in row["reason"]) == ("unreadable", True)
    assert isinstance(pgolf("report", folder.path).exception, UsageError)


def test_what_strangers_wrote_controls_no_terminal(runs: Path) -> None:
    folder = write_run(runs, "uniform", MAY)
    stored = json.loads(folder.plan.read_text())
    stored["dataset"]["name"] = "a\nb\x1b[31m"
    folder.plan.write_text(json.dumps(stored))
    printed = pgolf("list").stdout
    assert "a\\nb\\x1b[31m" in printed
    assert "\x1b" not in printed


def test_a_record_that_cannot_be_read_comes_last_with_the_reason(runs: Path) -> None:
    write_run(runs, "uniform", "never")
    write_run(runs, "my-idea", MAY)
    assert [row["verdict"] for row in rows()] == ["inconclusive", "unreadable"]


def test_report_takes_a_name_for_the_newest_run(runs: Path) -> None:
    write_run(runs, "my-idea", MAY)
    folder = write_run(runs, "my-idea", JULY)
    assert f"report: {folder.path}/report.md" in pgolf("report", "my-idea").stdout
    assert folder.page.exists()


@pytest.mark.parametrize("words", [("report",), ("rescore",), ("export",), ("compare", "uniform")])
def test_every_command_that_takes_a_run_suggests_near_names(runs: Path, words: tuple[str, ...]) -> None:
    write_run(runs, "uniform", MAY)
    refused = pgolf(*words, "unifrom").exception
    assert isinstance(refused, UsageError)
    assert (refused.message.split(":")[0], refused.hint) == ("unifrom", "did you mean uniform?")


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("run.json", lambda facts: facts["certificate"].pop("largest_gain_nats")),
        ("run.json", lambda facts: facts["certificate"].update(detection=-1)),
        ("run.json", lambda facts: facts["certificate"]["conditions"][2].update(condition=0)),
        ("run.json", lambda facts: facts["certificate"].update(G_bpb={"a": 1})),
        ("rescored.json", lambda facts: facts["certificate"].update(G_bpb={"a": 1})),
        ("rescored.json", lambda facts: facts["certificate"]["conditions"][0].update(condition=1e308)),
        ("rescored.json", lambda facts: facts["certificate"].update(n_probes={})),
    ],
)
def test_a_damaged_certificate_is_refused_and_the_reports_stay_as_they_were(
    runs: Path, where: str, change: Callable[[Any], object]
) -> None:
    folder = write_run(runs, "uniform", MAY, seed=certified(1))
    stored = json.loads(folder.seed(1).record.read_text())
    facts = stored["attempts"][-1]["facts"]
    later = folder.seed(1).path / "rescored-01" / "rescored.json"
    later.parent.mkdir()
    later.write_text(json.dumps(facts))
    assert pgolf("report", folder.path).exit_code == 5
    before = folder.report.read_bytes(), folder.verdict.read_bytes()
    change(facts)
    if where == "run.json":
        folder.seed(1).record.write_text(json.dumps(stored))
    else:
        later.write_text(json.dumps(facts))
    assert isinstance(pgolf("report", folder.path).exception, UsageError)
    assert (folder.report.read_bytes(), folder.verdict.read_bytes()) == before
