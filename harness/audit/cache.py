"""Reports of folders that were audited before, by what the folders hold and by the audit's own code.

A key is the hash of every byte that an audit can depend on: what was read of the folder, its name and its
shelf's, the sources of harness/audit and the interpreter that parses. So a changed file, rule or Python asks
anew, and an interrupted audit of many folders goes on where it stopped. Not covered: whoever can write to the
cache can write reports."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path
from typing import Any

from harness.audit.folder import Held
from harness.base import files, strict_json
from harness.base.errors import MachineFault
from harness.base.paths import home


class NotKept(MachineFault):
    """A report could not be written to the cache."""


MAX_ENTRY = 1 << 22
OUTSIDE = ("edition.py", "scoring/significance.py", "base/strict_json.py")
"""Sources outside harness/audit that a finding can depend on."""


def folder() -> Path:
    """Where reports are kept by default."""
    return home() / "audits"


@functools.cache
def version() -> str:
    """sha256 (hex) of the code that audits and of the interpreter that parses."""
    digest = hashlib.sha256(repr(sys.version_info).encode())
    here = Path(__file__).parent
    for source in sorted([*here.rglob("*.py"), *(here.parent / name for name in OUTSIDE)]):
        digest.update(source.relative_to(here.parent).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def key(place: Path, held: Held) -> str:
    """The name of a report: of `held`, found under the name of `place` and its shelf."""
    names = "\0".join(place.absolute().parts[-2:]).encode("utf-8", "surrogateescape")
    return hashlib.sha256(b"\0".join([version().encode(), names, held.digest().encode()])).hexdigest()


def load(kept: Path, name: str) -> dict[str, Any] | None:
    """The report kept under that name; None where there is none, or none that is whole."""
    try:
        with (kept / name[:2] / f"{name}.json").open("rb") as file:
            data = file.read(MAX_ENTRY + 1)
        entry = strict_json.strict_json(data) if len(data) <= MAX_ENTRY else None
    except (OSError, ValueError):
        return None
    report = entry.get("report") if isinstance(entry, dict) and entry.get("key") == name else None
    return (
        report
        if isinstance(report, dict) and {"schema", "folder", "verdict", "findings", "record"} <= report.keys()
        else None
    )


def save(kept: Path, name: str, report: dict[str, Any]) -> None:
    """Keeps a report. Raises NotKept where that cannot be done."""
    try:
        files.write_json(kept / name[:2] / f"{name}.json", {"key": name, "report": report})
    except MachineFault as fault:
        raise NotKept(
            f"{kept}: the audit's cache cannot be written: {fault.message}",
            hint="check disk space and permissions, name another --cache, or do without by --fresh",
        ) from fault
