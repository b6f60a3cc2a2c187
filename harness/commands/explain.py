"""`pgolf explain`: a rule with its source, check, example and limits."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.audit import rulebook
from harness.commands import options

app = options.new_app()


@app.command()
def explain(rule: Annotated[str, typer.Argument(help="A rule's id, as findings name it.")]) -> None:
    """Print a rule: source, what it checks, an example, its limits.

    pgolf explain slot
    """
    print(rulebook.explain(rule))
