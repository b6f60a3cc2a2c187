"""Errors for people to read: what is wrong, where, what was expected, and a hint.

    HarnessError              anything a user can act on                              exit 2
    ├── UsageError            a bad command line, manifest, dataset or file           exit 2
    ├── MachineFault          engine gone, disk full, GPU lost: not the contestant's  exit 3
    └── Violation             a contestant broke a rule or a limit: becomes a Finding, has no exit code

A contestant's failure is data: `Violation` carries the rule id and the evidence. A machine fault never
removes a seed from the count. Bugs of the harness are ordinary exceptions and keep their traceback.
"""

from __future__ import annotations

from harness.base.exit_codes import ExitCode


class HarnessError(Exception):
    """A failure with a message for people and a hint what to do next."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(HarnessError):
    """Something that the user gave cannot be used: a command line, manifest, dataset or file."""


class MachineFault(HarnessError):
    """The machine failed, not the contestant: the seed's outcome is `machine`, the verdict inconclusive."""

    exit_code = ExitCode.MACHINE


class Violation(HarnessError):
    """A contestant broke a rule.

    `rule`: its id in run.json (docs/protocol.md says which finding it becomes). `limit`: whether it
    exceeded a limit (exit 4).
    """

    def __init__(self, rule: str, message: str, *, hint: str = "", limit: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.limit = limit
