"""`pgolf schema`: the JSON schemas that docs/ publishes."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from harness.audit import record
from harness.commands import options
from harness.run import submission

app = options.new_app()
SCHEMAS = {"manifest": submission.schema, "record": record.schema}


@app.command()
def schema(
    of: Annotated[
        Literal["manifest", "record"], typer.Argument(help="manifest.yaml, or a record as read.")
    ] = "manifest",
) -> None:
    """Print the JSON schema of manifest.yaml, or of a published record as `pgolf audit --json` reads it."""
    print(json.dumps(SCHEMAS[of](), indent=1))
