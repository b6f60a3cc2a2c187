"""Follow values through names inside one function: what a name is made of, and what it is made into.

Names are followed and not values: a name that is bound anywhere among the given nodes is made of all that any
of these bindings reads. Attributes count as the name of their object; what passes between functions is
followed by the rules that need it.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import called, own, root, steps
from harness.audit.code.tree import walk

BPB = re.compile(r"(?<!\w)(?!train)\w*(bpb|bits_per_byte)", re.I)
"""Names and printed labels of a score in bits per byte; that of training text is none."""
ESTIMATE = re.compile(r"(?<![a-z])(est|approx|rough|guess)|~", re.I)
UNIT = re.compile(r"\s*(bpb|bits per byte)\b", re.I)
COST = re.compile(r"cross_entropy|nll|log_softmax|log_prob|logsumexp|loss", re.I)
"""Functions that give the cost of tokens."""
GENERIC = {"train", "eval", "step", "backward", "forward", "update", "zero_grad", "__init__", "__call__"}
"""Methods of the library's classes, which a method of the same name in the folder says nothing about."""
LIBRARY = {
    "torch",
    "F",
    "nn",
    "np",
    "numpy",
    "math",
    "os",
    "dist",
    "time",
    "sys",
    "random",
    "glob",
    "copy",
    "json",
}
BUILTIN = set(dir(builtins))
GROWS = {"append", "extend", "add", "add_", "copy_"}
Position = tuple[int, int]
Loop = ast.For | ast.While


class Binding(NamedTuple):
    """One place where a name gets a value, or more of it."""

    name: str
    value: ast.expr
    node: ast.AST
    """The statement, loop, comprehension or call."""


def start(node: ast.AST) -> Position:
    """Line and column where a node begins."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def end(node: ast.AST) -> Position:
    """Line and column where a node ends."""
    return getattr(node, "end_lineno", None) or 0, getattr(node, "end_col_offset", None) or 0


def holds(outer: ast.AST, inner: ast.AST) -> bool:
    """Whether `inner` stands inside `outer`, both of one file."""
    return start(outer) <= start(inner) and end(inner) <= end(outer)


def sees(inner: Live, outer: Live) -> bool:
    """Whether a function sees the variables of another one around it, or those of a module."""
    if isinstance(inner.node, ast.Module):
        return False
    if isinstance(outer.node, ast.Module):
        return True
    return outer is not inner and outer.file == inner.file and holds(outer.node, inner.node)


def of_the_module(program: Program, live: Live, bound: Sequence[Binding]) -> list[Binding]:
    """The bindings of a function's module for names that it does not bind itself."""
    mine = {binding.name for binding in bound}
    return [
        binding
        for other in program.live
        if isinstance(other.node, ast.Module) and other.file == live.file and other is not live
        for binding in bindings(other.nodes)
        if binding.name not in mine
    ]


def reads(node: ast.AST) -> set[str]:
    """The names that an expression reads."""
    return {part.id for part in walk(node) if isinstance(part, ast.Name)}


def bindings(nodes: Iterable[ast.AST]) -> list[Binding]:
    """All bindings among `nodes`, in their order: assignments, loops, `with`, and what a container gains."""
    return [binding for node in nodes for binding in _bound_by(node)]


def _bound_by(node: ast.AST) -> Iterator[Binding]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _pairs(target, value, node)
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.NamedExpr(target=target, value=value)
        ):
            yield from _pairs(target, value, node)
        case ast.AugAssign(target=target, value=value):
            yield Binding(root(target), value, node)
        case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
            yield from _pairs(target, value, node)
        case ast.withitem(optional_vars=ast.expr() as target, context_expr=value):
            yield from _pairs(target, value, node)
        case ast.Call(func=ast.Attribute(attr=method, value=holder), args=[value, *_]) if method in GROWS:
            yield Binding(root(holder), value, node)


def _pairs(target: ast.expr, value: ast.expr, node: ast.AST) -> Iterator[Binding]:
    """The names of a target with their values; a tuple takes those of a tuple of the same length."""
    if not isinstance(target, ast.Tuple | ast.List):
        yield Binding(root(target), value, node)
        return
    parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    same = len(parts) == len(target.elts)
    for at, part in enumerate(target.elts):
        yield from _pairs(part, parts[at] if same else value, node)


def returned(nodes: Iterable[ast.AST]) -> list[ast.expr]:
    """What the `return` statements among `nodes` give back."""
    return [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]


def names_returned(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that the `return` statements among `nodes` read."""
    return {name for value in returned(nodes) for name in reads(value)}


def made_of(names: Iterable[str], bound: Iterable[Binding]) -> set[str]:
    """`names` and all names that their values are made of."""
    values: dict[str, set[str]] = {}
    for binding in bound:
        values.setdefault(binding.name, set()).update(reads(binding.value))
    found = set(names)
    queue = list(found)
    while queue:
        new = values.get(queue.pop(), set()) - found
        found |= new
        queue += new
    return found


def made_into(names: Iterable[str], bound: Iterable[Binding]) -> set[str]:
    """`names` and all names whose values are made of them."""
    pairs = [(binding.name, reads(binding.value)) for binding in bound]
    found = set(names)
    while True:
        new = {name for name, read in pairs if name and read & found} - found
        if not new:
            return found
        found |= new


def learners(program: Program) -> dict[str, Live]:
    """The functions that step an optimizer after a backward pass, or call one that does."""
    called_by = [
        (live, {called(part) for part in live.nodes if isinstance(part, ast.Call) and _may_be_own(part)})
        for live in program.live
    ]
    found = {live.last_name: live for live in program.live if steps(live.node)}
    while True:
        new = {
            live.last_name: live
            for live, names in called_by
            if live.name != "<module>" and names & found.keys()
        }
        if new.keys() <= found.keys():
            return found
        found = {**new, **found}


def calls_one_of(node: ast.AST, functions: Iterable[str]) -> bool:
    """Whether a node is a call of one of these functions, and not of a method that libraries have too."""
    return isinstance(node, ast.Call) and called(node) in functions and _may_be_own(node)


def learning_calls(node: ast.AST, learning: Iterable[str]) -> list[ast.Call]:
    """The optimizer steps inside `node` and its calls of the functions `learning`."""
    called_here = [part for part in own(node) if isinstance(part, ast.Call) and calls_one_of(part, learning)]
    return [*steps(node), *called_here]


def _may_be_own(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) or called(call) not in GENERIC


def learnt(node: ast.AST) -> set[str]:
    """The names in the expressions that are differentiated inside `node`."""
    found: set[str] = set()
    for part in own(node):
        if called(part) == "backward" and isinstance(part, ast.Call):
            found |= reads(part.func)
        elif called(part) in ("grad", "value_and_grad") and isinstance(part, ast.Call) and part.args:
            found |= reads(part.args[0])
    return found


def models(program: Program, node: ast.AST, bound: Sequence[Binding]) -> set[str]:
    """The names that are called to make what is differentiated inside `node`, without the folder's functions:
    the models.
    """
    functions = {live.name for live in program.live}
    wanted = made_of(learnt(node), bound)
    values = [binding.value for binding in bound if binding.name in wanted]
    values += [part.func for part in own(node) if isinstance(part, ast.Call) and called(part) == "backward"]
    return {
        name
        for value in values
        for part in walk(value)
        if isinstance(part, ast.Call)
        and (isinstance(part.func, ast.Name) or called(part).startswith("forward"))
        and (name := root(part.func)) not in LIBRARY | BUILTIN | functions
    }


def is_cost(node: ast.AST, of: Iterable[str] = ()) -> bool:
    """Whether an expression calls a model of `of` or a function that gives the cost of tokens."""
    return any(
        isinstance(part, ast.Call)
        and (COST.search(called(part)) or (isinstance(part.func, ast.Name) and part.func.id in of))
        for part in walk(node)
    )


def is_score_name(text: str) -> bool:
    """Whether a name or a label is that of a score in bits per byte, and not of an estimate."""
    return bool(BPB.search(text)) and not ESTIMATE.search(text)


def stated_scores(nodes: Iterable[ast.AST]) -> Iterator[ast.expr]:
    """What is called a score in bits per byte: by a variable, a key, a keyword, or its printed label."""
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    for part, given in _targets(target, value):
                        if is_score_name(part):
                            yield given
            case ast.AnnAssign(target=target, value=ast.expr() as value) if is_score_name(_text(target)):
                yield value
            case ast.keyword(arg=str(name), value=value) if is_score_name(name):
                yield value
            case ast.Dict(keys=keys, values=values):
                yield from (
                    value
                    for key, value in zip(keys, values, strict=True)
                    if key is not None and is_score_name(_text(key))
                )
            case ast.JoinedStr(values=parts):
                yield from _labelled(parts)
            case ast.Call(args=arguments) if len(arguments) > 1:
                yield from _labelled(arguments)
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod(), right=right) if is_score_name(
                text
            ):
                yield right
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")) if (
                is_score_name(text)
            ):
                yield node


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The texts of a target's parts with their values."""
    if isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
        for at, part in enumerate(target.elts):
            yield from _targets(part, parts[at] if parts else value)
    else:
        yield _text(target), value


def _text(node: ast.expr) -> str:
    """The name of a variable, the key of an entry, or a text."""
    match node:
        case ast.Name(id=text) | ast.Attribute(attr=text) | ast.Constant(value=str(text)):
            return text
        case ast.Subscript(slice=ast.Constant(value=str(text))):
            return text
    return ""


def _labelled(parts: Sequence[ast.expr]) -> Iterator[ast.expr]:
    """The values among `parts` right after a label, or right before a unit, that speaks of bits per byte."""
    for at, part in enumerate(parts):
        if isinstance(part, ast.Constant):
            continue
        before, after = (_text(parts[other]) if 0 <= other < len(parts) else "" for other in (at - 1, at + 1))
        label = re.split(r"[\s,;|(]+", before.rstrip(" :="))[-1]
        if is_score_name(label) or (not ESTIMATE.search(before) and UNIT.match(after)):
            yield part


def made_scores(nodes: Iterable[ast.AST], bound: Iterable[Binding]) -> set[str]:
    """The names that what is called a score in bits per byte is made of."""
    return made_of({name for value in stated_scores(nodes) for name in reads(value)}, bound) | {
        binding.name for binding in bound if is_score_name(binding.name)
    }


def values_of_scores(live: Live) -> list[ast.expr]:
    """The values that a function's stated scores are made of."""
    stated = list(stated_scores(live.nodes))
    if not stated:
        return []
    bound = bindings(live.nodes)
    scored = made_of({name for value in stated for name in reads(value)}, bound)
    return stated + [binding.value for binding in bound if binding.name in scored]
