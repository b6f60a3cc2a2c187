"""`pgolf all`: every submission on every runner, one after the other, and one table at the end.

What fails is a row; the others go on. Not covered: what one run is (command_run.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base.errors import HarnessError
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.base.text import MIN_COLUMNS, cell, plain
from harness.commands import run
from harness.run import submission
from harness.run.certify import WitnessRequest
from harness.run.preflight import RunnerName
from harness.runners import docker_engine
from harness.verdict import decide
from harness.verdict.report import STYLE

COLUMNS = (
    ("submission", "{}"),
    ("runner", "{}"),
    ("outcome", "{}"),
    ("bpb", "{:.4f}"),
    ("seeds", "{}"),
    ("seconds", "{:.0f}"),
)


def run_all(
    folders: Sequence[Path],
    profile: str,
    wanted: RunnerName | None,
    one_seed: bool,
    train_seconds: float | None,
    data: Path | None,
    runs: Path,
    progress: ProgressDisplay,
    package: Path = ROOT / "golf",
    request: WitnessRequest | None = None,
) -> dict[str, Any]:
    """Runs each submission on the runner that was asked for, or on both; docker is skipped where no engine
    answers.

    `one_seed` takes the first of each manifest's. Finished runs are not run again.
    """
    runners: list[RunnerName] = ["docker", "local"] if wanted is None else [wanted]
    skipped = {"docker"} if wanted is None and not _engine_answers() else set()
    chosen = folders or [path.parent for path in sorted((ROOT / "submissions").glob("*/manifest.yaml"))]
    cells = [(folder, runner) for folder in chosen for runner in runners]
    rows: list[dict[str, Any]] = []
    for number, (folder, runner) in enumerate(cells, 1):
        if runner in skipped:
            rows.append(_row(folder, runner, "skipped", reason="no container engine answers"))
            continue
        progress.say(f"[{number}/{len(cells)}] {folder.name}, {runner}")
        rows.append(
            _one(folder, profile, runner, one_seed, train_seconds, data, runs, progress, package, request)
        )
        if rows[-1]["exit_code"] == ExitCode.INTERRUPTED:
            rows += [_row(*left, "not begun", reason="interrupted before") for left in cells[number:]]
            break
    return {
        "schema": 1,
        "profile": profile,
        "train_seconds": train_seconds,
        "rows": rows,
        "exit_code": first_that_applies(row["exit_code"] for row in rows),
    }


def _engine_answers() -> bool:
    client = docker_engine.connect()
    if client is not None:
        client.close()
    return client is not None


def _one(
    folder: Path,
    profile: str,
    runner: RunnerName,
    one_seed: bool,
    train_seconds: float | None,
    data: Path | None,
    runs: Path,
    progress: ProgressDisplay,
    package: Path,
    request: WitnessRequest | None,
) -> dict[str, Any]:
    """One run as a row; whatever ends it early is told there."""
    begun = time.monotonic()
    try:
        seeds = submission.load(folder).manifest.seeds[: 1 if one_seed else None]
        judged = run.run_submission(
            folder, profile, seeds, data, runner, runs, False, progress, package, train_seconds, request
        )
    except HarnessError as error:
        progress.say(f"{folder.name}, {runner}: {error}")
        return _row(folder, runner, "not run", error.exit_code, str(error), time.monotonic() - begun)
    except OSError as error:
        progress.say(f"{folder.name}, {runner}: {error}")
        return _row(folder, runner, "not run", ExitCode.MACHINE, str(error), time.monotonic() - begun)
    except KeyboardInterrupt:
        return _row(folder, runner, "not run", ExitCode.INTERRUPTED, "interrupted", time.monotonic() - begun)
    scored = sum(seed["bpb"] is not None for seed in judged["seeds"])
    return _row(
        folder,
        runner,
        judged["verdict"],
        decide.exit_code(judged),
        "; ".join(_reasons(judged)),
        judged["harness"]["wall_seconds"],
    ) | {"bpb": judged["mean_bpb"], "seeds": f"{scored}/{len(seeds)}", "run_dir": judged["run_dir"]}


def _row(
    folder: Path,
    runner: str,
    outcome: str,
    exit_code: int = ExitCode.VALID,
    reason: str = "",
    seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "submission": folder.name,
        "runner": runner,
        "outcome": outcome,
        "bpb": None,
        "seeds": None,
        "seconds": seconds,
        "exit_code": exit_code,
        "reason": reason,
        "run_dir": None,
    }


def _reasons(judged: dict[str, Any]) -> Iterator[str]:
    """Why a run is not valid."""
    yield from (
        f"{found['rule']}: {found['evidence']}" for found in judged["findings"] if found["outcome"] == "fail"
    )
    yield from (
        f"seed {seed['seed']}: {seed['outcome']}"
        for seed in judged["seeds"]
        if seed["outcome"] in ("machine", "interrupted")
    )


def show(matrix: dict[str, Any], console: Console) -> None:
    """The table, and a line for every row that has something to say."""
    if not console.is_terminal:
        console.width = max(console.width, MIN_COLUMNS)
    table = Table(*(key for key, _ in COLUMNS))
    for row in matrix["rows"]:
        table.add_row(
            *(Text(plain(cell(row[key], form))) for key, form in COLUMNS), style=STYLE.get(row["outcome"], "")
        )
    console.print(table)
    for row in matrix["rows"]:
        if row["reason"]:
            line = f"{row['submission']}, {row['runner']}: {row['reason']}".replace("\n", "; ")
            console.print(Text(plain(line)), soft_wrap=True)
