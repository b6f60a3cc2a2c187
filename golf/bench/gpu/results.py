"""What a call found, written to disk row by row, so that a crash or a time-out loses nothing.

`gpu.jsonl` gets a line as soon as a row is done. `write` makes gpu.json and gpu.md from all rows. A row is
`ok`, `failed` or `skipped`. A skipped row was not run, and nothing is claimed about it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Failed(Exception):
    """A row failed: the message says why, in a line."""


class Skipped(Exception):
    """A row was not run: the message says why, in a line."""


@dataclass(frozen=True)
class Found:
    """What a row measured: a sentence for the table, and numbers (JSON-ready) for later calculations."""

    seen: str
    numbers: dict[str, Any] = field(default_factory=dict)


class Row(NamedTuple):
    """A line of the table."""

    name: str
    outcome: str
    """ok, failed or skipped."""
    seen: str
    numbers: dict[str, Any]
    seconds: float
    """Wall seconds that the row took."""
    ended: float
    """Seconds after the start of the call."""
    decides: str


class Journal:
    """The rows of a call in a folder, which is made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[Row]()
        folder.mkdir(parents=True, exist_ok=True)
        self.lines = folder / "gpu.jsonl"
        self.lines.write_text("", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Keep a row, on disk first."""
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row._asdict()) + "\n")
        self.rows.append(row)

    def write(self, machine: dict[str, Any]) -> str:
        """Write gpu.json and gpu.md; returns the latter's text."""
        whole = {"machine": machine, "rows": [row._asdict() for row in self.rows]}
        (self.folder / "gpu.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        text = markdown(machine, self.rows)
        (self.folder / "gpu.md").write_text(text, encoding="utf-8")
        return text


def markdown(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The machine's facts in a line, and one table of all rows."""
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += ["| row | | seen | s | done at | decides |", "|---|---|---|---|---|---|"]
    for row in rows:
        seen = row.seen.replace("|", "/").replace("\n", " ")
        at = f"{int(row.ended) // 60}:{int(row.ended) % 60:02d}"
        outcome = row.outcome if row.outcome == "ok" else row.outcome.upper()
        lines.append(f"| {row.name} | {outcome} | {seen} | {row.seconds:.1f} | {at} | {row.decides} |")
    return "\n".join(lines) + "\n"
