"""The description of a rule: where it comes from, what it checks, an example, what it does not cover.

The rules of a run (`verdict/rules/`) and of the audit (`harness/audit/`) both state this beside their
checks, and `pgolf explain` prints it. The module is apart from `rules/` because the audit's worker
processes need it and should not load what the rules of a run import.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RuleInfo:
    """The description of one rule."""

    id: str
    title: str
    """What is wrong where the rule is broken."""
    condition: str | None
    """C1..C4 of #1017, or None."""
    source: str
    checks: str
    example: str
    not_covered: str
    """What the check cannot see, and where it therefore gives no more than a question."""

    def public(self) -> dict[str, Any]:
        """The rule as `pgolf explain --json` prints it."""
        return asdict(self)
