"""Read how often a loop passes over the same text, and evaluate conditions on its counter.

A loop is such a pass where its counter takes no part in choosing the text that is learnt from. The number of
passes is read from settings, defaults and arguments, else assumed. Counters that other functions change are
not followed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.audit.code.flow import Binding, Loop, bindings, learnt, made_of, reads, start
from harness.audit.code.learning import argument
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import CAST, COMPARE_ORDER, UNKNOWN, Settings, fold
from harness.audit.code.shape import called, own
from harness.audit.code.tree import walk

ASSUMED_PASSES = 4
"""Passes that conditions are evaluated with where the real number cannot be read."""
MAX_PASSES = 10_000
NEXT = {"next", "next_batch", "get_batch", "randint", "rand", "choice", "sample", "randperm", "pop"}
"""Calls that choose other text in each turn of a loop."""
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
MAX_DEPTH = 12
"""Names that one condition is followed through."""


class Numbers(NamedTuple):
    """Evaluates expressions on loop counters: by given values, by the function's own names, by settings."""

    settings: Settings
    bound: Mapping[str, Sequence[Binding]]
    """By name."""
    given: Mapping[str, Any]
    """Values by the text of their expressions."""

    def with_value(self, name: str, value: Any) -> Numbers:
        """The same with one more known value."""
        return self._replace(given={**self.given, name: value})

    def of(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of an expression, or UNKNOWN."""
        try:
            return self._of(node, depth)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError, KeyError):
            return UNKNOWN

    def _of(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return UNKNOWN
        if (text := ast.unparse(node)) in self.given:
            return self.given[text]
        match node:
            case ast.Name(id=name) if len(self.bound.get(name, ())) == 1:
                (binding,) = self.bound[name]
                alone = isinstance(binding.node, ast.Assign | ast.AnnAssign | ast.NamedExpr)
                return self.of(binding.value, depth + 1) if alone else UNKNOWN
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                values = self.of(left, depth + 1), self.of(right, depth + 1)
                return UNKNOWN if UNKNOWN in values else ARITHMETIC[type(op)](*values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                value = self.of(operand, depth + 1)
                return UNKNOWN if value is UNKNOWN else not value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.of(operand, depth + 1)
                return UNKNOWN if value is UNKNOWN else -value
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE_ORDER:
                values = self.of(left, depth + 1), self.of(right, depth + 1)
                return UNKNOWN if UNKNOWN in values else COMPARE_ORDER[type(op)](*values)
            case ast.BoolOp(op=op, values=operands):
                stop = isinstance(op, ast.Or)
                found = [self.of(operand, depth + 1) for operand in operands]
                if any(value is not UNKNOWN and bool(value) == stop for value in found):
                    return stop
                return UNKNOWN if UNKNOWN in found else not stop
            case ast.Call(func=ast.Name(id="int" | "bool" | "float" as kind), args=[inner]):
                value = self.of(inner, depth + 1)
                return UNKNOWN if value is UNKNOWN else CAST[kind](value)
        return fold(node, self.settings)


class Passes(NamedTuple):
    """A loop that repeats the same text."""

    counter: str
    """Empty where the loop has none."""
    first: Any
    last: Any
    turns: int
    known: bool
    """Whether `turns` was read, not assumed."""
    numbers: Numbers


def passes_of(program: Program, live: Live, loop: Loop, bound: Sequence[Binding]) -> Passes | None:
    """The turns of a loop over a counter that takes no part in choosing the text; None for other loops."""
    inside = bindings(own(loop))
    by_name: dict[str, list[Binding]] = {}
    for binding in bound:
        by_name.setdefault(binding.name, []).append(binding)
    numbers = Numbers(program.settings, by_name, {})
    if isinstance(loop, ast.While):
        turns = _while_turns(program, live, loop, numbers, bound)
    else:
        turns = _for_turns(program, live, loop, numbers)
    if turns is None:
        return None
    fed = made_of(learnt(loop), inside)
    if turns.counter in fed:
        return None
    moving = NEXT | {
        other.last_name
        for other in program.live
        if any(isinstance(part, ast.Global | ast.Nonlocal) for part in other.nodes)
    }
    chooses = [
        part
        for binding in inside
        if binding.name in fed
        for part in walk(binding.value)
        if called(part) in moving
    ]
    return None if chooses else turns


def _for_turns(program: Program, live: Live, loop: ast.For, numbers: Numbers) -> Passes | None:
    target, over = loop.target, loop.iter
    backwards = False
    while (
        isinstance(over, ast.Call) and called(over) in ("tqdm", "reversed", "enumerate", "list") and over.args
    ):
        backwards ^= called(over) == "reversed"
        if called(over) == "enumerate":
            if not (isinstance(target, ast.Tuple) and target.elts):
                return None
            target = target.elts[0]
        over = over.args[0]
    if not (isinstance(over, ast.Call) and called(over) in ("range", "trange") and over.args):
        return None
    if not isinstance(target, ast.Name):
        return None
    limit = over.args[1] if len(over.args) > 1 else over.args[0]
    total, known = _number(program, live, limit, numbers)
    numbers = numbers.with_value(ast.unparse(limit), total)
    parts = [total if part is limit else numbers.of(part) for part in over.args[:3]]
    if not all(isinstance(part, int | float) and part == int(part) for part in parts):
        return None
    turns = range(*(int(part) for part in parts))
    if not 0 < len(turns) <= MAX_PASSES:
        return None
    first, last = (turns[-1], turns[0]) if backwards else (turns[0], turns[-1])
    return Passes(target.id, first, last, len(turns), known, numbers)


def _while_turns(
    program: Program, live: Live, loop: ast.While, numbers: Numbers, bound: Sequence[Binding]
) -> Passes | None:
    """The turns of `while turn < passes` with one `turn += 1`, and of `while left > 0` with `left -= 1`."""
    counters = [
        part
        for part in own(loop)
        if isinstance(part, ast.AugAssign)
        and isinstance(part.op, ast.Add | ast.Sub)
        and isinstance(part.target, ast.Name)
        and part.target.id in reads(loop.test)
        and isinstance(part.value, ast.Constant)
        and part.value.value == 1
    ]
    if len(counters) != 1 or not isinstance(loop.test, ast.Compare | ast.Name):
        return None
    (count,) = counters
    assert isinstance(count.target, ast.Name)
    name = count.target.id
    before = [
        binding.value
        for binding in bound
        if binding.name == name and binding.node is not count and start(binding.node) < start(loop)
    ]
    if not before:
        return None
    limits = [
        part
        for part in walk(loop.test)
        if isinstance(part, ast.expr) and not isinstance(part, ast.Compare) and name not in reads(part)
    ]
    known = True
    for limit in limits[:1]:
        total, known = _number(program, live, limit, numbers)
        numbers = numbers.with_value(ast.unparse(limit), total)
    at, sure = _number(program, live, before[-1], numbers)
    if not isinstance(at, int | float):
        return None
    known &= sure
    step = 1 if isinstance(count.op, ast.Add) else -1
    early = loop.body[0] is count
    turns: list[float] = []
    while len(turns) < MAX_PASSES and numbers.with_value(name, at).of(loop.test) not in (False, UNKNOWN, 0):
        turns.append(at + step if early else at)
        at += step
    if not 0 < len(turns) < MAX_PASSES:
        return None
    return Passes(name, turns[0], turns[-1], len(turns), known, numbers)


def _number(program: Program, live: Live, node: ast.expr, numbers: Numbers) -> tuple[Any, bool]:
    """The value of a count and whether it was read: otherwise it is assumed."""
    value = numbers.of(node)
    if value is UNKNOWN:
        value = argument(program, live, node)
    return (value, True) if isinstance(value, int | float) else (ASSUMED_PASSES, False)
