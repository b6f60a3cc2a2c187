"""`pgolf report`: the verdict of a run again, and its report.md and report.html written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.console import new_console
from harness.base.exit_codes import ExitCode
from harness.commands import options
from harness.run.find_runs import find_run
from harness.run.folder import RunFolder
from harness.verdict import decide, report as reports
from harness.verdict.assess import assess

app = options.new_app()
UNCHECKED = "this verdict.json lies without its run: it is shown as it stands, and nothing of it was checked"


@app.command()
def report(
    run_dir: Annotated[
        Path, typer.Argument(help="A run folder, a verdict.json, or a submission's name for its newest run.")
    ],
    details: options.Details = False,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Show the verdict of a run again, and write its report.md and report.html anew."""
    run_dir = find_run(run_dir, options.RUNS)
    folder = RunFolder(run_dir.parent if run_dir.name == "verdict.json" else run_dir)
    alone = is_alone(folder)
    verdict = reports.rewrite(folder, UNCHECKED) if alone else assess(folder)
    if not alone:
        reports.write(verdict, folder)
    show_verdict(verdict, as_json, details)
    code = decide.exit_code(verdict, allow_open)
    raise typer.Exit(ExitCode.INCONCLUSIVE if alone and not code and not allow_open else code)


def is_alone(folder: RunFolder) -> bool:
    """Whether the folder holds a verdict.json and nothing of a run: then it can be shown, not checked."""
    return folder.verdict.exists() and not folder.plan.exists() and not folder.seeds()


def show_verdict(verdict: dict[str, Any], as_json: bool, details: bool = False) -> None:
    """A verdict on stdout: as JSON, or as a summary with the place of the full report."""
    if as_json:
        print(json.dumps(verdict, indent=1))
        return
    reports.show(verdict, new_console(), details)
    print(f"report: {verdict['run_dir']}/report.md and report.html")
