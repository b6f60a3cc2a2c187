"""Read a README: table rows with the numbers of a seed, the title, and the first score in the text."""

from __future__ import annotations

import re

from harness.audit.record.facts import Number

SCORE = re.compile(r"val_bpb[`*:= |~]{1,12}(\d\.\d{3,12})\b")
CELL = re.compile(r"[-+]?\d{1,12}(?:,\d{3}){0,4}(?:\.\d{1,12})?")
SEED_CELL = re.compile(r"[*_` ]{0,6}(?:seed )?[*_` ]{0,3}(\d{1,10})[*_` ]{0,6}", re.I)
MAX_LINE = 1_000
MAX_ROWS = 200
MAX_TITLE = 200
Row = tuple[int, str, int, tuple[float, ...]]


def stated(file: str, text: str) -> Number | None:
    """The first `val_bpb` with a number, or None."""
    for number, line in enumerate(text.split("\n")[:20_000], 1):
        if "val_bpb" in line and (match := SCORE.search(line[:MAX_LINE])):
            return Number.printed(match[1], file, number)
    return None


def title(text: str) -> str | None:
    """The first heading of a README, or None."""
    return next(
        (line.strip("# ")[:MAX_TITLE] for line in text[: MAX_LINE * 4].split("\n") if line.startswith("#")),
        None,
    )


def rows(file: str, text: str) -> list[Row]:
    """Rows of tables whose first column is headed `Seed`: seed, file, line, numbers of the other cells."""
    found: list[Row] = []
    within = False
    for number, line in enumerate(text.split("\n")[:20_000], 1):
        cells = (
            [cell.strip() for cell in line[:MAX_LINE].strip().strip("|").split("|")] if "|" in line else []
        )
        if not cells:
            within = False
        elif cells[0].strip("*_` ").lower() in ("seed", "seeds"):
            within = True
        elif within and (seed := SEED_CELL.fullmatch(cells[0])) and len(found) < MAX_ROWS:
            numbers = tuple(
                float(match[0].replace(",", ""))
                for cell in cells[1:]
                for match in [CELL.search(cell)]
                if match
            )
            found.append((int(seed[1]), file, number, numbers))
    return found
