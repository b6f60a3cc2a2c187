"""Tables on stdout: COLUMNS and NO_COLOR are obeyed, and no character is lost at any width."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter

import pytest
from rich.console import Console

from harness.base.console import PIPED_COLUMNS, print_lines, print_table, text_cells

HEADINGS = ("seed", "outcome", "bits/byte", "train s", "evidence")
ROWS = [
    ("1337", "interrupted", "2.1234", "599.87", "one sentence that is long enough to be wrapped " * 3),
    ("42", "scored", "–", "–", "e" * 150),
]
PROGRAM = """
from harness.base.console import new_console, print_lines, print_table, text_cells
console = new_console()
print_lines(console, "words " * 60, "bold green")
print_table(console, ["number", "prose"], [text_cells(["123456789", "words " * 60], "red")], ["prose"])
"""


def shown(width: int) -> str:
    stream = io.StringIO()
    rows = [text_cells(row) for row in ROWS]
    print_table(Console(file=stream, width=width), HEADINGS, rows, prose=("evidence",))
    return stream.getvalue()


def lines_printed(**variables: str) -> list[str]:
    """The lines that PROGRAM prints into a pipe, in an environment with these variables."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_table_loses_no_character_and_exceeds_no_width(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    expected = Counter(letter for row in ROWS for cell in row for letter in cell if letter != " ")
    assert not expected - Counter(text)
    assert all(number in text for number in ("1337", "2.1234", "599.87", "42")), "no number is broken"


def test_a_console_too_narrow_for_the_table_gets_each_row_as_a_list() -> None:
    lines = shown(40).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["seed", "outcome", "bits/byte", "train"]
    assert lines[1].split() == ["outcome", "interrupted"]
    assert sum(line.strip() == "" for line in lines) == 1, "an empty line between two rows"


def test_markup_and_control_characters_are_shown_and_not_obeyed() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    print_table(console, ["[red]head"], [text_cells(["[red]x[/]\x1b[2J\nnext"])])
    print_lines(console, "[bold]a\x1b[2J\nb")
    for part in ("[red]head", "[red]x[/]\\x1b[2J\\nnext", "[bold]a\\x1b[2J\nb"):
        assert part in stream.getvalue()


@pytest.mark.slow
def test_a_pipe_is_as_wide_as_columns_says_and_has_a_fixed_width_without_it() -> None:
    assert 70 < max(map(len, lines_printed(COLUMNS="80"))) <= 80
    assert 150 < max(map(len, lines_printed(COLUMNS="160"))) <= 160
    for unusable in ({}, {"COLUMNS": ""}, {"COLUMNS": "wide"}, {"COLUMNS": "99999999"}):
        assert PIPED_COLUMNS - 10 < max(map(len, lines_printed(**unusable))) <= PIPED_COLUMNS
    assert max(map(len, lines_printed(COLUMNS="0"))) <= 20


@pytest.mark.slow
def test_no_color_is_obeyed_where_colours_are_forced() -> None:
    forced = {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm-256color"}
    assert any("\x1b[31m" in line for line in lines_printed(**forced))
    assert not any("\x1b[3" in line for line in lines_printed(**forced, NO_COLOR="1"))
