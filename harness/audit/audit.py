"""One record folder: its texts read within limits, rules asked, a verdict.

`violations found`, `questions` or `nothing found`, never "valid": only a run can show that. Not covered yet: the numbers of
logs and their cross-checks; `headline_bpb` is what submission.json claims, and its kind says so.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import strict_json
from harness.audit.code import code_findings
from harness.audit.finding import Evidence, Finding
from harness.audit.folder import Read, read

EXIT = {"violations found": 1, "questions": 5, "nothing found": 0}


def audit_folder(folder: Path) -> dict[str, Any]:
    """The report of one folder, as `--json` prints it."""
    return report(folder, read(folder))


def report(folder: Path, held: Read) -> dict[str, Any]:
    """The report of a folder from what was read of it; everything that is asked of a folder is asked here."""
    claimed = _claimed(held.texts)
    unread = [Finding("unread-code", None, "unknown", f"{name}: {reason}", (Evidence(name, None, ""),),
                      "a smaller file, or fewer of them") for name, reason in held.cut.items()]
    found = [*code_findings(held.texts, claimed=bool(claimed and claimed > 0), unread=[*held.cut, *held.left]), *unread]
    outcomes = {finding.outcome for finding in found}
    verdict = "violations found" if "fail" in outcomes else "questions" if "question" in outcomes else "nothing found"
    return {"schema": 1, "folder": folder.as_posix(), "headline_bpb": claimed, "headline_kind": "claimed" if claimed else None,
            "seeds": [], "verdict": verdict, "findings": [finding.public() for finding in found]}


def failed(folder: Path, reason: str) -> dict[str, Any]:
    """The report of a folder that could not be audited: a question to whoever reviews it, never a pass."""
    found = Finding("not-audited", None, "unknown", f"the folder could not be audited: {reason}", (),
                    "an audit with more time or memory, or by a person")
    return {"schema": 1, "folder": folder.as_posix(), "headline_bpb": None, "headline_kind": None, "seeds": [],
            "verdict": "questions", "findings": [found.public()]}


def _claimed(texts: dict[str, str]) -> float | None:
    """The first score that a submission*.json states, a finite number; null where none does."""
    for name, text in sorted(texts.items()):
        if name.rsplit("/", 1)[-1].startswith("submission") and name.endswith(".json"):
            with suppress(ValueError, OverflowError, RecursionError):
                stated = strict_json.strict_json(text.encode())
                value = stated.get("val_bpb", stated.get("mean_val_bpb")) if isinstance(stated, dict) else None
                number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
                if math.isfinite(number):
                    return number
    return None


def exit_code(reports: list[dict[str, Any]]) -> int:
    """1 where violations were found in any folder, else 5 where questions are open, else 0."""
    codes = {EXIT[report["verdict"]] for report in reports}
    return 1 if 1 in codes else 5 if 5 in codes else 0
