"""`pgolf audit`: folders in, one form of output out. Not covered: what is found (audit.py) and how it looks (formats.py)."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.audit import audit, formats
from harness.render import plain


def run(paths: list[Path], form: str, page: Path | None) -> int:
    """Audits the folders, prints them in one form, writes the page; returns the exit code."""
    reports = []
    for folder in [folder for path in paths for folder in audit.folders(path)]:
        report = audit.audit_folder(folder)
        reports.append(report)
        if form in ("json", "text"):
            print(json.dumps(report) if form == "json" else _text(report), flush=True)
    if form == "github":
        print(formats.github(reports))
    elif form == "markdown":
        print(formats.markdown(reports))
    elif form == "sarif":
        print(json.dumps(formats.sarif(reports, version("pgolf")), indent=1))
    if page is not None:
        from harness.audit.page import page as written  # templates load late
        page.write_text(written(reports), encoding="utf-8")
    return audit.exit_code(reports)


def _text(report: dict[str, Any]) -> str:
    lines = [f"{report['verdict']:17} {plain(report['folder'])}"]
    for found in formats.told(report):
        lines.append(f"  {found['outcome']:9} {found['rule']}: {plain(formats.message(found))}")
        lines += [f"    {plain(place['file'])}:{place['line'] or ''} {plain(place['text'])}" for place in found["evidence"]]
    return "\n".join(lines)
