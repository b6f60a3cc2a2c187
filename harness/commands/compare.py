"""`pgolf compare`: two runs, document by document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.commands import options
from harness.run.find_runs import find_run
from harness.verdict import compare as compares

app = options.new_app()


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run folder, one seed's folder, or a submission's name.")],
    second: Annotated[Path, typer.Argument(help="Another, scored on the same text.")],
    as_json: options.Json = False,
) -> None:
    """Compare two runs document by document: the difference in bits per byte and its 95 % interval.

    pgolf compare runs/naive-baseline/pocket-0123456789ab runs/lowrank-q-qat/pocket-ba9876543210
    """
    compared = compares.compare(find_run(first, options.RUNS), find_run(second, options.RUNS))
    print(json.dumps(compared, indent=1) if as_json else compares.describe(compared))
