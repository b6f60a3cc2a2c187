"""`pgolf report`: the verdict of a run again, and its report.md and report.html written anew.

The verdict is shown first. Where the folder cannot be written (a read-only disk, another user's folder, a
full disk, a run at work in it) its files stay as they are, and one line on stderr says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.console import new_console
from harness.base.errors import MachineFault
from harness.base.exit_codes import ExitCode
from harness.commands import options
from harness.run.find_runs import find_run
from harness.run.folder import FolderInUse, RunFolder
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
    """Show the verdict of a run again, and write its report.md and report.html anew if possible."""
    run_dir = find_run(run_dir, options.RUNS)
    folder = RunFolder(run_dir.parent if run_dir.name == "verdict.json" else run_dir)
    rendered = _render(folder)
    show_verdict(rendered.verdict, as_json, details)
    if _write_anew(folder) and not as_json:
        say_place(rendered.verdict)
    code = decide.exit_code(rendered.verdict, allow_open)
    raise typer.Exit(ExitCode.INCONCLUSIVE if is_alone(folder) and not code and not allow_open else code)


def _render(folder: RunFolder) -> reports.Rendered:
    """The report on what the folder holds now."""
    verdict = reports.read_alone(folder, UNCHECKED) if is_alone(folder) else assess(folder)
    return reports.render(verdict, folder)


def _write_anew(folder: RunFolder) -> bool:
    """Write the report, once the lock is held, on what the folder holds then; whether that was possible."""
    try:
        with folder.locked():
            _render(folder).write(folder)
    except (FolderInUse, MachineFault) as error:
        print(f"report.md and report.html are not written anew: {error.message}", file=sys.stderr)
        return False
    return True


def is_alone(folder: RunFolder) -> bool:
    """Whether the folder holds a verdict.json and nothing of a run: then it can be shown, not checked."""
    return folder.verdict.exists() and not folder.plan.exists() and not folder.seeds()


def show_verdict(verdict: dict[str, Any], as_json: bool, details: bool = False) -> None:
    """A verdict on stdout: as JSON, or as a summary."""
    if as_json:
        print(json.dumps(verdict, indent=1))
    else:
        reports.show(verdict, new_console(), details)


def say_place(verdict: dict[str, Any]) -> None:
    """Where the full report is."""
    print(f"report: {verdict['run_dir']}/report.md and report.html")
