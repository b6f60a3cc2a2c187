"""Tell whether a loop over the same text makes a score of validation text, and whether each turn starts over.

Texts are known by their names and files, here and at the callers. Turns that make the model or adapter anew,
or put weights back, learn nothing from those before. Weights that other functions change are not followed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from harness.audit.code.cleared import TRAINING as IN_TRAINING, VALIDATION as IN_VALIDATION
from harness.audit.code.flow import (
    Binding,
    Loop,
    bindings,
    calls_one_of,
    holds,
    learnt,
    made_of,
    made_scores,
    models,
    reads,
    start,
    stated_scores,
    values_of_scores,
)
from harness.audit.code.learning import SCORES, VALIDATION
from harness.audit.code.models import aliases, may_be_model, models_of_call
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import arguments, called, calls, names, own, root, steps
from harness.audit.code.texts import NO_TEXT, names_in
from harness.audit.code.tree import walk

FIXES = re.compile(r"restore|reset|roll_?back|revert|^(zero|fill|normal|uniform|constant)s?_$")
"""Calls that set weights to what they were, or to fixed values."""
TRAINED = re.compile(r"^train(ing)?(_|$|\d)(?!mode|args)")
"""Names of training text."""


def starts_over(program: Program, live: Live, loop: Loop, learning: dict[str, Live]) -> bool:
    """Whether each turn makes the weights that it learns anew, or puts back those of before the loop."""
    functions = program.functions()
    inside = bindings(own(loop))
    optimizers = {root(call.func) for call in steps(loop)}
    weights = models(program, loop, inside).union(
        *(reads(each.value) for each in bindings(live.nodes) if each.name in optimizers),
        *(
            models_of_call(program, part, learning[called(part)], functions)
            for part in own(loop)
            if isinstance(part, ast.Call) and calls_one_of(part, learning)
        ),
    )
    weights = {name for name in weights if may_be_model(name)}
    inner = [part for part in own(loop) if isinstance(part, ast.For | ast.While)]
    every_turn = [part for part in own(loop) if not any(holds(each, part) for each in inner if steps(each))]
    made = {
        each.name
        for each in bindings(every_turn)
        if isinstance(each.node, ast.Assign)
        and each.name not in reads(each.value)
        and not aliases({each.name}, [each]) - {each.name}
    }
    older = {each.name for each in bindings(live.nodes) if start(each.node) < start(loop)} - {
        each.name for each in inside
    }
    return bool(made & weights) or any(
        _gives_back(part, weights, older - weights, inside) for part in every_turn
    )


def _gives_back(part: ast.AST, weights: set[str], older: set[str], inside: Sequence[Binding]) -> bool:
    """Whether a statement or call puts weights of before the loop back, or sets weights to fixed values."""
    match part:
        case ast.Assign(targets=[ast.Attribute(attr="data", value=holder)]):
            return root(holder) in weights
        case ast.Call() if called(part) in ("load_state_dict", "copy_"):
            return bool(made_of(reads(part), inside) & older)
        case ast.Call():
            return bool(FIXES.search(called(part)) and reads(part) & weights)
    return False


def kind_of_text(program: Program, live: Live, loop: Loop, bound: Sequence[Binding]) -> str:
    """What names and files say of the text that a loop learns from: "validation", "training" or nothing."""
    inside = bindings(own(loop))
    known = models(program, loop, inside)
    values = [each for each in bound if each.name not in known]
    fed = made_of(learnt(loop) - known, values) - known
    read = fed | names_in(each.value for each in values if each.name in fed)
    for other in program.live:
        outer = bindings(other.nodes)
        for call in calls(other.node, live.last_name):
            for name, value in arguments(call, live).items():
                if name in fed:
                    made = made_of(reads(value), outer)
                    read |= made | names_in([value, *(each.value for each in outer if each.name in made)])
    read = {name for name in read if not NO_TEXT.search(name)}
    if any(IN_VALIDATION.search(name) or VALIDATION.search(name) for name in read):
        return "validation"
    return "training" if any(IN_TRAINING.search(name) for name in read) else ""


def is_only_score(program: Program, live: Live) -> bool:
    """Whether every stated score of the program is made by this function."""
    name = live.last_name
    return all(
        other is live or _rests_on(value, name, bindings(other.nodes))
        for other in program.live
        for value in stated_scores(other.nodes)
    )


def _rests_on(value: ast.expr, name: str, bound: Sequence[Binding]) -> bool:
    """Whether a value is made by a call of the function with this name."""
    made = made_of(reads(value), bound)
    parts = [value, *(each.value for each in bound if each.name in made)]
    return any(called(part) == name for each in parts for part in walk(each))


def is_scored(program: Program, live: Live, loop: Loop, bound: Sequence[Binding]) -> bool:
    """Whether what a function sums is the score of validation text: by its own names or by its callers'."""
    name = live.last_name
    callers = [(other, made) for other in program.live if (made := calls(other.node, name))]
    for other, made in callers:
        if any(part in made for value in values_of_scores(other) for part in walk(value)):
            return True
    given = {name for _, made in callers for call in made for part in call.args for name in reads(part)}
    known = names(live.node)
    return not any(TRAINED.search(name) for name in given | names(loop)) and (
        bool(made_scores(live.nodes, bound))
        or any(VALIDATION.search(name) or SCORES.search(name) for name in known)
    )
