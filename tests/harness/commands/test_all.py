"""`pgolf all`: every submission becomes a row, failures stop nothing, the worst code is the exit code."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.base.errors import MachineFault
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.base.progress import ProgressDisplay
from harness.commands import all, run
from harness.data.dataset import Dataset
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.sandbox import Sandbox

pytestmark = pytest.mark.slow

FAILING = """
_train = train
def train(wire, setup):
    if "fail" in open(setup["config"]).read():
        raise SystemExit(3)
    _train(wire, setup)

def describe(wire, setup):
    if "typo" in open(setup["config"]).read():
        raise SystemExit("typo: unknown key")
    wire.send(op="ready")
    wire.send(op="description", parameters=0, techniques=[], estimated_bytes=2048)
"""


class Matrix(Sandbox):
    """Three submissions: `fails`, `mistyped` and `uniform`."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        super().__init__(folder, dataset, "[1, 2]", FAILING)
        for name, recipe in (("fails", "fail: 1\n"), ("mistyped", "typo: 1\n")):
            copied = Path(shutil.copytree(self.submission, folder / name))
            (copied / "config.yaml").write_text(recipe)
            manifest = copied / "manifest.yaml"
            manifest.write_text(manifest.read_text().replace("name: uniform", f"name: {name}"))

    def run_all(
        self,
        *names: str,
        runner: Any = "local",
        one_seed: bool = True,
        train_seconds: float | None = None,
        allow_open: bool = False,
    ) -> dict[str, Any]:
        options = replace(self.options(), runner=runner, train_seconds=train_seconds)
        with ProgressDisplay() as display:
            return all.run_all([self.folder / name for name in names], options, one_seed, display, allow_open)


@pytest.fixture
def matrix(tmp_path: Path, tiny: Dataset) -> Matrix:
    return Matrix(tmp_path, tiny)


def test_a_failure_does_not_stop_the_others_and_the_worst_code_is_the_exit_code(matrix: Matrix) -> None:
    table = matrix.run_all("fails", "mistyped", "none", "uniform")
    assert [(row["submission"], row["outcome"], row["exit_code"]) for row in table["rows"]] == [
        ("fails", "invalid", 1),
        ("mistyped", "not run", 2),
        ("none", "not run", 2),
        ("uniform", "inconclusive", 5),
    ]
    assert table["exit_code"] == 2
    reasons = [row["reason"] for row in table["rows"]]
    assert "conduct: seed 1, train" in reasons[0]
    assert "typo: unknown key" in reasons[1], "the contestant's last lines"
    assert "no such submission" in reasons[2]
    stream = io.StringIO()
    all.show(table, Console(file=stream))
    for row in table["rows"]:
        assert row["submission"] in stream.getvalue() and row["outcome"] in stream.getvalue()


def test_open_verdicts_can_be_accepted_and_failures_cannot(matrix: Matrix) -> None:
    table = matrix.run_all("uniform", allow_open=True)
    assert (table["rows"][0]["outcome"], table["exit_code"]) == ("inconclusive", 0)
    assert "not shown: C1" in table["rows"][0]["reason"]
    assert matrix.run_all("fails", "uniform", allow_open=True)["exit_code"] == 1


def test_a_row_summarises_the_verdict(matrix: Matrix) -> None:
    (first,) = matrix.run_all("uniform")["rows"]
    (both,) = matrix.run_all("uniform", one_seed=False)["rows"]
    assert (first["seeds"], both["seeds"]) == ("1/2", "2/2")
    assert first["run_dir"] == both["run_dir"], "the first seed was not run again"
    assert (Path(both["run_dir"]) / "verdict.json").exists()
    assert both["bpb"] > 1
    assert both["seconds"] > 0


def test_without_an_engine_docker_is_skipped_with_the_reason_unless_it_was_asked_for(
    matrix: Matrix, no_engine: None
) -> None:
    table = matrix.run_all("uniform", runner=None)
    assert [(row["runner"], row["outcome"]) for row in table["rows"]] == [
        ("docker", "skipped"),
        ("local", "inconclusive"),
    ]
    assert "no container engine answers: there is no socket" in table["rows"][0]["reason"]
    assert table["exit_code"] == 5
    asked = matrix.run_all("uniform", runner="docker")
    assert (asked["rows"][0]["outcome"], asked["exit_code"]) == ("not run", 3)


def test_docker_host_that_does_not_answer_stops_the_matrix_before_its_first_row(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/s")
    with pytest.raises(MachineFault, match="DOCKER_HOST"):
        matrix.run_all("uniform", runner=None)
    assert matrix.run_all("uniform", runner="local")["rows"][0]["outcome"] == "inconclusive"


def test_an_interrupt_ends_the_matrix_and_lists_what_was_not_begun(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_submission", interrupt)
    table = matrix.run_all("fails", "uniform")
    assert [row["outcome"] for row in table["rows"]] == ["not run", "not begun"]
    assert table["exit_code"] == 130


def test_a_bug_ends_its_own_row_with_a_traceback_and_the_others_still_run(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run.run_submission

    def failing(run_options: run.RunOptions, display: ProgressDisplay) -> dict[str, Any]:
        if run_options.submission.name == "fails":
            raise ZeroDivisionError("division by zero")
        return whole(run_options, display)

    monkeypatch.setattr(run, "run_submission", failing)
    table = matrix.run_all("fails", "uniform")
    assert [(row["outcome"], row["exit_code"]) for row in table["rows"]] == [
        ("not run", 70),
        ("inconclusive", 5),
    ]
    assert table["rows"][0]["reason"] == "a bug of pgolf: ZeroDivisionError: division by zero"
    assert table["exit_code"] == 70
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "this is a bug of pgolf" in printed


@pytest.mark.parametrize(
    "codes", list(itertools.permutations([2, 3, 130], 3)) + list(itertools.permutations([4, 1, 5, 0], 4))
)
def test_the_worst_code_does_not_depend_on_the_order(codes: tuple[int, ...]) -> None:
    assert first_that_applies(codes) == (2 if 2 in codes else 4)


def test_a_short_clock_is_another_run_and_the_plan_and_the_report_state_it(matrix: Matrix) -> None:
    whole, short = (
        matrix.run_all("uniform")["rows"][0],
        matrix.run_all("uniform", train_seconds=4.5)["rows"][0],
    )
    assert whole["run_dir"] != short["run_dir"]
    plans = [
        json.loads((Path(row["run_dir"]) / "plan.json").read_text())["identity"] for row in (whole, short)
    ]
    assert [plan["limits"].pop("train_seconds") for plan in plans] == [45, 4.5]
    assert plans[0] == plans[1], "nothing else differs"
    report = (Path(short["run_dir"]) / "report.md").read_text()
    assert "train clock shortened to 4.5 s" in report
    assert "shortened" not in (Path(whole["run_dir"]) / "report.md").read_text()
    assert short["exit_code"] == ExitCode.INCONCLUSIVE


@pytest.mark.parametrize("seconds", [0.0, -1.0, 45.5, float("nan"), float("inf")])
def test_a_clock_can_only_be_shortened(matrix: Matrix, seconds: float) -> None:
    (row,) = matrix.run_all("uniform", train_seconds=seconds)["rows"]
    assert (row["exit_code"], "can only be shortened" in row["reason"]) == (2, True)


def test_the_command_prints_the_table_as_json_and_exits_with_its_code(matrix: Matrix) -> None:
    words = ("--runner", "local", "--one-seed", "--train-seconds", 9, "--witness", 0)
    done = pgolf("all", matrix.folder / "none", matrix.folder / "gone", *words, "--json")
    printed = json.loads(done.stdout)
    assert (done.exit_code, printed["exit_code"], printed["train_seconds"]) == (2, 2, 9.0)
    assert [row["runner"] for row in printed["rows"]] == ["local", "local"]
    assert "not run" in pgolf("all", matrix.folder / "none", *words).stdout


def test_the_table_is_complete_in_a_narrow_terminal() -> None:
    row = dict.fromkeys((key for key, _ in all.COLUMNS), 1234.5) | {
        "submission": "a" * 40,
        "reason": "why " * 30,
    }
    stream = io.StringIO()
    all.show({"rows": [row | {"outcome": "inconclusive"}]}, Console(file=stream, width=60))
    assert max(map(len, stream.getvalue().splitlines())) <= 60
    assert {"a" * 40, "inconclusive", "1234.5000"} <= set(stream.getvalue().split())
