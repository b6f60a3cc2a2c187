"""`pgolf audit`: folders in, one form of output out. Not covered: what is found (audit.py) and how it looks
(formats.py)."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.audit import audit, formats
from harness.audit.folder import folders
from harness.audit.parallel import SECONDS, Audited, audit_all
from harness.base import files
from harness.base.text import plain

FEW = 4
"""Folders whose audit is over before anybody asks how far it is."""


def run(
    paths: list[Path],
    form: str,
    page: Path | None,
    *,
    workers: int | None = None,
    kept: Path | None = None,
    seconds: float = SECONDS,
) -> int:
    """Audits the folders, prints them in one form, writes the page; returns the exit code.

    `kept` is the folder of the cache, None for no cache; `seconds` the clock of one folder.
    """
    found = list(dict.fromkeys(folder for path in paths for folder in folders(path)))
    reports = []
    with closing(
        _watched(
            found, audit_all(found, workers=workers or os.cpu_count() or 1, cache_dir=kept, seconds=seconds)
        )
    ) as audited:
        for report in audited:
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

        files.write_bytes(page, written(reports).encode())
    return audit.exit_code(reports)


def _watched(found: Sequence[Path], audited: Iterator[Audited]) -> Generator[dict[str, Any]]:
    """The reports, with a line on stderr now and then of how far it is."""
    begun = said = time.monotonic()
    known = 0
    live = sys.stderr.isatty() and not sys.stdout.isatty()
    for count, (report, before) in enumerate(audited, 1):
        known += before
        last = count == len(found)
        if len(found) > FEW and (last or time.monotonic() - said > (0.2 if live else 5)):
            said = time.monotonic()
            kept = f", {known} known from before" if known else ""
            print(
                f"audit: {count} of {len(found)} folders{kept}, {said - begun:.0f} s",
                file=sys.stderr,
                end="\r" if live and not last else "\n",
                flush=True,
            )
        yield report


def _text(report: dict[str, Any]) -> str:
    lines = [f"{report['verdict']:17} {plain(report['folder'])}"]
    for found in formats.located(report):
        lines.append(f"  {found['outcome']:9} {found['rule']}: {plain(formats.message(found))}")
        lines += [
            f"    {plain(place['file'])}:{place['line'] or ''} {plain(place['text'])}"
            for place in found["evidence"]
        ]
    left = [found["rule"] for found in formats.notable(report) if found not in formats.located(report)]
    if left:
        lines.append(
            f"  unknown   {', '.join(dict.fromkeys(left))}: the folder does not say enough (--json: what "
            "would)"
        )
    return "\n".join(lines)
