"""`pgolf list`: every run in the folder of runs, the newest first.

What was run comes from plan.json, its outcome from verdict.json. A folder that cannot be read is a row with
the reason. Not covered: ablations, and programs judged by `pgolf score`.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base import files
from harness.base.errors import UsageError
from harness.base.text import cell, plain, quote
from harness.commands import options
from harness.edition import PROFILES
from harness.run import stored_plan
from harness.run.find_runs import NEVER, last_attempt, run_folders
from harness.run.folder import RunFolder
from harness.verdict.report import STYLE

app = options.new_app()
COLUMNS = (
    ("submission", "submission", "{}"),
    ("profile", "profile", "{}"),
    ("dataset", "dataset", "{}"),
    ("train_seconds", "clock", "{:g} s"),
    ("bpb", "bits/byte", "{:.4f}"),
    ("shown", "shown", "{}"),
    ("verdict", "verdict", "{}"),
    ("date", "date (UTC)", "{}"),
    ("run_dir", "folder", "{}"),
)
"""Key of a row, heading, format."""
UNBROKEN = 10_000
"""Columns: more than any line of the table has."""


class _Dataset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str


class _Verdict(BaseModel):
    """The part of verdict.json that a row shows."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)
    schema_version: Literal[1] = Field(alias="schema")
    verdict: Literal["valid", "invalid", "inconclusive"]
    dataset: _Dataset
    mean_bpb: float | None
    shown: list[str] | None = None
    """The conditions that the run shows; absent in verdicts of earlier versions."""


@app.command("list")
def list_runs(runs: options.Runs = options.RUNS, as_json: options.Json = False) -> None:
    """List the runs, the newest first: submission, profile, text, score, verdict, date, folder.

    pgolf list --json
    """
    rows = rows_of(runs)
    if as_json:
        print(json.dumps({"schema": 1, "runs": str(runs), "rows": rows}, indent=1))
    elif rows:
        show(rows, Console())
    else:
        print(f"{plain(str(runs))} holds no run yet: `pgolf run submissions/NAME` makes one")


def rows_of(runs: Path) -> list[dict[str, Any]]:
    """A JSON-ready row for each run folder, the newest first; those without a readable date come last."""
    submissions = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    dated = [_row(folder) for submission in submissions for folder in run_folders(submission)]
    return [row for _, row in sorted(dated, key=lambda each: each[0], reverse=True)]


def _row(folder: RunFolder) -> tuple[datetime.datetime, dict[str, Any]]:
    """When the run's last attempt began, and its row. What cannot be read is null and has a reason."""
    date, profile = NEVER, folder.path.name.partition("-")[0]
    row: dict[str, Any] = dict.fromkeys(key for key, _, _ in COLUMNS) | {"reason": None}
    row |= {"submission": folder.path.parent.name, "profile": profile, "run_dir": str(folder.path)}
    try:
        date = last_attempt(folder)
        row["date"] = None if date == NEVER else date.isoformat(timespec="seconds")
        plan = stored_plan.read(folder)
        seconds = plan.identity.limits.train_seconds
        shortened = seconds != PROFILES[profile].train_seconds
        row |= {"dataset": plan.dataset.name, "train_seconds": seconds if shortened else None}
        row |= _outcome(folder)
    except UsageError as error:
        row |= {"verdict": "unreadable", "reason": error.message}
    return date, row


def _outcome(folder: RunFolder) -> dict[str, Any]:
    """Verdict, score and shown conditions. Raises UsageError for a file that is no verdict."""
    if not folder.verdict.exists():
        return {"verdict": "unfinished", "reason": "no verdict yet: the same `pgolf run` resumes it"}
    try:
        found = _Verdict.model_validate(files.read_json(folder.verdict))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise UsageError(
            f"{folder.verdict}: {quote(place)}: {first['msg']}",
            hint="`pgolf run` writes it again from the run's own records",
        ) from error
    return {
        "verdict": found.verdict,
        "dataset": found.dataset.name,
        "bpb": found.mean_bpb,
        "shown": found.shown,
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line for each run, never broken, so that a folder's path can be copied; then the reasons."""
    table = Table(*(heading for _, heading, _ in COLUMNS), box=None, pad_edge=False)
    for row in rows:
        shown = row | {
            "shown": None if row["shown"] is None else " ".join(row["shown"]) or "none",
            "date": row["date"] and row["date"][:16].replace("T", " "),
        }
        cells = {key: Text(plain(cell(shown[key], form))) for key, _, form in COLUMNS}
        cells["verdict"].stylize(STYLE.get(row["verdict"], ""))
        table.add_row(*cells.values())
    console.width = UNBROKEN
    console.print(table, soft_wrap=True)
    for row in rows:
        if row["reason"]:
            console.print(Text(plain(f"{row['run_dir']}: {row['reason']}")), soft_wrap=True)
