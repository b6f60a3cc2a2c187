"""`pgolf explain`: the rules of a run and of the audit, each with its source, check, example and limits."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.audit import rulebook
from harness.commands import options

app = options.new_app()


@app.command()
def explain(
    rule: Annotated[str | None, typer.Argument(help="A rule's id; none lists every rule.")] = None,
    as_json: options.Json = False,
) -> None:
    """Print a rule: source, check, example, what it does not cover. Without one, list all rules.

    pgolf explain slot
    """
    found = rulebook.rules() if rule is None else rulebook.find(rule)
    if as_json:
        print(json.dumps(rulebook.public(found), indent=1))
    else:
        print(rulebook.overview(found) if rule is None else rulebook.describe(found))
