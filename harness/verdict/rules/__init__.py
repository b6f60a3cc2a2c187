"""The rules of the edition, one check each, in the order in which the report shows them."""

from __future__ import annotations

from harness.verdict.rules import conditions, limits, provenance
from harness.verdict.rules.base import Evidence, Rule, Submitted, finding

RULES: tuple[Rule, ...] = (*limits.RULES, *conditions.RULES, *provenance.RULES)

SCORING_RULES: tuple[Rule, ...] = (
    *(rule for rule in RULES if rule.id in ("score-clock", "setup-clock", "resources")),
    *conditions.RULES,
    *(rule for rule in RULES if rule.id == "conduct"),
)
"""The rules that apply where a program is judged without a submission (`pgolf score`)."""

__all__ = ["RULES", "SCORING_RULES", "Evidence", "Rule", "Submitted", "finding"]
