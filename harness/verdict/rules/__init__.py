"""The rules of the edition, one check each, in the order in which the report shows them."""

from __future__ import annotations

from harness.verdict.rules import conditions, limits, provenance
from harness.verdict.rules.base import Evidence, Rule, Submitted, finding

RULES: tuple[Rule, ...] = (*limits.RULES, *conditions.RULES, *provenance.RULES)

__all__ = ["RULES", "Evidence", "Rule", "Submitted", "finding"]
