"""`pgolf all`: every submission on every runner, one after the other, and one table at the end.

A failed submission becomes a row; the others still run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from harness.base import bug, disk
from harness.base.console import new_console, print_lines, print_table, text_cells
from harness.base.errors import HarnessError
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.base.text import cell
from harness.commands import options, run as run_command
from harness.commands.run import RunOptions
from harness.run.submission import load
from harness.run.witness_state import witness_request
from harness.runners import docker_engine
from harness.runners.docker_engine import NoEngine
from harness.runners.select import RunnerName
from harness.verdict import decide
from harness.verdict.headline import standing
from harness.verdict.report import STYLE

app = options.new_app()
COLUMNS = (
    ("submission", "{}"),
    ("runner", "{}"),
    ("outcome", "{}"),
    ("bpb", "{:.4f}"),
    ("seeds", "{}"),
    ("shown", "{}"),
    ("seconds", "{:.0f}"),
)


@app.command("all")
def run_every(
    submissions: Annotated[list[Path] | None, typer.Argument(help="Default: all of submissions/.")] = None,
    profile: options.Profile = "pocket",
    runner: Annotated[
        Literal["docker", "local"] | None, typer.Option(help="Default: both, docker where an engine answers.")
    ] = None,
    one_seed: Annotated[
        bool, typer.Option("--one-seed", help="Only the first seed of each manifest.")
    ] = False,
    train_seconds: options.TrainSeconds = None,
    witness: options.Witness = None,
    data: options.Data = None,
    runs: options.Runs = options.RUNS,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Run every submission on both runners; goes on after a failure and exits with the worst code.

    pgolf all --runner local --one-seed --train-seconds 10
    """
    run_options = RunOptions(
        submission=Path(),
        profile=profile,
        runner=runner,
        runs=runs,
        data=data,
        train_seconds=train_seconds,
        request=witness_request(profile, witness),
    )
    with ProgressDisplay() as display:
        matrix = run_all(submissions or [], run_options, one_seed, display, allow_open)
    if as_json:
        print(json.dumps(matrix, indent=1))
    else:
        show(matrix, new_console())
    raise typer.Exit(matrix["exit_code"])


def run_all(
    folders: Sequence[Path],
    run_options: RunOptions,
    one_seed: bool,
    display: ProgressDisplay,
    allow_open: bool = False,
) -> dict[str, Any]:
    """Run each submission by `run_options`, on the runner it names or on both; docker is skipped where no
    engine answers.

    `one_seed` takes the first of each manifest's, so that the verdict stays inconclusive, which `allow_open`
    accepts. Finished runs are not run again.
    """
    runners: list[RunnerName] = ["docker", "local"] if run_options.runner is None else [run_options.runner]
    why_skipped = _why_no_engine() if run_options.runner is None else None
    chosen = folders or [path.parent for path in sorted((ROOT / "submissions").glob("*/manifest.yaml"))]
    cells = [(folder, runner) for folder in chosen for runner in runners]
    rows: list[dict[str, Any]] = []
    for number, (folder, runner) in enumerate(cells, 1):
        if runner == "docker" and why_skipped is not None:
            rows.append(_row(folder, runner, "skipped", reason=why_skipped))
            continue
        display.say(f"[{number}/{len(cells)}] {folder.name}, {runner}")
        rows.append(
            _run_one(replace(run_options, submission=folder, runner=runner), one_seed, display, allow_open)
        )
        if rows[-1]["exit_code"] == ExitCode.INTERRUPTED:
            rows += [_row(*left, "not begun", reason="interrupted before") for left in cells[number:]]
            break
    return {
        "schema": 1,
        "profile": run_options.profile,
        "train_seconds": run_options.train_seconds,
        "rows": rows,
        "exit_code": first_that_applies(row["exit_code"] for row in rows),
    }


def _why_no_engine() -> str | None:
    """Why no container engine answers; None where one does.

    Raises NoEngine where DOCKER_HOST or DOCKER_CONTEXT names the engine.
    """
    try:
        docker_engine.connect().close()
    except NoEngine as error:
        if error.required:
            raise
        return error.message
    return None


def _run_one(
    run_options: RunOptions, one_seed: bool, display: ProgressDisplay, allow_open: bool
) -> dict[str, Any]:
    """One run as a row, with the reason if it ended early."""
    folder, runner = run_options.submission, str(run_options.runner)
    began = time.monotonic()

    def not_run(code: ExitCode, reason: str) -> dict[str, Any]:
        if code != ExitCode.INTERRUPTED:
            display.say(f"{folder.name}, {runner}: {reason}")
        return _row(folder, runner, "not run", code, reason, time.monotonic() - began)

    try:
        seeds = load(folder).manifest.seeds[: 1 if one_seed else None]
        verdict = run_command.run_submission(replace(run_options, seeds=seeds), display)
    except HarnessError as error:
        return not_run(error.exit_code, str(error))
    except OSError as error:
        return not_run(ExitCode.MACHINE, str(disk.machine_fault(error)))
    except KeyboardInterrupt:
        return not_run(ExitCode.INTERRUPTED, "interrupted")
    except Exception as error:  # a bug ends this row, and the others still run
        display.say(bug.describe_bug(error))
        return _row(
            folder,
            runner,
            "not run",
            ExitCode.INTERNAL,
            f"a bug of pgolf: {bug.summary(error)}",
            time.monotonic() - began,
        )
    scored = sum(seed["bpb"] is not None for seed in verdict["seeds"])
    return _row(
        folder,
        runner,
        verdict["verdict"],
        decide.exit_code(verdict, allow_open, verdict["harness"]["stopped"]),
        "; ".join(_reasons(verdict)),
        verdict["harness"]["wall_seconds"],
    ) | {
        "bpb": verdict["mean_bpb"],
        "seeds": f"{scored}/{len(verdict['seeds'])}",
        "shown": ", ".join(verdict["shown"]) or "nothing",
        "run_dir": verdict["run_dir"],
    }


def _row(
    folder: Path,
    runner: str,
    outcome: str,
    exit_code: ExitCode = ExitCode.VALID,
    reason: str = "",
    seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "submission": folder.name,
        "runner": runner,
        "outcome": outcome,
        "bpb": None,
        "seeds": None,
        "shown": None,
        "seconds": seconds,
        "exit_code": exit_code,
        "reason": reason,
        "run_dir": None,
    }


def _reasons(verdict: dict[str, Any]) -> Iterator[str]:
    """Why a run is not valid."""
    if verdict["verdict"] == "inconclusive":
        yield standing(verdict)
    for found in verdict["findings"]:
        if found["outcome"] == "fail":
            yield f"{found['rule']}: {found['evidence']}"
    for seed in verdict["seeds"]:
        if seed["outcome"] in ("machine", "interrupted"):
            yield f"seed {seed['seed']}: {seed['outcome']}"


def show(matrix: dict[str, Any], console: Console) -> None:
    """The table, then one line for each row that has a reason."""
    rows = [
        text_cells((cell(row[key], form) for key, form in COLUMNS), STYLE.get(row["outcome"], ""))
        for row in matrix["rows"]
    ]
    print_table(console, [key for key, _ in COLUMNS], rows, prose=("shown",))
    for row in matrix["rows"]:
        if row["reason"]:
            line = f"{row['submission']}, {row['runner']}: {row['reason']}".replace("\n", "; ")
            print_lines(console, line)
