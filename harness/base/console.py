"""Print tables and sentences on stdout at any width, without losing a character.

The console is as wide as COLUMNS says, else as its terminal, else PIPED_COLUMNS; rich obeys NO_COLOR.
Progress and messages go to stderr: see progress.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from harness.base.text import plain, plain_lines

PIPED_COLUMNS = 100
"""Width where the output is no terminal and COLUMNS is not set."""
LEAST_COLUMNS = 20
"""A narrower COLUMNS counts as this one: no table can be read below it."""
PROSE_COLUMNS = 16
"""The least width of a column of prose in a table."""
GAPS = (2, 1)
"""Spaces between two columns of a table, the wider first."""


def new_console() -> Console:
    """A console on stdout with the width that the module's docstring says."""
    console = Console(highlight=False)
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and len(columns) < 6:
        console.width = max(int(columns), LEAST_COLUMNS)
    elif not console.is_terminal:
        console.width = PIPED_COLUMNS
    return console


def print_lines(console: Console, text: str, style: str = "") -> None:
    """Print text that strangers may have written; a line too long for the console is wrapped at a space."""
    console.print(Text(plain_lines(text), style))


def text_cells(texts: Iterable[str], style: str = "") -> list[Text]:
    """The cells of a row, of text that strangers may have written."""
    return [Text(plain(text), style) for text in texts]


def print_table(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[Text]], prose: Collection[str] = ()
) -> None:
    """Print `rows` as a table, or, where the console is too narrow for it, each row as lines `heading  cell`.

    Columns whose heading is in `prose` are wrapped. The others keep every cell on one line, so that no number
    is cut or broken.
    """
    heads = [_stacked(heading) for heading in headings]
    widths = [max(map(_width, column)) for column in zip(heads, *rows, strict=True)]
    least = sum(
        min(width, PROSE_COLUMNS) if heading in prose else width
        for heading, width in zip(headings, widths, strict=True)
    )
    gap = next((gap for gap in GAPS if least + gap * (len(headings) - 1) <= console.width), None)
    if gap is None:
        _print_records(console, headings, rows)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for heading, head in zip(headings, heads, strict=True):
        table.add_column(head, no_wrap=heading not in prose, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_records(console: Console, headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """Each row as lines `heading  cell`, with an empty line between two rows."""
    for number, row in enumerate(rows):
        if number:
            console.print()
        grid = Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2))
        for heading, cell in zip(headings, row, strict=True):
            grid.add_row(Text(heading), cell)
        console.print(grid)


def _stacked(heading: str) -> Text:
    """The heading on two lines, divided after its slash or at its last space."""
    divided = heading.replace("/", "/\n") if "/" in heading else "\n".join(heading.rsplit(" ", 1))
    return Text(divided)


def _width(text: Text) -> int:
    """Columns of its longest line."""
    return max((line.cell_len for line in text.split(allow_blank=True)), default=0)
