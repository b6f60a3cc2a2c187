"""`pgolf list`: every run in the folder of runs, the newest first.

Each row is the verdict on what the run's folder holds now (harness/verdict/assess.py). A folder that cannot
be read is a row with the reason. Not covered: ablations, and programs judged by `pgolf score`.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base.errors import UsageError
from harness.base.text import cell, plain
from harness.commands import options
from harness.run.find_runs import NEVER, last_attempt, run_folders
from harness.run.folder import RunFolder
from harness.verdict.assess import assess
from harness.verdict.report import STYLE

app = options.new_app()
COLUMNS = (
    ("submission", "submission", "{}"),
    ("profile", "profile", "{}"),
    ("dataset", "dataset", "{}"),
    ("train_seconds", "clock", "{:g} s"),
    ("bpb", "bits/byte", "{:.4f}"),
    ("seeds", "seeds", "{}"),
    ("shown", "shown", "{}"),
    ("verdict", "verdict", "{}"),
    ("date", "date (UTC)", "{}"),
    ("run_dir", "folder", "{}"),
)
"""Key of a row, heading, format."""
UNBROKEN = 10_000
"""Columns: more than any line of the table has."""


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
        verdict = assess(folder)
    except UsageError as error:
        return date, row | {"verdict": "unreadable", "reason": error.message}
    return date, row | {
        "date": None if date == NEVER else date.isoformat(timespec="seconds"),
        "dataset": verdict["dataset"]["name"],
        "train_seconds": verdict["shortened_train_seconds"],
        "bpb": verdict["mean_bpb"],
        "seeds": f"{sum(row['bpb'] is not None for row in verdict['seeds'])}/{len(verdict['seeds'])}",
        "shown": verdict["shown"],
        "verdict": verdict["verdict"],
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line for each run, never broken, so that a folder's path can be copied; then the reasons."""
    table = Table(*(heading for _, heading, _ in COLUMNS), box=None, pad_edge=False)
    for row in rows:
        shown = row | {
            "shown": None if row["shown"] is None else " ".join(row["shown"]) or "nothing",
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
