"""`pgolf explain`: every id that a verdict, a run record or an audit may name, and what it means."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.audit import rulebook
from harness.commands import options

app = options.new_app()


@app.command()
def explain(
    rule: Annotated[str | None, typer.Argument(help="Such as slot, C1 or G; none lists every id.")] = None,
    as_json: options.Json = False,
) -> None:
    """Print a rule or condition: source, check, example, what it does not cover. Without one, list all.

    pgolf explain C1
    """
    found = rulebook.entries() if rule is None else rulebook.find(rule)
    if as_json:
        print(json.dumps(rulebook.public(found), indent=1))
    else:
        print(rulebook.overview(found) if rule is None else rulebook.describe(found))
