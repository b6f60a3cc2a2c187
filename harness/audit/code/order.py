"""Find a program that learns from validation text in its own statements and scores the same text afterwards.

`learning.py` finds functions that are named and called as public records do it. This file finds the rest by
what the statements do: in one function, an optimizer steps on a text, and later the same text makes the score
that is printed. The text is the same where both read the same variable, or one reads a view of the other's.
`cleared.py` tells what speaks against it. Order across functions is followed through calls; order across
files and processes is not.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.audit.code.cleared import (
    TRAINING,
    Learns,
    Scores,
    doubt,
    excuse,
    in_common_loop,
    is_cleared,
    is_either_or,
    is_training,
    is_validation,
)
from harness.audit.code.epochs import returns_costs
from harness.audit.code.flow import (
    BUILTIN,
    LIBRARY,
    Binding,
    Position,
    bindings,
    calls_one_of,
    end,
    holds,
    is_cost,
    is_score_name,
    learners,
    learning_calls,
    learnt,
    made_of,
    models,
    of_the_module,
    reads,
    returned,
    start,
    stated_scores,
    values_of_scores,
)
from harness.audit.code.learning import VAL_BEFORE_SCORE, before_scoring, pass_then_score
from harness.audit.code.models import COPIES, aliases, loads, models_of_call
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import called, own, quote, root, steps
from harness.audit.code.texts import learnt_from, root_of, texts_of_call, things, touched, views
from harness.audit.code.traces import UNDECIDED
from harness.audit.code.tree import walk
from harness.audit.finding import Finding

OF_TENSORS = re.compile(
    r"^(item|sum|mean|max|min|any|all|to|cpu|cuda|long|int|float|double|bool|numel|size|dim|append|extend|add"
    r"|update|get|keys|values|items|split|chunk|unfold|reshape|view|flatten|squeeze|unsqueeze|tolist|astype|numpy"
    r"|clone|detach|encode|decode|write|flush)$"
)
"""Methods of tensors and containers, which are no models."""


def before_the_score(program: Program) -> Iterator[Finding]:
    """Find validation text that is learnt from before it is scored, by usual functions or by order."""
    usual = [
        *before_scoring(program, functools.partial(_excuse, program)),
        *pass_then_score(program, functools.partial(_excuse_loop, program)),
    ]
    yield from usual or learns_then_scores(program)


def _excuse_loop(program: Program, live: Live, step: ast.Call, scored: ast.Call) -> str | None:
    """What speaks for a loop that learns and a score after it."""
    learns = _learns(program, live, step, scored, {})
    return excuse(program, live, learns, Scores(scored, set(), things(reads(scored)))) if learns else ""


def _excuse(program: Program, live: Live, function: Live, call: ast.Call, scored: ast.Call) -> str | None:
    """What speaks for a call of a function that learns and a score after it."""
    functions = program.functions()
    texts, others = texts_of_call(program, call, function, functions, learn=True)
    learns = Learns(call, call, texts, others, models_of_call(program, call, function, functions))
    return excuse(program, live, learns, Scores(scored, set(), things(reads(scored))))


def learns_then_scores(program: Program) -> Iterator[Finding]:
    """Find a function whose statements learn from a text and afterwards score it."""
    learning = learners(program)
    asked_for: set[str] | None = None
    for live in program.live:
        moves = [
            part
            for part in live.nodes
            if calls_one_of(part, learning) or (called(part) == "step" and steps(live.node))
        ]
        if not moves:
            continue
        bound = bindings(live.nodes)
        if asked_for is None:
            asked_for = _called_for_scores(program)
        known = [*bound, *of_the_module(program, live, bound)]
        values = _score_values(live, asked_for)
        if not values:
            continue
        scored = made_of({name for value in values for name in reads(value)}, bound)
        made = [*values, *(binding.value for binding in bound if binding.name in scored)]
        stated = {id(part) for value in _results(values, bound) for part in walk(value)}
        within = {id(part) for value in made for part in walk(value)}
        moves = [
            move
            for move in moves
            if called(move) == "step"
            or not (
                id(move) in stated or (id(move) in within and returns_costs(program, learning[called(move)]))
            )
        ]
        scores = list(_scores(program, live, made, scored, learning))
        found = [
            (learns, score, shared, doubt(program, live, learns, score, bound, scored))
            for score in scores
            for move in moves
            if end(move) <= start(score.node)
            for learns in [_learns(program, live, move, score.node, learning)]
            if learns is not None
            and (shared := _shared(learns, score, bound, known))
            and not is_cleared(program, live, learns, score, bound, scored)
        ]
        for pair in sorted(found, key=lambda pair: bool(pair[3]))[:1]:
            yield _finding(program, live, *pair, bound, scores)


def _finding(
    program: Program,
    live: Live,
    learns: Learns,
    score: Scores,
    shared: set[str],
    unsure: str,
    bound: Sequence[Binding],
    scores: Sequence[Scores],
) -> Finding:
    text = min(shared)
    earlier = any(
        end(other.node) <= start(learns.region)
        and other.texts & shared
        and not is_either_or(live, other.node, learns.region)
        for other in scores
    )
    asked = [*bound, *loads(live.nodes)]
    if not (
        is_validation(text, [*bound, *of_the_module(program, live, bound)])
        and aliases(learns.models or learns.others, bound) & aliases(score.others, asked, end(learns.region))
        and not in_common_loop(live, learns.region, score.node)
    ):
        unsure = "; whether it is validation text, and the same model, cannot be read"
    elif earlier:
        unsure = unsure or UNDECIDED
    evidence = quote(program, live, learns.region, learns.step, score.node)
    for helper in program.live:
        if helper.name == called(learns.step) != "step" and helper is not live:
            evidence += quote(program, helper, next(iter(steps(helper.node)), helper.node))
    return Finding.of(
        VAL_BEFORE_SCORE,
        "question" if unsure else "fail",
        f"{live.name}() steps an optimizer on `{text}`, and the score of `{text}` is made after that"
        + unsure,
        evidence,
        "scores of these tokens that stand before the steps, or settings of the run that switch them off",
    )


def _results(values: Sequence[ast.expr], bound: Sequence[Binding]) -> list[ast.expr]:
    """The values that are scores, and those of the names that they read outside the arguments of calls: a
    function that learns and whose result is a score is judged by what stands in it.
    """
    plain = {
        part.id
        for value in values
        for part in ([value, *own(value)] if not isinstance(value, ast.Call) else [value])
        if isinstance(part, ast.Name) and not any(_is_argument(part, call) for call in walk(value))
    }
    return [*values, *(binding.value for binding in bound if binding.name in plain)]


def _is_argument(name: ast.Name, call: ast.AST) -> bool:
    return isinstance(call, ast.Call) and any(
        part is name
        for argument in call.args
        if getattr(call.func, "id", "") not in BUILTIN
        for part in walk(argument)
    )


def _called_for_scores(program: Program) -> set[str]:
    """The functions that are called for what a program calls a score."""
    return {
        called(part)
        for live in program.live
        for value in values_of_scores(live)
        for part in walk(value)
        if isinstance(part, ast.Call)
    }


def _score_values(live: Live, asked_for: set[str]) -> list[ast.expr]:
    """What a function calls a score, or returns to a function that calls it one."""
    values = list(stated_scores(live.nodes))
    name = live.last_name
    if name in asked_for or is_score_name(name):
        values += returned(live.nodes)
    return values


def _scores(
    program: Program, live: Live, made: Sequence[ast.expr], scored: set[str], learning: Mapping[str, Live]
) -> Iterator[Scores]:
    """The calls and loops that make a score, without those that learn."""
    functions = program.functions()
    for value in made:
        for part in walk(value):
            if isinstance(part, ast.Call) and called(part) in functions and not calls_one_of(part, learning):
                texts, others = texts_of_call(program, part, functions[called(part)], functions, learn=False)
                if texts:
                    yield Scores(part, texts, others)
    for loop in (part for part in live.nodes if isinstance(part, ast.For | ast.While)):
        if learning_calls(loop, learning) or not _asks_a_model(loop):
            continue
        inside = bindings(own(loop))
        if any(
            binding.name in scored and isinstance(binding.node, ast.AugAssign | ast.Call)
            for binding in inside
        ):
            local = {binding.name for binding in inside}
            texts = {
                text for text in touched([loop, *own(loop)], loosely=False) if root_of(text) not in local
            }
            yield Scores(loop, texts, _others(loop, texts, local))


def _learns(
    program: Program, live: Live, move: ast.AST, score: ast.AST, learning: Mapping[str, Live]
) -> Learns | None:
    """What a step, or a call of a function that steps, learns from."""
    loops = [
        part
        for part in live.nodes
        if isinstance(part, ast.For | ast.While) and holds(part, move) and not holds(part, score)
    ]
    region = min(loops, key=start, default=None)
    if isinstance(move, ast.Call) and called(move) in learning and called(move) != "step":
        functions = program.functions()
        texts, others = texts_of_call(program, move, learning[called(move)], functions, learn=True)
        with_models = models_of_call(program, move, learning[called(move)], functions)
        return Learns(region or move, move, texts, others, with_models) if texts else None
    if region is None or not steps(region):
        return None
    inside = bindings([region, *own(region)])
    local = {binding.name for binding in inside}
    read = touched([region, *own(region)], loosely=True)
    if any(TRAINING.search(text) and root_of(text) in made_of(learnt(region), inside) for text in read):
        return None  # a loop that trains; what a setting makes it read instead is not known (#217)
    texts = learnt_from(region, [region, *own(region)], inside, local)
    return Learns(region, move, texts, _others(region, texts, local), models(program, region, inside))


def _others(node: ast.AST, texts: Iterable[str], local: set[str]) -> set[str]:
    """The names that `node` reads and does not bind, without its texts, copies and library names."""
    copied = {
        name
        for part in walk(node)
        if called(part) in COPIES and isinstance(part, ast.Call)
        for argument in part.args
        for name in reads(argument)
    }
    return things(reads(node) - local - {root_of(text) for text in texts} - copied)


def _asks_a_model(loop: ast.AST) -> bool:
    """Whether a loop calls anything that may be a model: sums of what was kept are no new score."""
    return any(
        is_cost(part)
        or (
            part.func.id not in BUILTIN | LIBRARY
            if isinstance(part.func, ast.Name)
            else root(part.func) not in LIBRARY and not OF_TENSORS.search(called(part))
        )
        for part in own(loop)
        if isinstance(part, ast.Call)
    )


def _shared(learns: Learns, score: Scores, bound: Sequence[Binding], known: Sequence[Binding]) -> set[str]:
    """The texts that are both learnt from and scored, without training text and names bound anew."""
    same = _same(learns.texts, score.texts, bound, start(learns.region))
    return {
        text
        for text in same
        if not is_training(text, known)
        and not _is_bound_anew(root_of(text), bound, end(learns.region), start(score.node))
    }


def _is_bound_anew(name: str, bound: Sequence[Binding], after: Position, before: Position) -> bool:
    """Whether a name gets another value between two places, and not what it is or was made of."""
    older = {ast.unparse(each.value) for each in bound if each.name == name and start(each.node) < after}
    return any(
        each.name == name
        and isinstance(each.node, ast.Assign)
        and after <= start(each.node) < before
        and name not in reads(each.value)
        and ast.unparse(each.value) not in older
        for each in bound
    )


def _same(learnt_from: set[str], scored: set[str], bound: Sequence[Binding], before: Position) -> set[str]:
    """The texts that are both learnt from and scored: the same variable, or one a view of the other."""
    return (
        (learnt_from & scored)
        | (views(learnt_from, bound, before) & scored)
        | (learnt_from & views(scored, bound, before))
    )


RULES = (VAL_BEFORE_SCORE,)
CHECKS = (before_the_score,)
