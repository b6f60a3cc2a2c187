"""Every id that a verdict or an audit may name, explained: conditions, rules, violations, significance tests.

Each rule is described beside its check: `harness/verdict/rules/`, `harness/audit/code/` and
`harness/audit/numbers/`. An id may be of several kinds, such as train-clock: a rule of a run, a rule of the
audit, and a violation.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, NamedTuple

from harness.audit import code, numbers
from harness.audit.audit import NOT_AUDITED
from harness.base.errors import UsageError
from harness.edition import SIGNIFICANCE, Significance
from harness.verdict.condition_info import BOUND, CONDITIONS, ConditionInfo
from harness.verdict.rule_info import RuleInfo
from harness.verdict.violation_info import VIOLATIONS, ViolationInfo

AUDIT_RULES: tuple[RuleInfo, ...] = (*code.RULES, *numbers.RULES, NOT_AUDITED)
Kind = Literal["condition", "run", "audit", "violation", "significance"]
HEADINGS: dict[Kind, str] = {
    "condition": "conditions of #1017, and the bound of the certificate",
    "run": "rules of a run (pgolf run, verdict.json)",
    "audit": "rules of the audit (pgolf audit)",
    "violation": "what ended a stage (`rule` in run.json)",
    "significance": "tests against the baseline (verdict.json)",
}
"""The kinds in the order of the list."""
NAMES: dict[Kind, str] = {
    "condition": "a condition, or the bound",
    "run": "a rule of a run",
    "audit": "a rule of the audit",
    "violation": "what ended a stage, in run.json",
    "significance": "a test against the baseline",
}


class Entry(NamedTuple):
    """One id of one kind."""

    kind: Kind
    id: str
    title: str
    condition: str | None
    rows: tuple[tuple[str, str], ...]
    """What is said of it below its title, with a label each."""
    public: dict[str, Any]
    """Its fields as `pgolf explain --json` prints them."""


def entries() -> list[Entry]:
    """Everything that can be explained, kind by kind, in the order of the reports."""
    from harness.verdict.rules import RULES  # loads what a run needs, which the audit's reports do not

    run = tuple(rule.info for rule in RULES)
    return [
        *(_condition(info, run) for info in (*CONDITIONS, BOUND)),
        *(_rule("run", info) for info in run),
        *(_rule("audit", info) for info in AUDIT_RULES),
        *(_violation(info) for info in VIOLATIONS),
        *(_significance(test) for test in SIGNIFICANCE),
    ]


def find(wanted: str) -> list[Entry]:
    """The entries of that id, in any case. Raises UsageError with similar ids where there is none."""
    every = entries()
    found = [entry for entry in every if entry.id.lower() == wanted.lower()]
    if not found:
        ids = list(dict.fromkeys(entry.id for entry in every))
        near = difflib.get_close_matches(wanted.lower(), ids, 3, 0.4)
        raise UsageError(
            f"rule {wanted!r:.80}: not known",
            hint=f"did you mean {', '.join(near)}?" if near else f"the ids are {', '.join(ids)}",
        )
    return found


def overview(every: list[Entry]) -> str:
    """One line an entry, under the heading of its kind: id, condition, title."""
    width = max(len(entry.id) for entry in every)
    groups = [
        [
            f"  {entry.id:{width}}  {entry.condition or '':2}  {entry.title}"
            for entry in every
            if entry.kind == kind
        ]
        for kind in HEADINGS
    ]
    return "\n\n".join(
        "\n".join([heading, *lines]) for heading, lines in zip(HEADINGS.values(), groups, strict=True)
    )


def describe(found: list[Entry]) -> str:
    """Each entry with all that is said of it."""
    return "\n\n".join(
        "\n".join(
            [
                f"{entry.id}: {entry.title}",
                *(f"  {label:11} {text}" for label, text in (("is", NAMES[entry.kind]), *entry.rows)),
            ]
        )
        for entry in found
    )


def public(found: list[Entry]) -> list[dict[str, Any]]:
    """The entries as `pgolf explain --json` prints them."""
    return [{"kind": entry.kind, **entry.public} for entry in found]


def _condition(info: ConditionInfo, run: tuple[RuleInfo, ...]) -> Entry:
    if info is BOUND:
        findings = ["causal", "score-first", "single-pass"]
    else:
        findings = [rule.id for rule in run if rule.condition == info.id]
    rows = (
        ("source", info.source),
        ("says", info.says),
        ("findings", ", ".join(findings)),
        ("messages", info.messages),
        ("witness", info.witness),
        ("example", info.example),
    )
    return Entry("condition", info.id, info.title, None, rows, {**info.public(), "findings": findings})


def _rule(kind: Kind, info: RuleInfo) -> Entry:
    rows = (
        ("source", info.source),
        ("condition", info.condition or "none of #1017's"),
        ("checks", info.checks),
        ("example", info.example),
        ("not covered", info.not_covered),
    )
    return Entry(kind, info.id, info.title, info.condition, rows, info.public())


def _violation(info: ViolationInfo) -> Entry:
    rows = (("finding", info.finding), ("exit code", info.exit_code), ("source", info.source))
    return Entry("violation", info.id, info.title, None, rows, info.public())


def _significance(test: Significance) -> Entry:
    title = f"Better than the baseline: p below {test.p_below:g}, margin {test.margin_nats:g} nats a token"
    checks = "one-sided Welch test of the seeds against the baseline's; reported, never part of the verdict"
    fields = {"id": test.name, "title": title, "source": test.source, "checks": checks}
    return Entry(
        "significance", test.name, title, None, (("source", test.source), ("checks", checks)), fields
    )
