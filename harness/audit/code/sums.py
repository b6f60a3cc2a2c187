"""Tell what one statement adds to a sum, in which turns of a loop, and what each turn sets back to nothing.

Conditions are evaluated with the loop's counter; a factor that is zero adds nothing. Sums that another
function holds are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from harness.audit.code.flow import Loop, reads
from harness.audit.code.settings import UNKNOWN
from harness.audit.code.shape import called, root
from harness.audit.code.tree import walk
from harness.audit.code.turns import Numbers

ZERO = {"zeros", "zeros_like", "tensor", "list", "dict"}
RESETS = {"zero_", "clear", "fill_"}


def is_stored(statement: ast.stmt, counter: str) -> TypeGuard[ast.Assign]:
    """Whether a statement puts a value at a place that each pass overwrites."""
    match statement:
        case ast.Assign(targets=[ast.Subscript(slice=place)]):
            return counter not in reads(place)
    return False


def statements(
    block: Sequence[ast.stmt], conditions: tuple[tuple[ast.expr, bool], ...]
) -> Iterator[tuple[ast.stmt, tuple[tuple[ast.expr, bool], ...]]]:
    """The simple statements of a block, each with the conditions under which it runs."""
    for statement in block:
        if isinstance(statement, ast.If):
            yield from statements(statement.body, (*conditions, (statement.test, True)))
            yield from statements(statement.orelse, (*conditions, (statement.test, False)))
            if statement.body and isinstance(statement.body[-1], ast.Continue) and not statement.orelse:
                conditions = (*conditions, (statement.test, False))
        elif isinstance(statement, ast.For | ast.While | ast.With | ast.AsyncWith | ast.Try):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(statement, part, []), conditions)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement, conditions


def added(statement: ast.AST) -> str:
    """The name that a statement adds something to; empty for other statements."""
    match statement:
        case ast.AugAssign(target=target, op=ast.Add()):
            return root(target)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(op=ast.Add()) as value):
            return name if name in reads(value) else ""
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="append" | "extend" | "add_", value=holder))):
            return root(holder)
    return ""


def _is_reached(conditions: Sequence[tuple[ast.expr, bool]], numbers: Numbers) -> bool:
    """Whether a pass comes to a statement with these conditions, or may."""
    values = [(numbers.of(test), wanted) for test, wanted in conditions]
    return all(value is UNKNOWN or bool(value) == wanted for value, wanted in values)


def may_add(statement: ast.stmt, conditions: Sequence[tuple[ast.expr, bool]], numbers: Numbers) -> bool:
    """Whether a statement may add anything in a pass: it is reached, and adds nothing known as zero."""
    if not _is_reached(conditions, numbers):
        return False
    value = getattr(statement, "value", None)
    if isinstance(statement, ast.Assign) and isinstance(value, ast.BinOp) and (target := added(statement)):
        value = value.right if ast.unparse(value.left) == target else value.left
    return not (isinstance(value, ast.expr) and _is_zero(value, numbers))


def _is_zero(value: ast.expr, numbers: Numbers) -> bool:
    """Whether an expression is zero because a factor is, or because the branch taken is."""
    match value:
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            return _is_zero(left, numbers) or _is_zero(right, numbers)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            found = numbers.of(test)
            return found is not UNKNOWN and _is_zero(body if found else orelse, numbers)
    found = numbers.of(value)
    return found is not UNKNOWN and found == 0


def set_back(loop: Loop, last: Numbers) -> dict[str, ast.AST]:
    """The names that each turn of a loop, or its last one, sets back to nothing."""
    found: dict[str, ast.AST] = {}
    for statement, conditions in statements(
        [part for part in loop.body if not isinstance(part, ast.For | ast.While)], ()
    ):
        if not _is_reached(conditions, last):
            continue
        match statement:
            case ast.Assign(targets=targets, value=value) if _is_nothing(value):
                found |= {
                    name.id: statement
                    for target in targets
                    for name in walk(target)
                    if isinstance(name, ast.Name)
                }
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr=method, value=holder))) if method in RESETS:
                found[root(holder)] = statement
    return found


def _is_nothing(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=int() | float() as number):
            return number == 0
        case ast.Tuple(elts=parts) if parts:
            return all(_is_nothing(part) for part in parts)
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call():
            return called(value) in ZERO and all(
                isinstance(part, ast.Constant | ast.Tuple) or called(value) != "tensor" for part in value.args
            )
    return False


def hands_on(loop: Loop, resets: dict[str, ast.AST]) -> bool:
    """Whether a turn hands what it summed on to a sum that is not set back: then every pass counts."""
    return any(
        (target := added(statement)) and target not in resets and reads(statement) & set(resets)
        for statement, _ in statements(loop.body, ())
    )
