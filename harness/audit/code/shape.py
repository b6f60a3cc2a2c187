"""Small helpers on syntax trees that more than one rule uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.tree import children, walk
from harness.audit.finding import MAX_TEXT, Evidence


def quote(program: Program, live: Live, *nodes: ast.AST) -> tuple[Evidence, ...]:
    """The first line of each node, once, in order."""
    lines = program.sources[live.file]
    numbers = sorted({number for node in nodes if (number := getattr(node, "lineno", 0))})
    return tuple(
        Evidence(live.file, number, lines[number - 1].strip()[:MAX_TEXT])
        for number in numbers
        if number <= len(lines)
    )


def own(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes inside `node`, in source order, without the bodies of functions and classes defined there."""
    stack = children(node)[::-1]
    while stack:
        child = stack.pop()
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield child
            stack += children(child)[::-1]


def root(node: ast.AST) -> str:
    """The name at the root of `y[i, s:e].reshape(-1)`: `y`; empty where there is none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def called(node: ast.AST) -> str:
    """The last part of the name that a call calls: `step` of `opt.step()`; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def names(node: ast.AST) -> set[str]:
    """Every name and attribute that `node` reads or writes."""
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in walk(node)
        if isinstance(part, ast.Name | ast.Attribute)
    }


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    """Calls inside `node` whose last name is `name`, without those in nested functions."""
    return [part for part in own(node) if isinstance(part, ast.Call) and called(part) == name]


def steps(node: ast.AST) -> list[ast.Call]:
    """Optimizer steps inside `node`, if it has a backward pass too; else empty."""
    found = [
        call
        for call in calls(node, "step")
        if "sched" not in ast.unparse(call.func).lower() and "prof" not in ast.unparse(call.func).lower()
    ]
    return found if calls(node, "backward") else []


def order_of(function: Live) -> list[str]:
    """The names of a function's positional parameters in their order, without `self`."""
    if isinstance(function.node, ast.Module):
        return []
    parameters = function.node.args
    order = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args)]
    return order[1:] if "." in function.name or order[:1] == ["self"] else order


def arguments(call: ast.Call, function: Live) -> dict[str, ast.expr]:
    """What a call of a function gives its parameters, by their names; those left to defaults are left out."""
    given = dict(zip(order_of(function), call.args, strict=False))
    return given | {word.arg: word.value for word in call.keywords if word.arg}
