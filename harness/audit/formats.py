"""Print reports as annotations of GitHub Actions, as a short comment, and as SARIF 2.1.0 for code scanning.

A report is the object that `pgolf audit --json` prints (folder, headline, seeds, verdict, findings). Text
from submitters is escaped for its destination. See page.py for the HTML page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from harness.audit.rulebook import AUDIT_RULES
from harness.base.text import markdown as escaped, plain, plain_lines

Report = dict[str, Any]
LEVEL = {"fail": "error", "question": "warning", "unknown": "notice"}
SARIF_LEVEL = {"fail": "error", "question": "warning", "unknown": "note"}
ORDER = ("fail", "question", "unknown", "pass")
MAX_LINES = 24
"""Lines of a comment: one screen."""
MAX_CELL = 160
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
GUIDE = "docs/audit.md"


def notable(report: Report) -> list[dict[str, Any]]:
    """The findings that a reader must see: all but passes, the gravest first."""
    return sorted(
        (found for found in report["findings"] if found["outcome"] != "pass"),
        key=lambda found: ORDER.index(found["outcome"]),
    )


def located(report: Report) -> list[dict[str, Any]]:
    """The notable findings without each `unknown` that has no line to mark, since the folder lacks a fact."""
    return [found for found in notable(report) if found["evidence"] or found["outcome"] != "unknown"]


def message(found: dict[str, Any]) -> str:
    """The finding as one sentence, with what would clear it."""
    text = found.get("message") or "; ".join(line["text"] for line in found["evidence"]) or found["rule"]
    return f"{text}. Would clear it: {found['clears']}" if found.get("clears") else str(text)


def github(reports: Iterable[Report]) -> str:
    """Workflow commands, one a finding, at its first line.

    `%`, line ends and, in properties, `:` and `,` are escaped.
    """
    lines = []
    for report in reports:
        for found in located(report):
            file, line = shipped(found["evidence"][0]) if found["evidence"] else ("", None)
            where = {"file": f"{report['folder']}/{file}".rstrip("/"), "line": line, "title": found["rule"]}
            properties = ",".join(
                f"{key}={_property(value)}" for key, value in where.items() if value is not None
            )
            lines.append(f"::{LEVEL[found['outcome']]} {properties}::{_data(message(found))}")
    return "\n".join(lines)


def shipped(evidence: dict[str, Any]) -> tuple[str, int | None]:
    """The file and line as the folder ships them: unpacked code has its wrapper's file and no line."""
    file, packed, _ = evidence["file"].partition("!")
    return file, None if packed else evidence["line"]


def _data(text: str) -> str:
    return plain_lines(text).replace("%", "%25").replace("\n", "%0A")


def _property(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")


def markdown(reports: Sequence[Report]) -> str:
    """A comment of at most one screen: one line a folder, the gravest findings, how many are left out."""
    lines = ["### pgolf audit", ""]
    for report in reports[:6]:
        bpb = report.get("headline_bpb")
        lines.append(
            f"**{_shown(report['verdict'])}** · {_shown(report['folder'])}"
            + (f" · {bpb:.4f} bpb" if bpb else "")
        )
    if len(reports) > 6:
        lines.append(f"… and {len(reports) - 6} more folders")
    rows = [
        (report, found) for report in reports for found in notable(report) if found["outcome"] != "unknown"
    ]
    rows.sort(key=lambda row: ORDER.index(row[1]["outcome"]))
    room = MAX_LINES - len(lines)
    if rows:
        lines += ["", "| | rule | where | what |", "|---|---|---|---|"]
    for _, found in rows[:room]:
        first = found["evidence"][0] if found["evidence"] else None
        where = f"{first['file']}:{first['line'] or ''}".rstrip(":") if first else ""
        text = message(found)
        text = text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
        rule = f"{_shown(found['rule'])} {found['condition'] or ''}"
        lines.append(f"| {found['outcome']} | {rule} | {_shown(where)} | {_shown(text)} |")
    left = len(rows) - room
    if left > 0:
        lines.append(f"\n{left} more: `pgolf audit --format sarif`")
    lines += [
        "",
        "Read from what was published; nothing was run. `pgolf explain RULE` says what a rule checks and "
        "cannot see.",
    ]
    return "\n".join(lines)


def _shown(line: str) -> str:
    """Plain text in a comment: no markup, no line break, and no `@name` that would call somebody."""
    return escaped(plain(line.replace("\n", " "))).replace("@", "@\u200b")


def sarif(reports: Iterable[Report], version: str) -> dict[str, Any]:
    """One run of SARIF 2.1.0 with the `located` findings, each with its rule, lines and a fingerprint."""
    infos = {info.id: info for info in AUDIT_RULES}
    results, used = [], dict[str, None]()
    for report in reports:
        for found in located(report):
            used[found["rule"]] = None
            locations = [_location(report["folder"], line) for line in found["evidence"]] or [
                _location(report["folder"], {"file": "", "line": None, "text": ""})
            ]
            results.append(
                {
                    "ruleId": found["rule"],
                    "ruleIndex": list(used).index(found["rule"]),
                    "level": SARIF_LEVEL[found["outcome"]],
                    "message": {"text": message(found)},
                    "locations": locations[:1],
                    **({"relatedLocations": locations[1:]} if locations[1:] else {}),
                    "partialFingerprints": {
                        "pgolf/v1": f"{report['folder']}:{found['rule']}:"
                        + (found["evidence"][0]["text"] if found["evidence"] else "")
                    },
                    "properties": {"outcome": found["outcome"], "condition": found["condition"]},
                }
            )
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": infos[rule].title if rule in infos else rule},
            "help": {
                "text": f"{infos[rule].checks}. Not covered: {infos[rule].not_covered}"
                if rule in infos
                else GUIDE
            },
        }
        for rule in used
    ]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "pgolf audit", "version": version, "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }


def _location(folder: str, evidence: dict[str, Any]) -> dict[str, Any]:
    file, line = shipped(evidence)
    physical: dict[str, Any] = {
        "artifactLocation": {"uri": quote(f"{folder}/{file}".rstrip("/"), errors="surrogateescape")}
    }
    if line:
        physical["region"] = {
            "startLine": line,
            **({"snippet": {"text": evidence["text"]}} if evidence["text"] else {}),
        }
    return {"physicalLocation": physical}
