"""Byte tables: the leading space counted twice, byte-fallback tokens counted by their name, a fixed ratio.

#1719, #1734: `len(piece[1:].encode()) + 1` in the table and one more at evaluation make text 17 % longer than
it is. #1143: a byte token `<0xE2>` is one byte, not the length of its name. Canonical: #1019. Not covered:
tables read from files (the numbers of the logs show those)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.reach import Program
from harness.audit.code.shape import names, quote
from harness.audit.finding import Finding

SPACE = re.compile(r"has_(leading_)?space|leading_space", re.I)
RATIO = re.compile(r"bytes_per_tok(en)?|\bbpt\b|avg_token_bytes", re.I)


def space_twice(program: Program) -> Iterator[Finding]:
    """One byte for the space inside the table, and one more where scores are added up."""
    tables = [
        (live, part)
        for live in program.live
        for part in live.nodes
        if isinstance(part, ast.Assign)
        and _piece_plus_one(part.value)
        and "byte" in ast.unparse(part.targets[0])
    ]
    adds = [
        (live, part)
        for live in program.live
        for part in live.nodes
        if isinstance(part, ast.AugAssign)
        and isinstance(part.op, ast.Add)
        and any(SPACE.search(name) for name in names(part.value))
    ]
    if tables and adds:
        places = quote(program, *tables[0]) + quote(program, *adds[0])
        yield Finding(
            "space-counted-twice",
            None,
            "fail",
            f"the byte table of {tables[0][0].name}() counts the leading space, and {adds[0][0].name}() adds "
            "it again",
            places,
            "one of the two left out, and the score computed anew",
        )


def fallback_bytes(program: Program) -> Iterator[Finding]:
    """A table built from piece names that never asks whether a piece is a byte."""
    for live in program.live:
        built = [
            part
            for part in live.nodes
            if isinstance(part, ast.Assign)
            and isinstance(part.targets[0], ast.Subscript)
            and "encode" in names(part.value)
            and "byte" in ast.unparse(part.targets[0])
        ]
        known = names(live.node) if built else set()
        if "id_to_piece" in known and not known & {"is_byte", "IsByte"}:
            yield Finding(
                "byte-fallback",
                None,
                "question",
                f"{live.name}() counts every piece by its name and never asks whether it is a byte token",
                quote(program, live, live.node, built[0]),
                "a tokenizer without byte-fallback pieces, or a count of 1 for each of them",
            )


def fixed_ratio(program: Program) -> Iterator[Finding]:
    """A constant number of bytes per token that something is divided or multiplied by."""
    for live in program.live:
        for part in live.nodes:
            if (
                isinstance(part, ast.Assign)
                and isinstance(part.targets[0], ast.Name)
                and RATIO.search(part.targets[0].id)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, float)
            ):
                name = part.targets[0].id
                used = [
                    (other, use)
                    for other in program.live
                    for use in other.nodes
                    if isinstance(use, ast.BinOp)
                    and isinstance(use.op, ast.Mult | ast.Div)
                    and name in names(use)
                ]
                if used:
                    yield Finding(
                        "fixed-bytes-per-token",
                        None,
                        "question",
                        f"`{name}` is the constant {part.value.value:g}, and the score may be computed with "
                        "it",
                        quote(program, live, part) + quote(program, *used[0]),
                        "bytes counted token by token for the headline score",
                    )


def _piece_plus_one(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=1)):
            return "encode" in names(left) and "piece" in ast.unparse(left) and "1:" in ast.unparse(left)
    return False
