"""`pgolf report`: the verdict of a run again, and its report.md and report.html written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.commands import options
from harness.run.find_runs import find_run
from harness.run.folder import RunFolder
from harness.verdict import decide, report as reports

app = options.new_app()


@app.command()
def report(
    run_dir: Annotated[
        Path, typer.Argument(help="A run folder, a verdict.json, or a submission's name for its newest run.")
    ],
    as_json: options.Json = False,
) -> None:
    """Show the verdict of a run again, and write its report.md and report.html anew."""
    run_dir = find_run(run_dir, options.RUNS)
    folder = RunFolder(run_dir.parent if run_dir.name == "verdict.json" else run_dir)
    verdict = reports.rewrite(folder)
    show_verdict(verdict, as_json)
    raise typer.Exit(decide.exit_code(verdict))


def show_verdict(verdict: dict[str, Any], as_json: bool) -> None:
    """A verdict on stdout: as JSON, or as tables with the place of the full report."""
    if as_json:
        print(json.dumps(verdict, indent=1))
        return
    reports.show(verdict, Console())
    print(f"report: {verdict['run_dir']}/report.md and report.html")
