"""Find a contestant's own last error in its log, so that a failure names its cause.

With several ranks the launcher (torchrun) prints its own report after the error of the rank that failed: then
the first traceback that is not the launcher's counts. Otherwise the last one does. What a contestant prints
is quoted and never evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base.errors import Violation
from harness.base.text import quote
from harness.protocol.wire import ContestantLeft

TRACEBACK = "Traceback (most recent call last):"
CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
RANK = re.compile(r"^\[rank\d+\]:\s?")
LAUNCHER = re.compile(r"torch[./]distributed[./](elastic|run|launcher)|torchelastic|ChildFailedError")
MAX_BYTES = 16 << 20


def last_error(log: Path) -> str | None:
    """The line of the log that says why the contestant failed, quoted; None for an empty or missing log.

    The exception of a traceback if there is one, else the last line printed.
    """
    lines = _lines(log)
    errors = list(_exceptions(lines))
    own = [error for error in errors if not LAUNCHER.search(error)]
    if own:
        return quote(own[0] if len(own) < len(errors) else own[-1])
    first_noise = next((at for at, line in enumerate(lines) if LAUNCHER.search(line)), len(lines))
    printed = [line for line in lines[:first_noise] if line.strip()]
    return quote(printed[-1].strip()) if printed else None


def explain(violation: Violation, log: Path, name_log: bool = True) -> None:
    """Add the contestant's last error to a violation, and the log's path unless the log will be removed.

    A contestant that ended early is always explained; another violation only by a traceback, because an
    ordinary line of its log would mislead.
    """
    ended = violation.rule == "contestant" or isinstance(violation, ContestantLeft)
    if not ended and not any(not LAUNCHER.search(error) for error in _exceptions(_lines(log))):
        return
    error = last_error(log)
    violation.message += f"; its last error: {error}" if error else "; its log is empty"
    if name_log:
        place = f"the whole log: {log}"
        violation.hint = f"{violation.hint}; {place}" if violation.hint else place


def _lines(log: Path) -> list[str]:
    if not log.is_file():
        return []
    with log.open("rb") as file:
        text = file.read(MAX_BYTES).decode("utf-8", "replace")
    return [RANK.sub("", line) for line in text.split("\n")]


def _exceptions(lines: Sequence[str]) -> Iterator[str]:
    """The exception line of each traceback; of chained ones the last alone."""
    found, inside, chained = None, False, False
    for line in lines:
        if line.strip() == TRACEBACK:
            if found is not None and not chained:
                yield found
            inside, chained = True, False
        elif line.strip() in CHAINED:
            chained = True
        elif inside and line.strip() and not line.startswith((" ", "\t")):
            found, inside = line.strip(), False
    if found is not None:
        yield found
