"""Write one HTML page for many folders, which sorts by any column and filters by text and verdict.

The page loads nothing and runs only our script, which its content security policy allows by hash. The
template engine escapes text from submitters.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.audit.formats import ORDER, message, notable
from harness.base import templates

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = "audit.js"


def page(reports: Sequence[dict[str, Any]]) -> str:
    """The page for `reports`, objects as `pgolf audit --json` prints them."""
    script = (TEMPLATES / SCRIPT).read_text(encoding="utf-8").strip()
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = []
    shared = _shared([report["folder"] for report in reports])
    for report in reports:
        counts = Counter(found["outcome"] for found in report["findings"])
        findings = [{**found, "message": message(found)} for found in notable(report)]
        seeds = report.get("seeds") or []
        sizes = [seed["counted_bytes"] for seed in seeds if seed.get("counted_bytes")]
        rows.append(
            {
                "folder": report["folder"][len(shared) :],
                "verdict": report["verdict"],
                "bpb": report.get("headline_bpb"),
                "kind": report.get("headline_kind"),
                "seeds": len(seeds),
                "bytes": max(sizes, default=None),
                "findings": findings,
                "counts": [counts[outcome] for outcome in ORDER[:3]],
                "rules": " ".join(sorted({found["rule"] for found in findings})),
            }
        )
    verdicts = Counter(row["verdict"] for row in rows)
    return templates.load(TEMPLATES / "audit.html.j2").render(
        rows=rows, shared=shared, verdicts=sorted(verdicts.items()), script=Markup(script), allowed=allowed
    )


def _shared(folders: Sequence[str]) -> str:
    """The path that several folders have in common, with its last `/`; empty where there is none."""
    try:
        whole = (
            os.path.commonpath([os.path.dirname(folder) for folder in folders]) if len(folders) > 1 else ""
        )
    except ValueError:  # absolute ones beside relative ones
        return ""
    return (
        f"{whole.rstrip('/')}/"
        if whole and all(folder.startswith(f"{whole.rstrip('/')}/") for folder in folders)
        else ""
    )
