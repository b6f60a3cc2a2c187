"""A finding: what one rule of the audit says of one record folder.

It has an outcome, the lines that decide it, and what would clear it. A finding speaks of what was published,
never of a person. `fail` needs lines that leave no other reading; `question` is something that a reviewer
must ask; `unknown` says why the rule could not be checked.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from harness.verdict.rule_info import RuleInfo

Outcome = Literal["pass", "fail", "question", "unknown"]
MAX_TEXT = 200
"""Characters of a quoted line."""


class Evidence(NamedTuple):
    """One line of a record folder, or one file."""

    file: str
    """Path inside the folder, with `/`; code unpacked from a wrapper is `wrapper.py!1.py`."""
    line: int | None
    """From 1; None for a whole file."""
    text: str


class Finding(NamedTuple):
    """What one rule says of a folder."""

    rule: str
    condition: str | None
    """C1..C4 of #1017, or None."""
    outcome: Outcome
    message: str
    """One sentence with the numbers."""
    evidence: tuple[Evidence, ...] = ()
    clears: str = ""
    """What would clear it."""

    @classmethod
    def of(
        cls,
        info: RuleInfo,
        outcome: Outcome,
        message: str,
        evidence: tuple[Evidence, ...] = (),
        clears: str = "",
    ) -> Finding:
        """A finding of the rule `info`."""
        return cls(info.id, info.condition, outcome, message, evidence, clears)

    def public(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return {
            "rule": self.rule,
            "condition": self.condition,
            "outcome": self.outcome,
            "message": self.message,
            "evidence": [line._asdict() for line in self.evidence],
            "clears": self.clears,
        }
