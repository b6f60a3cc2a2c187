"""Find a contestant's own last error in its log, so that a failure names its cause.

The last traceback counts. With several ranks the launcher (torchrun) names the rank that failed and marks the
tracebacks of each rank: then the last one of that rank counts. Only the end of a log is read. What a
contestant prints is quoted and never evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import Violation
from harness.base.files import last_lines
from harness.base.text import quote
from harness.protocol.wire import ContestantLeft
from harness.runners.base import exit_text

TRACEBACK = "Traceback (most recent call last):"
CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
RANK = re.compile(r"\[rank(?P<rank>\d+)\]:\s?")
FAILED = re.compile(r"failed \(exitcode: (?P<code>-?\d{1,3})\) local_rank: (?P<rank>\d+)")
RECIPE = re.compile(r"config\.yaml:\d+:\d+: ")
MAX_SHOWN = 400
"""Characters shown of an error: it may end with what to do."""
LAUNCHER = re.compile(r"torch[./]distributed[./](elastic|run|launcher)|torchelastic|ChildFailedError")
ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b.*:")
"""An exception on a line of its own."""


def last_error(log: Path) -> str | None:
    """What the log says about why the contestant failed, quoted; None for an empty or missing log.

    `its last error: ...` where an exception says it, else `its last line: ...`.
    """
    lines = _lines(log)
    launcher = next((at for at, line in enumerate(lines) if LAUNCHER.search(line.text)), None)
    own = [line for line in _exceptions(lines) if not LAUNCHER.search(line.text)]
    if (failed := _failed_rank(lines)) is not None:  # the other ranks complain of the one that failed first
        rank, how = failed
        own = [line for line in own if line.rank == rank] or [
            line for line in own if line.rank is None and line.number < (launcher or 0)
        ]
        if not own and not _is_about_recipe(lines[:launcher]):
            return f"rank {rank} ended with {how}, without a traceback"
    if own:
        return f"its last error: {quote(own[-1].text, MAX_SHOWN)}"
    printed = [line.text.strip() for line in lines[:launcher] if line.text.strip()]
    if not printed:
        return None
    kind = "error" if ERROR.match(printed[-1]) else "line"
    return f"its last {kind}: {quote(printed[-1], MAX_SHOWN)}"


def _failed_rank(lines: Sequence[_Line]) -> tuple[str, str] | None:
    """The rank that failed first, by the launcher's report, and how it ended; None without a report."""
    for line in lines:
        if match := FAILED.search(line.text):
            return match["rank"], exit_text(int(match["code"]))
    return None


def _is_about_recipe(lines: Sequence[_Line]) -> bool:
    """Whether the last line printed is about the recipe (docs/protocol.md, describe)."""
    printed = [line.text for line in lines if line.text.strip()]
    return bool(printed) and RECIPE.match(printed[-1]) is not None


def explain(violation: Violation, log: Path, name_log: bool = True) -> None:
    """Add the contestant's last error to a violation, and the log's path unless the log will be removed.

    Only where the contestant ended early: elsewhere its log does not say what went wrong.
    """
    if violation.rule != "contestant" and not isinstance(violation, ContestantLeft):
        return
    violation.message += f"; {last_error(log) or 'its log is empty'}"
    if name_log:
        place = f"the whole log: {log}"
        violation.hint = f"{violation.hint}; {place}" if violation.hint else place


class _Line(NamedTuple):
    number: int
    text: str
    rank: str | None
    """The rank whose own the launcher marked it as."""


def _lines(log: Path) -> list[_Line]:
    texts = last_lines(log)
    marks = [RANK.match(text) for text in texts]
    return [
        _Line(number, text[mark.end() :] if mark else text, mark and mark["rank"])
        for number, (text, mark) in enumerate(zip(texts, marks, strict=True))
    ]


def _exceptions(lines: Sequence[_Line]) -> Iterator[_Line]:
    """The exception line of each traceback; of chained ones the last alone."""
    found, inside, chained = None, False, False
    for line in lines:
        text = line.text.strip()
        if text == TRACEBACK:
            if found is not None and not chained:
                yield found
            inside, chained = True, False
        elif text in CHAINED:
            chained = True
        elif inside and text and not line.text.startswith((" ", "\t")):
            found, inside = line._replace(text=text), False
    if found is not None:
        yield found
