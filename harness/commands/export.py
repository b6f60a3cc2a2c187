"""`pgolf export`: a finished run as a record folder in the challenge's layout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.commands import options
from harness.run.find_runs import find_run
from harness.verdict import export as exports

app = options.new_app()


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A finished run's folder, or a submission's name.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; default: <date>_<submission> here.")
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who sends it in, for submission.json.")] = None,
    github_id: Annotated[str | None, typer.Option(help="Their GitHub ID.")] = None,
) -> None:
    """Write a finished run as a record folder: README, submission.json, logs, the counted code.

    pgolf export runs/hadamard-ve128/pocket-0123456789ab --author "A. Person" --github-id aperson
    """
    print(exports.export(find_run(run_dir, options.RUNS), out, author, github_id))
    missing = [option for option, value in (("--author", author), ("--github-id", github_id)) if not value]
    if missing:
        print(
            f"submission.json names no {' and no '.join(missing)}: the challenge asks for both",
            file=sys.stderr,
        )
