"""Cache reports by the contents of their folders and by the code of the audit.

A key is the hash of every byte that a report depends on: what was read of the folder, its name and its
parent's, the sources of the audit, and the version of the Python that parses. A changed file, rule or Python
therefore leads to a new audit, and an interrupted audit of many folders resumes. Whoever can write to the
cache can forge reports.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path
from typing import Any

from harness.audit.folder import RawFolder
from harness.base import files, strict_json
from harness.base.errors import MachineFault
from harness.base.paths import home


class CacheWriteError(MachineFault):
    """A report could not be written to the cache."""


MAX_ENTRY = 1 << 22
OUTSIDE = (
    "base/errors.py",
    "base/exit_codes.py",
    "base/strict_json.py",
    "edition.py",
    "run/bundle_archive.py",
    "scoring/significance.py",
    "verdict/rule_info.py",
)
"""Sources outside harness/audit that reading, checking and reporting import."""


def folder() -> Path:
    """The default folder of the cache."""
    return home() / "audits"


@functools.cache
def version() -> str:
    """sha256 (hex) of the audit's code and of the version of Python."""
    digest = hashlib.sha256(repr(sys.version_info).encode())
    here = Path(__file__).parent
    for source in sorted([*here.rglob("*.py"), *(here.parent / name for name in OUTSIDE)]):
        digest.update(source.relative_to(here.parent).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def key(path: Path, raw: RawFolder) -> str:
    """The cache key of the folder `path` with the contents `raw`; its own and its parent's name count."""
    names = "\0".join(path.absolute().parts[-2:]).encode("utf-8", "surrogateescape")
    return hashlib.sha256(b"\0".join([version().encode(), names, raw.digest().encode()])).hexdigest()


def load(cache_dir: Path, name: str) -> dict[str, Any] | None:
    """The report with the key `name`; None where there is none, or only a damaged one."""
    try:
        with (cache_dir / name[:2] / f"{name}.json").open("rb") as file:
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


def save(cache_dir: Path, name: str, report: dict[str, Any]) -> None:
    """Write a report. Raises CacheWriteError where that fails."""
    try:
        files.write_json(cache_dir / name[:2] / f"{name}.json", {"key": name, "report": report})
    except MachineFault as fault:
        raise CacheWriteError(
            f"{cache_dir}: the audit's cache cannot be written: {fault.message}",
            hint=f"{fault.hint}; or name another --cache, or do without one by --fresh",
        ) from fault
