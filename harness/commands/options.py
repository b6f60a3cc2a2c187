"""What the commands share on the command line: options, lists of seeds, and the settings of every command."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.base.text import quote


def runs_folder(current: Path) -> Path:
    """The default folder of the run folders, relative to the `current` folder.

    It is runs/ at the checkout's root for any folder inside the checkout, so that runs are not scattered, and
    runs/ in the current folder elsewhere.
    """
    inside = current.is_relative_to(ROOT)
    return Path(os.path.relpath(ROOT / "runs", current)) if inside else Path("runs")


_WHOLE = re.compile("0|[1-9][0-9]{0,18}")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")


def whole(least: int) -> Callable[[str | int], int]:
    """The parser of an option that takes a whole number, read as strictly as in a manifest."""

    def parse(given: str | int) -> int:
        text = str(given)  # typer parses the option's default too
        if not _WHOLE.fullmatch(text) or int(text) < least:
            raise typer.BadParameter(f"{quote(text)}: expected a whole number, at least {least}, such as 42")
        return int(text)

    return parse


def number(text: str) -> float:
    """The parser of an option that takes a number, in JSON's form."""
    if not _NUMBER.fullmatch(text):
        raise typer.BadParameter(f"{quote(text)}: expected a number such as 45 or 4.5")
    return float(text)


Submission = Annotated[Path, typer.Argument(help="e.g. submissions/hadamard-ve128")]
Profile = Annotated[str, typer.Option(help="pocket, solo or record.")]
Seeds = Annotated[str | None, typer.Option(help="Some of the manifest's seeds, e.g. 1337,42.")]
MAX_SEED = 2**32 - 1
"""As in manifest.yaml."""
MAX_SEED_LETTERS = 20
Data = Annotated[Path | None, typer.Option(help="A folder made by `pgolf data prepare`.")]
RunnerChoice = Annotated[
    Literal["docker", "local"] | None,
    typer.Option(help="docker: isolated; local: limited only. Default: docker where an engine answers."),
]
Runs = Annotated[Path, typer.Option(help="The folder of the run folders; in the checkout runs/ at its root.")]
RUNS = runs_folder(Path.cwd())
TrainSeconds = Annotated[
    float | None,
    typer.Option(
        parser=number,
        metavar="SECONDS",
        help="A train clock shorter than the profile's, for CI and trials: never a record.",
    ),
]
Witness = Annotated[
    int | None,
    typer.Option(
        "--witness",
        parser=whole(0),
        metavar="N",
        help="Probes of the witness; 0 for none, which leaves C1 to C4 open. Default: 4096 in pocket, 8192 "
        "in solo, 32768 in record.",
    ),
]
Probes = Annotated[
    int,
    typer.Option(
        "--witness", parser=whole(0), metavar="N", help="Probes of a witness about the new score; 0 for none."
    ),
]
WitnessChunks = Annotated[
    int | None,
    typer.Option(
        "--witness-chunks",
        parser=whole(1),
        metavar="N",
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
Details = Annotated[
    bool, typer.Option("--details", help="Show every finding, and every number of the certificates.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def new_app(**settings: Any) -> typer.Typer:
    """A command, or a group of commands, that prints plain help and lets exceptions through."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **settings
    )


def seed_numbers(text: str | None) -> list[int]:
    """The seeds of `--seeds`, separated by commas; none if the option is not given.

    Raises UsageError with what to write for anything but distinct decimal numbers from 0 to MAX_SEED.
    """
    if text is None:
        return []
    parts = [part.strip(" ") for part in text.split(",")]
    named = [part for part in parts if part]
    if not named:
        raise UsageError(
            f"--seeds '{quote(text)}': names no seed",
            hint="leave it out for all seeds, or write some, e.g. --seeds 1337,42",
        )
    seeds = [_seed_number(part) for part in named]
    if repeated := [seed for index, seed in enumerate(seeds) if seed in seeds[:index]]:
        raise UsageError(
            f"--seeds: {repeated[0]} is named twice", hint=f"write {_joined(dict.fromkeys(seeds))}"
        )
    if len(named) < len(parts):
        raise UsageError(f"--seeds '{quote(text)}': a comma without a seed", hint=f"write {_joined(seeds)}")
    return seeds


def _seed_number(part: str) -> int:
    """One seed, written as manifest.yaml and run folders write it: decimal digits, no leading zero."""
    try:
        seed = int(part) if len(part) <= MAX_SEED_LETTERS else None
    except ValueError:
        seed = None
    if seed is None or not 0 <= seed <= MAX_SEED:
        raise UsageError(
            f"--seeds: '{quote(part)}' is no number from 0 to {MAX_SEED}",
            hint="write decimal digits, with commas between seeds, e.g. --seeds 1337,42",
        )
    if part != str(seed):
        raise UsageError(f"--seeds: '{quote(part)}' is no plain number", hint=f"write {seed}")
    return seed


def _joined(seeds: Iterable[int]) -> str:
    return f"--seeds {','.join(map(str, seeds))}"
