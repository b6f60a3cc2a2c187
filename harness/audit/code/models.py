"""Tell which model a step changes, and whether a score is that model's.

A model goes by the names that a function has for it. It stays the same through wrappers (`DDP(model)`,
`torch.compile(model)`) and calls that hand it on; a copy is another one. After a step, whatever is made of
the model may hold what it learnt. Weights that pass through files or other processes are not followed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.audit.code.flow import (
    BUILTIN,
    LIBRARY,
    Binding,
    Position,
    bindings,
    end,
    made_into,
    models,
    start,
)
from harness.audit.code.learning import parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import arguments, called, root
from harness.audit.code.texts import MAX_DEPTH

COPIES = ("deepcopy", "copy", "clone")
NEW = re.compile(r"^(copy\.)?(deepcopy|copy)\(|^[A-Z]\w*\(")
"""How an expression begins that makes a model which no name has."""
WRAPPERS = {"DDP", "DistributedDataParallel", "DataParallel", "FSDP", "FullyShardedDataParallel", "compile"}
NO_MODEL = re.compile(
    r"(^|_)(device|rank|args?|cfg|config|dtype|hp|hparams|lr|seed|steps?|epochs?|size|len|dim|stride|tokens?)$"
    r"|^h$|^(num|n)_"
)
"""Names of devices, numbers, settings and texts."""


def may_be_model(name: str) -> bool:
    """Whether a name may be that of a model: no class, constant, module, and none of NO_MODEL."""
    return bool(name) and not (name[0].isupper() or NO_MODEL.search(name) or name in LIBRARY | BUILTIN)


def models_of_call(
    program: Program, call: ast.Call, function: Live, functions: Mapping[str, Live], depth: int = 0
) -> set[str]:
    """The models that a called function learns with, as the caller names them, or as code without a name."""
    inside = bindings(function.nodes)
    found = models(program, function.node, inside)
    if depth < MAX_DEPTH:
        for part in function.nodes:
            inner = functions.get(called(part))
            if isinstance(part, ast.Call) and inner is not None and inner is not function:
                found |= models_of_call(program, part, inner, functions, depth + 1)
    found = aliases(found, inside)
    given = arguments(call, function)
    mine = parameters(function.node) | {binding.name for binding in inside}
    outer: set[str] = set()
    for name in found:
        if name in given:
            same = {each for each in _same_as(given[name], True) if may_be_model(each)}
            outer |= same or {ast.unparse(given[name])}
        else:
            outer |= {root(call.func)} if name == "self" else {name} - mine
    return {name for name in outer if may_be_model(name) or not name.isidentifier()}


def aliases(names: Iterable[str], bound: Sequence[Binding], after: Position | None = None) -> set[str]:
    """`names` and all names of the same models; bindings from `after` on are followed through any call."""
    values: dict[str, set[str]] = {}
    for binding in bound:
        loosely = after is not None and start(binding.node) >= after
        values.setdefault(binding.name, set()).update(_same_as(binding.value, loosely))
    found = {name for name in names if may_be_model(name)}
    queue = list(found)
    while queue:
        new = {name for name in values.get(queue.pop(), set()) if may_be_model(name)} - found
        found |= new
        queue += new
    return found


def _same_as(value: ast.AST, loosely: bool) -> set[str]:
    """The names whose model a value is; `loosely`: or that it may be made of."""
    match value:
        case ast.Name(id=name):
            return {name}
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _same_as(inner, loosely)
        case ast.IfExp(body=body, orelse=orelse):
            return _same_as(body, loosely) | _same_as(orelse, loosely)
        case ast.Call(func=function, args=arguments, keywords=words) if called(value) not in COPIES:
            found = _same_as(function, loosely) if isinstance(function, ast.Attribute) else set()
            if loosely or called(value) in WRAPPERS:
                parts = [*arguments, *(word.value for word in words)]
                found |= {name for part in parts for name in _same_as(part, loosely)}
            return found
        case ast.Tuple(elts=parts) | ast.List(elts=parts) if loosely:
            return {name for part in parts for name in _same_as(part, loosely)}
    return set()


def loads(nodes: Iterable[ast.AST]) -> Iterator[Binding]:
    """Weights that are put into a model, as bindings of the model."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="load_state_dict", value=model), args=[value, *_]):
                yield Binding(root(model), value, node)


def taught(learnt_with: set[str], live: Live, bound: Sequence[Binding], region: ast.AST) -> set[str]:
    """The names that may hold what models learnt inside `region`: theirs, and what is made of them later."""
    later = [each for each in (*bound, *loads(live.nodes)) if start(each.node) >= end(region)]
    return made_into(aliases(learnt_with, bound), later)
