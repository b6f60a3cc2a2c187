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
    Binding,
    bindings,
    end,
    holds,
    is_cost,
    learnt,
    made_into,
    made_of,
    models,
    reads,
    start,
)
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import called, own, root
from harness.audit.code.texts import root_of
from harness.audit.code.tree import walk

VALIDATION = re.compile(r"(^|[_/\-.*'\"])(val(id|idation)?|held(_?out)?)([_/\-.*\d'\"]|$)", re.I)
"""Names, settings and patterns of files of validation text."""
TRAINING = re.compile(r"(^|[_/\-.*'\"])train(ing)?([_/\-.*\d'\"]|$)", re.I)
PUTS_BACK = re.compile(r"restore|reset|roll_?back|revert", re.I)
SAVED = re.compile(r"state_dict|deepcopy|clone|copy")
COPIES = ("deepcopy", "copy", "clone")


class Learns(NamedTuple):
    """Statements that step an optimizer."""

    region: ast.AST
    """The largest loop with them that does not hold the score, or the call of a function."""
    step: ast.AST
    texts: set[str]
    """What is learnt from, as the function names it."""
    others: set[str]
    """All other names that are read: the model among them."""


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
    inside = bindings(own(learns.region))
    known = models(program, learns.region, inside)
    costs = made_into(learnt(learns.region) - known, inside)
    if any(
        binding.name in scored
        and isinstance(binding.node, ast.AugAssign | ast.Call)
        and (is_cost(binding.value, known) or reads(binding.value) & costs)
        for binding in inside
    ):
        return True  # the score is summed while learning
    if any(
        binding.name in learns.others
        and any(called(part) in COPIES for part in walk(binding.value))
        and reads(binding.value) & score.others - learns.others
        for binding in bound
    ):
        return True  # a copy learns, and its original is scored
    between = [
        part
        for part in live.nodes
        if isinstance(part, ast.Call) and end(learns.region) <= start(part) and end(part) <= start(score.node)
    ]
    return any(
        PUTS_BACK.search(called(part))
        or (called(part) == "load_state_dict" and _saved_before(part, learns.region, bound))
        for part in between
    )


def _saved_before(call: ast.Call, region: ast.AST, bound: Sequence[Binding]) -> bool:
    """Whether weights are put back that were kept before the learning."""
    wanted = {root(part) for part in call.args} - {""}
    values = [binding for binding in bound if binding.name in wanted]
    return bool(values) and all(
        start(binding.node) < start(region) and SAVED.search(ast.unparse(binding.value)) for binding in values
    )


def is_validation(text: str, bound: Sequence[Binding]) -> bool:
    """Whether a text has the name of validation text, or is read from files with such names and no others."""
    if VALIDATION.search(text) or TRAINING.search(text):
        return not TRAINING.search(text)
    made = made_of({root_of(text)}, bound)
    known = {
        found
        for binding in bound
        if binding.name in made
        for part in walk(binding.value)
        for found in [getattr(part, "attr", "") or getattr(part, "value", "")]
        if isinstance(found, str)
    }
    return any(VALIDATION.search(name) for name in known) and not any(TRAINING.search(name) for name in known)
