"""All rules, those of a run and those of the audit, for `pgolf explain` and for reports.

Each rule is described beside its check: `harness/verdict/rules/`, `harness/audit/code/` and
`harness/audit/numbers/`. An id may name a rule of both kinds, such as train-clock.
"""

from __future__ import annotations

import difflib
from typing import Any

from harness.audit import code, numbers
from harness.audit.audit import NOT_AUDITED
from harness.base.errors import UsageError
from harness.verdict.rule_info import RuleInfo

AUDIT_RULES: tuple[RuleInfo, ...] = (*code.RULES, *numbers.RULES, NOT_AUDITED)
HEADINGS = {"run": "rules of a run (pgolf run, verdict.json)", "audit": "rules of the audit (pgolf audit)"}


def rules() -> dict[str, tuple[RuleInfo, ...]]:
    """Every rule by its kind, `run` or `audit`, in the order of the reports."""
    from harness.verdict.rules import RULES  # loads what a run needs, which the audit's reports do not

    return {"run": tuple(rule.info for rule in RULES), "audit": AUDIT_RULES}


def find(rule_id: str) -> dict[str, tuple[RuleInfo, ...]]:
    """The rules of that id by kind. Raises UsageError with similar ids where there is none."""
    found = {
        kind: matching
        for kind, infos in rules().items()
        if (matching := tuple(info for info in infos if info.id == rule_id))
    }
    if not found:
        ids = list(dict.fromkeys(info.id for infos in rules().values() for info in infos))
        near = difflib.get_close_matches(rule_id, ids, 3, 0.4)
        raise UsageError(
            f"rule {rule_id!r}: not known",
            hint=f"did you mean {', '.join(near)}?" if near else f"the rules are {', '.join(ids)}",
        )
    return found


def overview(found: dict[str, tuple[RuleInfo, ...]]) -> str:
    """One line a rule: id, condition, title."""
    width = max(len(info.id) for infos in found.values() for info in infos)
    return "\n\n".join(
        "\n".join(
            [
                HEADINGS[kind],
                *(f"  {info.id:{width}}  {info.condition or '':2}  {info.title}" for info in infos),
            ]
        )
        for kind, infos in found.items()
    )


def describe(found: dict[str, tuple[RuleInfo, ...]]) -> str:
    """Each rule with its source, condition, check, example and what it does not cover."""
    return "\n\n".join(_describe(kind, info) for kind, infos in found.items() for info in infos)


def _describe(kind: str, info: RuleInfo) -> str:
    rows = [
        ("rule of", "a run" if kind == "run" else "the audit"),
        ("source", info.source),
        ("condition", info.condition or "none of #1017's"),
        ("checks", info.checks),
        ("example", info.example),
        ("not covered", info.not_covered),
    ]
    return "\n".join([f"{info.id}: {info.title}", *(f"  {name:11} {text}" for name, text in rows)])


def public(found: dict[str, tuple[RuleInfo, ...]]) -> list[dict[str, Any]]:
    """The rules as `pgolf explain --json` prints them."""
    return [{"kind": kind, **info.public()} for kind, infos in found.items() for info in infos]
