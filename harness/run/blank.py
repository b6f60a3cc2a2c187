"""Blank the docstrings and comments of a Python source, so that they are not counted.

The fixed rule: a statement that is only a string and has its lines to itself becomes blank lines, or `""`
where it is all that a block holds; comments, trailing spaces and blank lines at the end go; text becomes
UTF-8 with newlines `\\n`. Everything else stays where it is, so every line number and every column stays
right. Names, annotations and all other strings stay: a program may read them while it runs.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from importlib.util import decode_source

MAX_BYTES = 500_000
"""Of one source: its syntax trees take up to 800 times as much memory, and a stranger may have written it."""


@functools.lru_cache(maxsize=512)
def blanked(source: bytes) -> bytes:
    """The source without docstrings and comments, line for line.

    Raises what `ast.parse` raises for a source that does not parse (SyntaxError, ValueError), UnicodeError
    for one that does not decode, and ValueError for more than MAX_BYTES and where the result would not run
    the same.
    """
    if len(source) > MAX_BYTES:
        raise ValueError(f"{len(source):,} bytes, expected at most {MAX_BYTES:,}")
    text = decode_source(source)
    tree = ast.parse(text)
    lines = [line.encode() for line in text.split("\n")]
    kept = _rows_that_end_inside_a_string(tree)
    for row, column in _comments(text):
        lines[row] = lines[row][:column].rstrip()
    for statement, left in _string_statements(tree):
        first, last = statement.lineno - 1, (statement.end_lineno or 0) - 1
        before, after = lines[first][: statement.col_offset], lines[last][statement.end_col_offset :]
        if not before.strip() and not after.strip():
            lines[first : last + 1] = [before + left] + [b""] * (last - first)
            kept -= {*range(first, last)}
    result = b"\n".join(line if row in kept else line.rstrip() for row, line in enumerate(lines)).rstrip()
    result += b"\n" * bool(result)
    if _shape(tree) != _shape(ast.parse(result)):
        raise ValueError("without comments its syntax tree would not be the same, docstrings apart")
    return result


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """Row (from 0) and column in UTF-8 bytes of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            yield row - 1, len(token.line[:column].encode())


def _blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """The list of statements of every block, the module's own first."""
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value


def _is_string(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _string_statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, bytes]]:
    """Every statement that is only a string, and what its block needs in its place."""
    for block in _blocks(tree):
        needed = block is not tree.body and all(map(_is_string, block))
        for statement in filter(_is_string, block):
            yield statement, b'""' if needed and statement is block[0] else b""


def _rows_that_end_inside_a_string(tree: ast.Module) -> set[int]:
    """The rows (from 0) whose trailing spaces may belong to a string."""
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr))
    return {row for node in strings for row in range(node.lineno - 1, (node.end_lineno or 0) - 1)}


def _shape(tree: ast.Module) -> tuple[str, list[tuple[int, int]]]:
    """What decides how a source runs: its tree without string statements, and where each node begins."""
    for block in _blocks(tree):
        block[:] = [statement for statement in block if not _is_string(statement)]
    places = [
        (node.lineno, node.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.arg | ast.keyword | ast.alias)
    ]
    return ast.dump(tree), places
