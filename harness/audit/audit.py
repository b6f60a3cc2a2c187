"""One record folder: its texts read within limits, rules asked, a verdict.

`violations found`, `questions` or `nothing found`, never "valid": only a run can show that. `headline_bpb` is
what the logs say where they say what is claimed, else the claim; its kind says which. Not covered: reading
(record/), rules (code/, numbers/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.audit import record
from harness.audit.code import code_findings
from harness.audit.finding import Evidence, Finding
from harness.audit.folder import Read, read
from harness.audit.numbers import number_findings
from harness.audit.numbers.ask import off_record_track
from harness.audit.record.report import seeds
from harness.base.exit_codes import ExitCode, first_that_applies

EXIT = {
    "violations found": ExitCode.VIOLATION,
    "questions": ExitCode.INCONCLUSIVE,
    "nothing found": ExitCode.VALID,
}


def audit_folder(folder: Path) -> dict[str, Any]:
    """The report of one folder, as `--json` prints it."""
    return report(folder, read(folder))


def report(folder: Path, held: Read) -> dict[str, Any]:
    """The report of a folder from what was read of it; everything that is asked of a folder is asked here."""
    what = record.read(folder.as_posix(), held.texts)
    unread = [
        Finding(
            "unread-code",
            None,
            "unknown",
            f"{name}: {reason}",
            (Evidence(name, None, ""),),
            "a smaller file, or fewer of them",
        )
        for name, reason in held.cut.items()
    ]
    claimed = (
        bool(what.headline_bpb) and what.headline_kind != "README"
    )  # prose names other entries' scores too: #291
    on_track = not off_record_track(what, held.texts)
    found = [
        *code_findings(held.texts, claimed=claimed, on_track=on_track, unread=[*held.cut, *held.left]),
        *number_findings(what, held.texts),
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
        "headline_bpb": what.headline_bpb,
        "headline_kind": what.headline_kind,
        "seeds": seeds(what),
        "verdict": verdict,
        "findings": [finding.public() for finding in found],
        "record": what.model_dump(mode="json"),
    }


def failed(folder: Path, reason: str) -> dict[str, Any]:
    """The report of a folder that could not be audited: a question to whoever reviews it, never a pass."""
    found = Finding(
        "not-audited",
        None,
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
    """Violations in any folder come before questions, questions before nothing found."""
    return first_that_applies(EXIT[report["verdict"]] for report in reports)
