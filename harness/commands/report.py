"""`pgolf report`: the verdict of a run again, and its report.md and report.html written anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.console import new_console
from harness.commands import options
from harness.run.find_runs import find_run
from harness.run.folder import RunFolder
from harness.verdict import decide, report as reports
from harness.verdict.assess import assess

Details = Annotated[
    bool, typer.Option("--details", help="Show every finding, and every number of the certificates.")
]

app = options.new_app()


@app.command()
def report(
    run_dir: Annotated[
        Path, typer.Argument(help="A run folder, a verdict.json, or a submission's name for its newest run.")
    ],
    details: Details = False,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Show the verdict of a run again, and write its report.md and report.html anew."""
    run_dir = find_run(run_dir, options.RUNS)
    folder = RunFolder(run_dir.parent if run_dir.name == "verdict.json" else run_dir)
    verdict = assess_again(folder)
    show_verdict(verdict, as_json, details)
    raise typer.Exit(decide.exit_code(verdict, allow_open))


def assess_again(folder: RunFolder) -> dict[str, Any]:
    """The verdict on what the folder holds now; writes its reports. A lone verdict.json is shown as it is."""
    if not folder.plan.exists() and folder.verdict.exists():
        print(
            f"{folder.path}: holds a verdict.json and no run: shown as it is, checked by nothing",
            file=sys.stderr,
        )
        return reports.rewrite(folder)
    verdict = assess(folder)
    reports.write(verdict, folder)
    return verdict


def show_verdict(verdict: dict[str, Any], as_json: bool, details: bool = False) -> None:
    """A verdict on stdout: as JSON, or as a summary with the place of the full report."""
    if as_json:
        print(json.dumps(verdict, indent=1))
        return
    reports.show(verdict, new_console(), details)
    print(f"report: {verdict['run_dir']}/report.md and report.html")
