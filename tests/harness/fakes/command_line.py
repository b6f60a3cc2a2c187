"""The command line in this process: what it prints, and the code that it exits with."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from harness import cli


def pgolf(*words: object) -> Result:
    """`pgolf WORDS...`. An error stays in `exception`; only the console script turns it into a message."""
    return CliRunner().invoke(cli.app, [str(word) for word in words])
