"""The exit codes of every command, and which one counts when several apply (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command. In an audit VALID means no findings and INCONCLUSIVE open questions.

    INTERNAL is a bug of pgolf itself (70 is EX_SOFTWARE in sysexits.h).
    """

    VALID = 0
    VIOLATION = 1
    USAGE = 2
    MACHINE = 3
    LIMIT = 4
    INCONCLUSIVE = 5
    INTERNAL = 70
    INTERRUPTED = 130


BY_PRECEDENCE = (
    ExitCode.INTERNAL,
    ExitCode.USAGE,
    ExitCode.MACHINE,
    ExitCode.INTERRUPTED,
    ExitCode.LIMIT,
    ExitCode.VIOLATION,
    ExitCode.INCONCLUSIVE,
    ExitCode.VALID,
)
"""The first that applies is the exit code. A bug of the judge comes first: it may have touched other rows."""


def first_that_applies(codes: Iterable[int]) -> ExitCode:
    """The exit code of several results together; VALID for no results."""
    return min(map(ExitCode, codes), key=BY_PRECEDENCE.index, default=ExitCode.VALID)
