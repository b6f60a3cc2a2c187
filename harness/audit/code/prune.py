"""Cut the branches of a program that its settings switch off.

Code behind a setting that is off is no violation: #1458 was wrongly accused of such code, and merged records
contain SLOT code that is switched off.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.audit.code.settings import UNKNOWN, Settings, fold
from harness.audit.code.tree import Function, walk

LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
LINE = re.compile(r"\r\n|\r|\n")
IF = re.compile(r"\bif\b")
Switches = Mapping[str, Mapping[str, bool]]
"""By function, the parameters that every call gives the same value, True or False."""


def prune(text: str, settings: Settings, switches: Switches) -> ast.Module:
    """The tree of a source without its dead branches. Raises RecursionError where it is nested too deeply."""
    tree = ast.parse(text)
    _Pruner(settings, switches, text).visit(tree)
    return tree


class _Pruner(ast.NodeTransformer):
    """Removes what the settings switch off, in place."""

    def __init__(self, settings: Settings, switches: Switches, text: str) -> None:
        self.settings = settings
        self.switches = switches
        self.if_lines = [number for number, line in enumerate(LINE.split(text), 1) if IF.search(line)]
        self.in_f_string = False

    def visit(self, node: ast.AST) -> Any:
        """Skip expressions whose lines hold no `if`: there is nothing to cut.

        Inside f-strings, line numbers are unreliable, so everything is visited.
        """
        if not isinstance(node, ast.expr) or self.in_f_string:
            return super().visit(node)
        at = bisect_left(self.if_lines, node.lineno)
        if at == len(self.if_lines) or self.if_lines[at] > (node.end_lineno or node.lineno):
            return node
        self.in_f_string = isinstance(node, ast.JoinedStr)
        visited = super().visit(node)
        self.in_f_string = False
        return visited

    def local(self, function: Function) -> Settings:
        """The settings inside a function: names that it binds itself are unknown, unless bound once to
        something that folds.
        """
        bound: dict[str, list[ast.AST | None]] = {}
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            bound.setdefault(argument.arg, []).append(None)
        stores: Counter[str] = Counter()
        for node in walk(function):
            if (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                bound.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.setdefault(node.id, [])
                stores[node.id] += 1
        local = {
            name: fold(values[0], self.settings)
            if len(values) == 1 and values[0] and stores[name] == 1
            else UNKNOWN
            for name, values in bound.items()
        }
        local |= {
            name: value for name, value in self.switches.get(function.name, {}).items() if stores[name] == 0
        }
        return Settings(self.settings.environment, {**self.settings.attributes, **local})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self.settings = self.settings, self.local(node)
        self.generic_visit(node)
        self.settings = outer
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        value = fold(node.test, self.settings)
        if isinstance(node.test, ast.Compare) and ast.unparse(node.test.left) == "__name__":
            value = True
        if value is UNKNOWN:
            return self.generic_visit(node)
        kept: list[ast.stmt] = []
        for statement in node.body if value else node.orelse:
            visited = self.visit(statement)
            kept += visited if isinstance(visited, list) else [visited]
        return kept or ast.copy_location(ast.Pass(), node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        value = fold(node.test, self.settings)
        return (
            self.generic_visit(node) if value is UNKNOWN else self.visit(node.body if value else node.orelse)
        )

    def visit_For(self, node: ast.For) -> ast.AST:
        match node.iter:
            case ast.Call(func=ast.Name(id="range"), args=[count]) if _empty(fold(count, self.settings)):
                return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                ends = next(
                    (at for at, statement in enumerate(body) if isinstance(statement, LEAVES)), len(body)
                )
                setattr(node, field, body[: ends + 1])
        return node


def _empty(count: object) -> bool:
    return isinstance(count, int | float) and count <= 0
