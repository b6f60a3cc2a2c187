"""What the audit found by one rule in one folder: an outcome, the lines that decide it, and what would clear
it.

A finding speaks of what was published, never of a person. `fail` needs lines that leave no other reading;
`question` is a thing that a reviewer must ask; `unknown` says why it could not be told. Not covered: what a
rule is (rulebook.py)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Outcome = Literal["pass", "fail", "question", "unknown"]


class Evidence(NamedTuple):
    """One place in a record folder."""

    file: str
    """Relative to the folder, `/` between parts; a wrapper's content is named after the wrapper."""
    line: int | None
    """From 1; None where a whole file is meant."""
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

    def public(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return {
            "rule": self.rule,
            "condition": self.condition,
            "outcome": self.outcome,
            "message": self.message,
            "evidence": [place._asdict() for place in self.evidence],
            "clears": self.clears,
        }
