"""One record folder, or a whole checkout of them: texts read within limits, rules asked, a verdict.

`violations found`, `questions` or `nothing found`, never "valid": only a run can show that. `headline_bpb` is what the logs say
where they say what is claimed, else the claim; its kind says which. Not covered: reading (record/), rules (code/, numbers/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.audit import record
from harness.audit.code import code_findings
from harness.audit.finding import Evidence, Finding
from harness.audit.numbers import number_findings
from harness.audit.record.report import seeds
from harness.audit.unwrap import unwrapped
from harness.errors import UsageError

TEXT = (".py", ".md", ".log", ".txt", ".json", ".sh", ".c", ".cpp", ".cu")
MAX_FILE = 3_000_000
MAX_FILES = 400
EXIT = {"violations found": 1, "questions": 5, "nothing found": 0}


def folders(path: Path) -> list[Path]:
    """The record folders under `path`, or itself where it is one. Raises UsageError where there are none."""
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder", hint="a record folder, or a checkout of the challenge's repository")
    start = path / "records" if (path / "records").is_dir() else path
    found = []
    for top, below, files in os.walk(start):
        below.sort()
        if _is_record(files):
            found.append(Path(top))
            below.clear()
    if not found:
        raise UsageError(f"{path}: no record folder in it", hint="one holds submission.json, a train script or a train log")
    return found


def _is_record(files: list[str]) -> bool:
    return any((name.startswith("submission") and name.endswith(".json"))
               or (name.startswith("train") and name.endswith((".py", ".log"))) for name in files)


class Held(NamedTuple):
    """What was read of a folder: text by path, and the paths of what was not read whole, with the reason."""

    texts: dict[str, str]
    cut: dict[str, str]


def read(folder: Path) -> Held:
    """Text files by path, links left out, each within MAX_FILE bytes, MAX_FILES at most; packed sources beside their wrappers as
    `x.py!1.py`."""
    held = Held({}, {})
    for count, file in enumerate(_files(folder)):
        name = file.relative_to(folder).as_posix()
        if count >= MAX_FILES:
            held.cut[name] = f"it and what follows it are beyond the first {MAX_FILES} files"
            break
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            held.cut[name] = f"only its first {MAX_FILE:,} bytes were read"
        held.texts[name] = data[:MAX_FILE].decode("utf-8", "replace")
        if name.endswith(".py"):
            packed = unwrapped(held.texts[name])
            held.texts.update((f"{name}!{number}.py", text) for number, text in enumerate(packed, 1))
    return held


def _files(folder: Path) -> Iterator[Path]:
    for top, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            file = Path(top, name)
            if name.lower().endswith(TEXT) and file.is_file() and not file.is_symlink():
                yield file


def audit_folder(folder: Path) -> dict[str, Any]:
    """The report of one folder, as `--json` prints it."""
    held = read(folder)
    what = record.read(folder.as_posix(), held.texts)
    unread = [Finding("unread-code", None, "unknown", f"{name}: {reason}", (Evidence(name, None, ""),),
                      "a smaller file, or fewer of them") for name, reason in held.cut.items()]
    found = [*code_findings(held.texts), *number_findings(what, held.texts), *unread]
    outcomes = {finding.outcome for finding in found}
    verdict = "violations found" if "fail" in outcomes else "questions" if "question" in outcomes else "nothing found"
    return {"schema": 1, "folder": folder.as_posix(), "headline_bpb": what.headline_bpb, "headline_kind": what.headline_kind,
            "seeds": seeds(what), "verdict": verdict, "findings": [finding.public() for finding in found],
            "record": what.model_dump(mode="json")}


def exit_code(reports: list[dict[str, Any]]) -> int:
    """1 where violations were found in any folder, else 5 where questions are open, else 0."""
    codes = {EXIT[report["verdict"]] for report in reports}
    return 1 if 1 in codes else 5 if 5 in codes else 0
