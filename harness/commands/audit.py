"""`pgolf audit`: read record folders and print what was found, in one of several forms."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.audit import audit, cache as caches, formats, page as pages
from harness.audit.folder import folders
from harness.audit.parallel import SECONDS, Audited, audit_all
from harness.base import files
from harness.base.errors import MachineFault
from harness.base.text import plain
from harness.commands import options

FEW = 4
"""Folders whose audit is over before anybody asks how far it is."""


app = options.new_app()


@app.command("audit")
def audit_records(
    paths: Annotated[
        list[Path], typer.Argument(help="Record folders, or a checkout of the challenge's repository.")
    ],
    form: Annotated[
        Literal["text", "github", "markdown", "sarif"],
        typer.Option(
            "--format", help="text; github: annotations; markdown: a comment; sarif: code scanning."
        ),
    ] = "text",
    page: Annotated[Path | None, typer.Option(help="Write one HTML page here, e.g. audit.html.")] = None,
    workers: Annotated[
        int | None, typer.Option(parser=options.whole(1), metavar="N", help="Processes. Default: one a core.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="The clock of one folder.")] = SECONDS,
    cache: Annotated[
        Path | None, typer.Option(help="Where reports are kept. Default: the user's cache.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Neither take reports from the cache nor keep them.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, one line a folder.")
    ] = False,
) -> None:
    """Read published record folders and run nothing: exit 1 violations found, 5 questions, 0 nothing found.

    pgolf audit records/ --page audit.html
    """
    cache_dir = None if fresh else cache or _default_cache()
    found = list(dict.fromkeys(folder for path in paths for folder in folders(path)))
    audited = audit_all(found, workers=workers or os.cpu_count() or 1, cache_dir=cache_dir, seconds=seconds)
    reports = []
    with closing(_watched(found, audited)) as watched:
        for report in watched:
            reports.append(report)
            if as_json:
                print(json.dumps(report), flush=True)
            elif form == "text":
                print(_text(report), flush=True)
    if not as_json and form != "text":
        print(_render(reports, form))
    if page is not None:
        files.write_bytes(page, pages.page(reports).encode())
    raise typer.Exit(audit.exit_code(reports))


def _default_cache() -> Path | None:
    """The user's cache; None, and a line on stderr, where it cannot be written: an audit only reads."""
    folder = caches.folder()
    try:
        files.require_writable(folder)
    except MachineFault as fault:
        print(f"reports are neither taken from the cache nor kept: {fault.message}", file=sys.stderr)
        return None
    return folder


def _render(reports: list[dict[str, Any]], form: Literal["github", "markdown", "sarif"]) -> str:
    """All reports in a form that serves pull requests."""
    if form == "sarif":
        return json.dumps(formats.sarif(reports, version("pgolf")), indent=1)
    return formats.github(reports) if form == "github" else formats.markdown(reports)


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
