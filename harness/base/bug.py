"""What to say when pgolf itself fails: an exception that no message was written for."""

from __future__ import annotations

import traceback

from harness.base.text import plain, plain_lines


def describe_bug(error: Exception) -> str:
    """The traceback, then whose fault it is, where to report it and what to send."""
    lines = plain_lines("".join(traceback.format_exception(error)))
    return (
        f"{lines}error: this is a bug of pgolf, not of the submission: {summary(error)}\n"
        "hint: report it where you got pgolf, with the lines above, the command and `pgolf --version`"
    )


def summary(error: Exception) -> str:
    """The exception in a line."""
    return plain(f"{type(error).__name__}: {error}")
