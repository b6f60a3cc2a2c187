"""Find errors in byte tables: a leading space counted twice, byte tokens counted by name.

#1719, #1734: `len(piece[1:].encode()) + 1` in the table and one more at evaluation make text 17 % longer than
it is. #1143: a byte token `<0xE2>` is one byte, not the length of its name. #1019 has the correct count.
Tables that a program reads from files show only in the numbers of its logs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.program import Program
from harness.audit.code.shape import names, quote
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

SPACE = re.compile(r"has_(leading_)?space|leading_space", re.I)


SPACE_COUNTED_TWICE = RuleInfo(
    id="space-counted-twice",
    title="The leading space counts two bytes",
    condition=None,
    source="#1719, #1734, #1019",
    checks="a byte table with len(piece[1:].encode()) + 1 and one more byte for has_leading_space where "
    "scores are added",
    example="#1545: 4.386 bytes a token instead of 3.7266",
    not_covered="tables that the program reads from files; the rules on numbers judge those",
)


def space_twice(program: Program) -> Iterator[Finding]:
    """Find one byte for the space in the table and one more where scores are added up."""
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
        evidence = quote(program, *tables[0]) + quote(program, *adds[0])
        yield Finding.of(
            SPACE_COUNTED_TWICE,
            "fail",
            f"the byte table of {tables[0][0].name}() counts the leading space, and {adds[0][0].name}() adds "
            "it again",
            evidence,
            "one of the two left out, and the score computed anew",
        )


BYTE_FALLBACK = RuleInfo(
    id="byte-fallback",
    title="Byte tokens may be counted by their name",
    condition=None,
    source="#1143, #1184, #1019",
    checks="a table built from the names of pieces that never asks is_byte",
    example="#1184: 27 byte tokens counted 3 bytes each, 157,319,833 bytes instead of 151,073,604 (0.9485, "
    "corrected to 1.1289)",
    not_covered="whether the tokenizer has byte-fallback pieces; it is harmless without them, so it is "
    "always a question",
)


def byte_tokens_by_name(program: Program) -> Iterator[Finding]:
    """Find a table built from piece names that never checks whether a piece is a byte."""
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
            yield Finding.of(
                BYTE_FALLBACK,
                "question",
                f"{live.name}() counts every piece by its name and never asks whether it is a byte token",
                quote(program, live, live.node, built[0]),
                "a tokenizer without byte-fallback pieces, or a count of 1 for each of them",
            )


def _piece_plus_one(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=1)):
            return "encode" in names(left) and "piece" in ast.unparse(left) and "1:" in ast.unparse(left)
    return False


RULES = (SPACE_COUNTED_TWICE, BYTE_FALLBACK)
CHECKS = (space_twice, byte_tokens_by_name)
