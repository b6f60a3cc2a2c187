"""Tell whether a score rests on what was learnt from the same text, or why it does not.

It does not where the score is summed while learning, another branch makes it, a copy or another model learns,
or the weights are put back. Values are not known: where the weights may have been put back, it is a question.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import NamedTuple

from harness.audit.code.flow import (
    LIBRARY,
    Binding,
    bindings,
    end,
    holds,
    is_cost,
    made_into,
    made_of,
    models,
    reads,
    start,
)
from harness.audit.code.models import COPIES, NEW, aliases, loads, taught
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import fold
from harness.audit.code.shape import called, own, root, steps
from harness.audit.code.texts import NO_TEXT, names_in, root_of
from harness.audit.code.tree import walk

VALIDATION = re.compile(r"(^|[_/\-.*'\"])(val(id|idation)?|held(_?out)?)([_/\-.*\d'\"]|$)", re.I)
"""Names, settings and patterns of files of validation text."""
TRAINING = re.compile(r"(^|[_/\-.*'\"])train(ing)?([_/\-.*\d'\"]|$)", re.I)
PUTS_BACK = re.compile(r"restore|reset|roll_?back|revert", re.I)
PRECISION = re.compile(r"fp32|float|bf16|dtype|precision", re.I)
"""Names of functions that give back a precision and no weights."""
SAVED = re.compile(r"state_dict|deepcopy|clone|copy")
WRITES = {"save", "dump", "save_file", "write", "write_bytes", "savez"}
PUT_BACK = "; the weights may have been put back in between"
SUMMED_TOO = "; the turns with these steps add to the score too, and which of both counts cannot be read"


class Learns(NamedTuple):
    """Statements that step an optimizer."""

    region: ast.AST
    """The largest loop with them that does not hold the score, or the call of a function."""
    step: ast.AST
    texts: set[str]
    """What is learnt from, as the function names it."""
    others: set[str]
    """All other names that are read: the model among them."""
    models: set[str]
    """The models that are stepped; empty where they cannot be told from the other names."""


class Scores(NamedTuple):
    """Statements that make the score."""

    node: ast.AST
    texts: set[str]
    others: set[str]


def in_common_loop(live: Live, first: ast.AST, second: ast.AST) -> bool:
    return any(
        isinstance(part, ast.For | ast.While) and holds(part, first) and holds(part, second)
        for part in live.nodes
    )


def is_either_or(live: Live, first: ast.AST, second: ast.AST) -> bool:
    """Whether a run that comes to `first` never comes to `second`: another branch, or a return before it."""
    return any(
        any(holds(statement, first) for statement in branch)
        and not any(holds(statement, second) for statement in branch)
        and (holds(part, second) or isinstance(branch[-1], ast.Return | ast.Raise))
        for part in live.nodes
        if isinstance(part, ast.If)
        for branch in (part.body, part.orelse)
    )


def is_cleared(
    program: Program, live: Live, learns: Learns, score: Scores, bound: Sequence[Binding], scored: set[str]
) -> bool:
    """Whether the score does not rest on what was learnt from the text, or is summed before it is learnt."""
    if is_either_or(live, learns.region, score.node):
        return True
    if in_common_loop(live, learns.region, score.node):
        turns = [
            part for part in live.nodes if isinstance(part, ast.For | ast.While) and holds(part, score.node)
        ]
        chosen = {
            binding.name for turn in turns if holds(turn, learns.region) for binding in bindings([turn])
        }
        if not {root_of(text) for text in learns.texts & score.texts} & chosen:
            return True  # each turn may read other parts of the same text
    if any(
        binding.name in learns.others
        and any(called(part) in COPIES for part in walk(binding.value))
        and reads(binding.value) & score.others - learns.others
        for binding in bound
    ):
        return True  # a copy learns, and its original is scored
    return (
        _is_summed_first(program, learns, score, bound, scored)
        or _is_other_model(live, learns, score, bound)
        or _steps_by_nothing(program, learns, bound)
        or any(_puts_back(program, part, learns, bound, live) for part in _between(live, learns, score))
    )


def doubt(
    program: Program, live: Live, learns: Learns, score: Scores, bound: Sequence[Binding], scored: set[str]
) -> str:
    """Why it cannot be told whether the score rests on what was learnt; empty where it does."""
    holding = taught(learns.models or learns.others, live, bound, learns.region)
    same = aliases(learns.models or learns.others, bound)
    between = _between(live, learns, score)
    saved = [part for part in between if called(part) in WRITES]
    loaded = [
        each
        for each in loads(between)
        if not reads(each.value) & holding and not any(end(part) <= start(each.node) for part in saved)
    ]
    rebound = [
        each
        for each in bound
        if each.name in same
        and end(learns.region) <= start(each.node) < start(score.node)
        and not reads(each.value) & holding
    ]
    reset = [
        part
        for part in between
        if PUTS_BACK.search(called(part))
        and root(part.func) not in LIBRARY
        and not PRECISION.search(called(part))
    ]
    copied = [part for part in between if _copies_older(part, learns.region, bound)]
    if loaded or rebound or reset or copied or _may_restore(program, live, learns, score, bound, same):
        return PUT_BACK
    return SUMMED_TOO if _summed(program, learns, scored, before=False) else ""


def excuse(program: Program, live: Live, learns: Learns, score: Scores) -> str | None:
    """None where a call that learns before a score is lawful, else why that is in doubt, as the end of a
    message; empty where nothing speaks for it.
    """
    bound = bindings(live.nodes)
    if (
        (learns.texts and all(TRAINING.search(text) or is_training(text, bound) for text in learns.texts))
        or _is_other_model(live, learns, score, bound)
        or any(
            _puts_back(program, part, learns, bound, live)
            for part in _between(live, learns, score)
            if not PRECISION.search(called(part))
        )
    ):
        return None
    return doubt(program, live, learns, score, bound, set())


def _may_restore(
    program: Program, live: Live, learns: Learns, score: Scores, bound: Sequence[Binding], same: set[str]
) -> bool:
    """Whether weights that were kept before the learning are read after it, a part of a model is taken out,
    or a function of the folder loads a file that was not written since.
    """
    kept = {
        each.name
        for each in bound
        if start(each.node) < start(learns.region)
        and SAVED.search(ast.unparse(each.value))
        and reads(each.value) & same
    }
    after = [
        part for part in live.nodes if end(learns.region) <= start(part) and end(part) <= start(score.node)
    ]
    loading = {other.last_name for other in program.live if other is not live and any(loads(other.nodes))}
    writing = WRITES | {
        other.last_name
        for other in program.live
        if other is not live and any(called(part) in WRITES for part in other.nodes)
    }
    for part in after:
        match part:
            case ast.Name(id=name, ctx=ast.Load()) if name in kept - same:
                return True
            case ast.Assign(targets=[ast.Attribute(attr=attr)], value=ast.Constant(value=None)) if (
                attr != "grad"
            ):
                return True
            case ast.Call() if called(part) in loading and not any(called(each) in writing for each in after):
                return True
    return False


def _between(live: Live, learns: Learns, score: Scores) -> list[ast.Call]:
    """The calls that stand between the learning and the score."""
    return [
        part
        for part in live.nodes
        if isinstance(part, ast.Call) and end(learns.region) <= start(part) and end(part) <= start(score.node)
    ]


def _is_summed_first(
    program: Program, learns: Learns, score: Scores, bound: Sequence[Binding], scored: set[str]
) -> bool:
    """Whether the turns that learn first add their costs to a score of their own, which the later one leaves
    as it is.
    """
    sums = _summed(program, learns, scored, before=True)
    made = {
        each.name
        for each in bound
        if holds(score.node, each.node) or any(part is score.node for part in walk(each.value))
    }
    later = made_into(made, [each for each in bound if start(each.node) >= start(score.node)])
    return bool(sums) and not sums & later


def _summed(program: Program, learns: Learns, scored: set[str], *, before: bool) -> set[str]:
    """The sums of a score that learning turns add a cost to; `before`: taken before their first step."""
    inside = bindings(own(learns.region))
    known = models(program, learns.region, inside)
    taken = [binding for binding in inside if is_cost(binding.value, known)]
    if before:
        first = min([*steps(learns.region), learns.step], key=start)
        taken = [binding for binding in taken if start(binding.node) < start(first)]
    costs = made_into({binding.name for binding in taken}, inside)
    return {
        binding.name
        for binding in inside
        if binding.name in scored and _adds(binding) and (binding in taken or reads(binding.value) & costs)
    }


def _adds(binding: Binding) -> bool:
    """Whether a binding adds to a sum, a list or a table."""
    match binding.node:
        case ast.AugAssign() | ast.Call():
            return True
        case ast.Assign(targets=[ast.Subscript()]):
            return True
        case ast.Assign():
            return binding.name in reads(binding.value)
    return False


def _is_other_model(live: Live, learns: Learns, score: Scores, bound: Sequence[Binding]) -> bool:
    """Whether the models that learn are known, and those that are scored have nothing to do with them."""
    if not learns.models or any(called(part) in ("load", *WRITES) for part in _between(live, learns, score)):
        return False
    if {name for name in learns.models if not NEW.search(name)} - {each.name for each in bound}:
        return False  # a parameter may be the same model as another one: #181
    asked = aliases(score.others, [*bound, *loads(live.nodes)], (0, 0))
    mine = aliases(learns.models, bound, (0, 0)) | taught(learns.models, live, bound, learns.region)
    return bool(asked) and not asked & mine


def _steps_by_nothing(program: Program, learns: Learns, bound: Sequence[Binding]) -> bool:
    """Whether the optimizer that steps has a learning rate of zero."""
    optimizers = {root(call.func) for call in steps(learns.region)}
    rates = [
        word.value
        for binding in bound
        if binding.name in optimizers
        for part in walk(binding.value)
        if isinstance(part, ast.Call)
        for word in part.keywords
        if word.arg == "lr"
    ]
    return bool(rates) and all(fold(rate, program.settings) in (0, 0.0) for rate in rates)


def _puts_back(
    program: Program, part: ast.Call, learns: Learns, bound: Sequence[Binding], live: Live
) -> bool:
    """Whether a call puts the weights back that were kept before the learning."""
    if called(part) == "load_state_dict":
        return _saved_before({root(each) for each in part.args}, learns.region, bound, live)
    if called(part) == "copy_" and part.args:
        later = [each for each in bound if start(each.node) > end(learns.region)]
        older = {each.name for each in bound if start(each.node) < start(learns.region)}
        sources = made_of(reads(part.args[0]), later) & older
        return _saved_before(sources - learns.models, learns.region, bound, live)
    mine = program.functions()
    return bool(PUTS_BACK.search(called(part))) and (
        called(part) in mine
        or (root(part.func) not in LIBRARY and bool(reads(part) & aliases(learns.models, bound)))
    )


def _copies_older(part: ast.Call, region: ast.AST, bound: Sequence[Binding]) -> bool:
    """Whether a call copies values into a tensor that were there before the learning."""
    return called(part) == "copy_" and any(
        each.name in made_of(reads(part), bound) and start(each.node) < start(region) for each in bound
    )


def _saved_before(wanted: set[str], region: ast.AST, bound: Sequence[Binding], live: Live) -> bool:
    """Whether these names hold weights that were kept before the learning and not changed since."""
    values = [binding for binding in bound if binding.name in wanted]
    changed = {
        root(part.func.value)
        for part in live.nodes
        if isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and part.func.attr.endswith("_")
        and not part.func.attr.startswith("_")
    }
    return (
        bool(values)
        and not wanted & changed
        and all(
            start(binding.node) < start(region) and SAVED.search(ast.unparse(binding.value))
            for binding in values
        )
    )


def is_training(text: str, bound: Sequence[Binding]) -> bool:
    """Whether a text is made of training text and of no validation text, whatever its own name is."""
    read = _made_from(text, bound)
    return any(TRAINING.search(name) for name in read) and not any(VALIDATION.search(name) for name in read)


def _made_from(text: str, bound: Sequence[Binding]) -> set[str]:
    """The names, attributes and texts that a text is made of, without its own name."""
    made = made_of({root_of(text)}, bound)
    known = names_in(each.value for each in bound if each.name in made)
    return {name for name in known - {root_of(text)} if not NO_TEXT.search(name)}


def is_validation(text: str, bound: Sequence[Binding]) -> bool:
    """Whether a text has the name of validation text, or is read from files with such names and no others."""
    if VALIDATION.search(text) or TRAINING.search(text):
        return not TRAINING.search(text)
    read = _made_from(text, bound)
    return any(VALIDATION.search(name) for name in read) and not any(TRAINING.search(name) for name in read)
