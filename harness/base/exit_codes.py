"""The exit codes of every command, and which comes first when several apply (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command says to the shell. The audit has VALID for nothing found and INCONCLUSIVE for
    questions."""

    VALID = 0
    VIOLATION = 1
    USAGE = 2
    MACHINE = 3
    LIMIT = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130


BY_PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.MACHINE,
    ExitCode.INTERRUPTED,
    ExitCode.LIMIT,
    ExitCode.VIOLATION,
    ExitCode.INCONCLUSIVE,
    ExitCode.VALID,
)
"""The first that applies is the exit code."""


def first_that_applies(codes: Iterable[int]) -> ExitCode:
    """The exit code of several results together; VALID for none."""
    return min(map(ExitCode, codes), key=BY_PRECEDENCE.index, default=ExitCode.VALID)
