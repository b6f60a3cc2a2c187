"""Audit one record folder: read it, check every rule, and decide on a verdict.

The verdict is `violations found`, `questions` or `nothing found`, never "valid": only a run can show that.
`headline_bpb` is the score in the logs where they confirm the claim, else the claim; `headline_kind` says
which.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.audit import record
from harness.audit.code import code_findings
from harness.audit.code.promises import UNREAD_CODE
from harness.audit.finding import Evidence, Finding
from harness.audit.folder import Contents, read
from harness.audit.numbers import number_findings
from harness.audit.numbers.findings import off_record_track
from harness.audit.record.report import seeds
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.verdict.rule_info import RuleInfo

EXIT = {
    "violations found": ExitCode.VIOLATION,
    "questions": ExitCode.INCONCLUSIVE,
    "nothing found": ExitCode.VALID,
}


def audit_folder(folder: Path) -> dict[str, Any]:
    """The report of one folder, as `--json` prints it."""
    return report(folder, read(folder))


def report(folder: Path, contents: Contents) -> dict[str, Any]:
    """The report of a folder from what was read of it: all rules are checked here."""
    facts = record.read(folder.as_posix(), contents.texts)
    unread = [
        Finding.of(
            UNREAD_CODE,
            "unknown",
            f"{name}: {reason}",
            (Evidence(name, None, ""),),
            "a smaller file, or fewer of them",
        )
        for name, reason in contents.incomplete.items()
    ]
    # prose names other entries' scores too: #291
    claimed = bool(facts.headline_bpb) and facts.headline_kind != "README"
    on_track = not off_record_track(facts, contents.texts)
    found = [
        *code_findings(
            contents.texts,
            claimed=claimed,
            on_track=on_track,
            unread=[*contents.incomplete, *contents.unrecognised],
        ),
        *number_findings(facts, contents.texts),
        *unread,
    ]
    outcomes = {finding.outcome for finding in found}
    verdict = (
        "violations found"
        if "fail" in outcomes
        else "questions"
        if "question" in outcomes
        else "nothing found"
    )
    return {
        "schema": 1,
        "folder": folder.as_posix(),
        "headline_bpb": facts.headline_bpb,
        "headline_kind": facts.headline_kind,
        "seeds": seeds(facts),
        "verdict": verdict,
        "findings": [finding.public() for finding in found],
        "record": facts.model_dump(mode="json"),
    }


NOT_AUDITED = RuleInfo(
    id="not-audited",
    title="A folder could not be audited",
    condition=None,
    source="docs/audit.md",
    checks="a folder whose audit took too long, needed too much memory or failed",
    example="a source that takes minutes to parse",
    not_covered="everything in such a folder; its verdict is `questions`",
)


def failed(folder: Path, reason: str) -> dict[str, Any]:
    """The report of a folder that could not be audited: a question to its reviewer, never a pass."""
    found = Finding.of(
        NOT_AUDITED,
        "unknown",
        f"the folder could not be audited: {reason}",
        (),
        "an audit with more time or memory, or by a person",
    )
    return {
        "schema": 1,
        "folder": folder.as_posix(),
        "headline_bpb": None,
        "headline_kind": None,
        "seeds": [],
        "verdict": "questions",
        "findings": [found.public()],
        "record": None,
    }


def exit_code(reports: list[dict[str, Any]]) -> ExitCode:
    """The exit code of all reports: violations in any folder first, then questions, then nothing found."""
    return first_that_applies(EXIT[report["verdict"]] for report in reports)
