"""Errors a person is meant to read: what is wrong, where, what was expected, and a hint.

    HarnessError              anything a user can act on                              exit 2
    ├── UsageError            a bad command line, manifest, dataset or file           exit 2
    ├── MachineFault          engine gone, disk full, GPU lost: not the contestant's  exit 3
    └── Violation             a contestant broke a rule or a limit: becomes a Finding, never an exit of its own

What a contestant does wrong is data (`Violation` carries the rule id and evidence); what the machine does
wrong never removes a seed from the count. Not covered: bugs of ours, which are ordinary exceptions and keep
their traceback."""

from __future__ import annotations

from harness.base.exit_codes import ExitCode


class HarnessError(Exception):
    """A failure with a message for people and a hint on what to do next."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(HarnessError):
    """Something that the user gave cannot be used as it is."""


class MachineFault(HarnessError):
    """The machine failed, not the contestant: the seed counts as `machine`, the verdict is inconclusive."""

    exit_code = ExitCode.MACHINE


class Violation(HarnessError):
    """A contestant broke a rule.

    `rule` is its id in run.json (docs/protocol.md says which finding it becomes), `limit` says whether a
    limit (exit 4) was exceeded."""

    def __init__(self, rule: str, message: str, *, hint: str = "", limit: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.limit = limit
