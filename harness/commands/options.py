"""What the commands share on the command line: options, lists of seeds, and the settings of every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.base.errors import UsageError

Submission = Annotated[Path, typer.Argument(help="e.g. submissions/hadamard-ve128")]
Profile = Annotated[str, typer.Option(help="pocket, solo or record.")]
Seeds = Annotated[str, typer.Option(help="Some of the manifest's seeds, e.g. 1337,42.")]
Data = Annotated[Path | None, typer.Option(help="A folder made by `pgolf data prepare`.")]
RunnerChoice = Annotated[
    Literal["docker", "local"] | None,
    typer.Option(help="docker: isolated; local: limited only. Default: docker where an engine answers."),
]
Runs = Annotated[Path, typer.Option(help="The folder of the run folders.")]
RUNS = Path("runs")
TrainSeconds = Annotated[
    float | None,
    typer.Option(help="A train clock shorter than the profile's, for CI and trials: never a record."),
]
Witness = Annotated[
    int | None,
    typer.Option(
        "--witness",
        min=0,
        help="Probes of the witness, 0 for none. Default: 4096 in pocket, 8192 in solo, 32768 in record.",
    ),
]
WitnessChunks = Annotated[
    int | None,
    typer.Option(
        "--witness-chunks",
        min=1,
        help="The witness covers a random prefix of at most this many chunks; the bound G counts the rest "
        "at its largest possible gain.",
    ),
]
WitnessLanes = Annotated[
    bool,
    typer.Option(
        "--witness-lanes",
        help="Query many contexts in one batch, and check some tokens one at a time: faster on a GPU.",
    ),
]
AllowOpen = Annotated[
    bool,
    typer.Option(
        "--allow-open",
        help="Exit 0 instead of 5 where the verdict is inconclusive; every other exit code stays.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def new_app(**settings: Any) -> typer.Typer:
    """A command, or a group of commands, that prints plain help and lets exceptions through."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **settings
    )


def seed_numbers(text: str) -> list[int]:
    """Seeds separated by commas. Raises UsageError for anything else."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--seeds {text!r}: expected numbers separated by commas", hint="--seeds 1337,42"
        ) from None
