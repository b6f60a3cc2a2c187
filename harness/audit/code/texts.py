"""Find the texts that statements read: variables that are sliced, measured or iterated over.

A text goes by the name that a function has for it, with its named parts (`data["val"]`, `self.held`), and is
followed into the functions that it is handed to. Numbers, settings, models and optimizers are no texts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence

from harness.audit.code.flow import (
    BUILTIN,
    LIBRARY,
    Binding,
    Position,
    bindings,
    learnt,
    made_of,
    reads,
    start,
)
from harness.audit.code.learning import parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import arguments, called, steps
from harness.audit.code.tree import walk

NO_TEXT = re.compile(
    r"(^|[._])(len|length|size|steps?|stride|batch(es)?|device|rank|dtype|args?|cfg|config|h|hp|hparams|params|lr"
    r"|seed|epochs?|rounds|passes|log\w*|vocab|dim|\w*_?(luts?|mask|table|bytes))$|(^|[.])(max|min|num|n)_\w+$"
)
"""Names of numbers and settings."""
OF_MODELS = {"parameters", "named_parameters", "state_dict", "zero_grad", "train", "eval", "step", "backward"}
"""Methods of models and optimizers, which are no texts."""
NO_VIEW = {"range", "len", "int", "min", "max", "print", "float"}
MAX_DEPTH = 3
"""Calls that a text is followed through."""


def touched(nodes: Iterable[ast.AST], *, loosely: bool) -> set[str]:
    """What is sliced, measured or iterated over: texts, mostly. `loosely`: and arguments of calls that are
    bound, as helpers make pieces of a text.
    """
    found: set[str] = set()
    nodes = list(nodes)
    for node in nodes:
        match node:
            case ast.Subscript(value=value, slice=place) if not isinstance(place, ast.Constant):
                found |= _path(value)
            case ast.For(iter=over) | ast.comprehension(iter=over):
                found |= _path(over) | _paths_of_call(over)
            case ast.Assign(value=value) if loosely:
                found |= _paths_of_call(value)
            case ast.Call(func=ast.Name(id="len"), args=[value]):
                found |= _path(value)
            case ast.Call(func=ast.Attribute(attr="numel" | "size", value=value)):
                found |= _path(value)
    made = [part.func for part in nodes if isinstance(part, ast.Call)]
    called_names = {function.id for function in made if isinstance(function, ast.Name)}
    acting = {
        ast.unparse(function.value)
        for function in made
        if isinstance(function, ast.Attribute) and function.attr in OF_MODELS
    }
    return {
        text
        for text in found
        if root_of(text) not in called_names | LIBRARY
        and text not in acting
        and not NO_TEXT.search(text)
        and not text.isupper()
    }


def learnt_from(
    node: ast.AST, nodes: Sequence[ast.AST], bound: Sequence[Binding], local: set[str]
) -> set[str]:
    """The texts among `nodes` that what is differentiated inside `node` is made of, without `local` ones.

    A part of an object (`args.val_files`) is one only where such a value reads it, not the object alone.
    """
    fed = made_of(learnt(node), bound)
    values: list[ast.AST] = [binding.value for binding in bound if binding.name in fed]
    values += [part for part in nodes if called(part) in ("backward", "grad")]
    parts = {ast.unparse(part) for value in values for part in walk(value) if _path(part)}
    return {
        text
        for text in touched(nodes, loosely=True)
        if root_of(text) in fed - local and (text == root_of(text) or text in parts)
    }


def _path(node: ast.AST) -> set[str]:
    """A variable, or a named part of one (`data["val"]`, `self.held`), as text; empty for anything else."""
    inner = node
    while isinstance(inner, ast.Attribute) or (
        isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Constant)
    ):
        inner = inner.value
    return {ast.unparse(node)} if isinstance(inner, ast.Name) else set()


def _paths_of_call(node: ast.expr) -> set[str]:
    """The arguments and the object of a call that makes windows; none where a string names the split."""
    if not isinstance(node, ast.Call):
        return set()
    if any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in node.args):
        return set()
    inner = [path for part in node.args for path in _path(part) | _paths_of_call(part)]
    if isinstance(node.func, ast.Attribute):
        return {*inner, *_path(node.func.value)} - LIBRARY
    return set(inner) if called(node) not in NO_VIEW else set()


def texts_of_call(
    program: Program,
    call: ast.Call,
    function: Live,
    functions: Mapping[str, Live],
    *,
    learn: bool,
    depth: int = 0,
) -> tuple[set[str], set[str]]:
    """The texts that a called function learns from, or reads, and the other names of the call, as the caller
    names them.
    """
    texts = _texts_of(program, function, functions, learn=learn, depth=depth)
    given = arguments(call, function)
    own_names = parameters(function.node) | {binding.name for binding in bindings(function.nodes)}
    found: set[str] = set()
    for text in texts:
        if text in given:
            found |= _path(given[text])
        elif root_of(text) not in own_names or root_of(text) == "self":
            found.add(text)
    others = {name for part in (*call.args, *(word.value for word in call.keywords)) for name in reads(part)}
    others |= {part.id for part in function.nodes if isinstance(part, ast.Name)} - own_names
    if isinstance(call.func, ast.Attribute):
        others |= reads(call.func)
    return found, things(others - ({root_of(text) for text in found} - {"self"})) - functions.keys()


def _texts_of(
    program: Program, function: Live, functions: Mapping[str, Live], *, learn: bool, depth: int
) -> set[str]:
    """The parameters and outer variables of a function that it learns from, or reads, as texts."""
    bound = bindings(function.nodes)
    found = touched(function.nodes, loosely=learn)
    if learn and steps(function.node):
        found = learnt_from(function.node, function.nodes, bound, set())
    if depth < MAX_DEPTH:
        for part in function.nodes:
            name = called(part)
            inner = functions.get(name)
            if isinstance(part, ast.Call) and inner is not None and inner is not function:
                if learn and not steps(inner.node):
                    continue
                found |= texts_of_call(program, part, inner, functions, learn=learn, depth=depth + 1)[0]
    return found


def views(texts: set[str], bound: Sequence[Binding], before: Position) -> set[str]:
    """What these texts are views of: variables bound once, to one other variable and no part of it."""
    found: set[str] = set()
    for text in texts:
        values = [binding for binding in bound if binding.name == text]
        if len(values) != 1 or not isinstance(values[0].node, ast.Assign) or start(values[0].node) > before:
            continue
        value = values[0].value
        if isinstance(values[0].node.targets[0], ast.Name) and not any(
            isinstance(part, ast.Slice) for part in walk(value)
        ):
            found |= _path(value) | _paths_of_call(value)
    return found


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    """The names, attributes and texts that nodes read."""
    return {
        found
        for node in nodes
        for part in walk(node)
        for found in [getattr(part, "id", "") or getattr(part, "attr", "") or getattr(part, "value", "")]
        if isinstance(found, str) and found
    }


def root_of(text: str) -> str:
    return re.split(r"[.\[]", text, maxsplit=1)[0]


def things(names: set[str]) -> set[str]:
    """The names that may be models and their states: no constants, modules or functions of the language."""
    return {name for name in names if not name.isupper()} - LIBRARY - BUILTIN
