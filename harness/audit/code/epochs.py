"""Find code that passes over the same validation text several times, learns, and counts a later pass only.

#568: the score of the last of several epochs is that of text which the model has already learnt. The loop is
found by what it does, not by its names: its counter takes no part in choosing the text, an optimizer steps
inside it, and conditions on the counter, sums set back in each pass or values overwritten in each pass leave
the first pass out of the score. Counters that functions share, and passes in different functions, are not
followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.audit.code.flow import (
    Binding,
    Loop,
    bindings,
    calls_one_of,
    end,
    holds,
    is_cost,
    learners,
    learning_calls,
    learnt,
    made_into,
    made_of,
    made_scores,
    models,
    names_returned,
    reads,
    start,
)
from harness.audit.code.learning import TRAINS
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.repeats import is_only_score, is_scored, kind_of_text, starts_over
from harness.audit.code.shape import called, names, own, quote, root, steps
from harness.audit.code.sums import added, hands_on, is_stored, may_add, set_back, statements
from harness.audit.code.texts import touched
from harness.audit.code.turns import Passes, passes_of
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

LAST_EPOCH_SCORED = RuleInfo(
    id="last-epoch-scored",
    title="Of several epochs over the validation text only a later one is the score",
    condition="C3",
    source="#568, #677, #1017 C3",
    checks="a loop over the same text with optimizer steps, whose costs are counted in its last turn only: "
    "under a condition on its counter, in sums that each turn sets back, or in a value that each turn "
    "overwrites; turns that start over with new or kept weights are left alone",
    example="#568: for epoch in range(ttt_epochs): ...; if epoch == ttt_epochs - 1: loss_sum += nll; "
    "loss.backward(); opt.step()",
    not_covered="passes in different functions; a question where the number of passes cannot be read, or a "
    "value is overwritten and not summed, or the text is not known beside another score",
)


class Counted(NamedTuple):
    """What leaves the first pass out of the score."""

    lines: tuple[ast.AST, ...]
    certain: bool


def last_epoch(program: Program) -> Iterator[Finding]:
    """Find a loop that learns from the same text in each turn and counts the cost of the last turn only."""
    learning = learners(program)
    for live in program.live:
        loops = [
            part
            for part in live.nodes
            if isinstance(part, ast.For | ast.While) and learning_calls(part, learning)
        ]
        if not loops:
            continue
        bound = bindings(live.nodes)
        for loop in loops:
            if any(TRAINS.search(name) for name in names(loop)):
                continue
            passes = passes_of(program, live, loop, bound)
            if passes is None or passes.turns < 2:
                continue
            counted = _counted(program, live, loop, bound, passes, learning)
            if counted is None or not is_scored(program, live, loop, bound):
                continue
            text = kind_of_text(program, live, loop, bound)
            if text == "training" or starts_over(program, live, loop, learning):
                continue
            asked = text != "validation" and not is_only_score(program, live)
            certain = passes.known and counted.certain and not asked
            yield Finding.of(
                LAST_EPOCH_SCORED,
                "fail" if certain else "question",
                f"{live.name}() learns over "
                f"{f'{passes.turns} epochs' if passes.known else 'epochs whose number is not read'} "
                "and adds up the score of the last one only"
                + ("; whether that is validation text cannot be read" if asked else ""),
                quote(program, live, loop, *counted.lines, learning_calls(loop, learning)[0]),
                "the score taken in the first epoch, before any step on these tokens, or a run with one "
                "epoch",
            )


def _counted(
    program: Program,
    live: Live,
    loop: Loop,
    bound: Sequence[Binding],
    passes: Passes,
    learning: dict[str, Live],
) -> Counted | None:
    """What counts the last pass only; None where the first pass counts too, or nothing is counted."""
    inside = bindings(own(loop))
    known = models(program, loop, inside)
    costs = made_into(
        {binding.name for binding in inside if is_cost(binding.value, known)} | (learnt(loop) - known), inside
    ) - {passes.counter}
    results = _results(live, bound)
    adds = [
        (statement, conditions)
        for statement, conditions in statements(loop.body, ())
        if (target := added(statement)) in results
        and ((reads(statement) - {target}) & costs or is_cost(statement, known))
        and _of_what_is_learnt(loop, statement, learning)
    ]
    first, last = (passes.numbers.with_value(passes.counter, at) for at in (passes.first, passes.last))
    late = [
        (statement, conditions)
        for statement, conditions in adds
        if not may_add(statement, conditions, first) and may_add(statement, conditions, last)
    ]
    resets = set_back(loop, last)
    early = [
        statement
        for statement, conditions in adds
        if may_add(statement, conditions, first) and added(statement) not in resets
    ]
    if late and not early:
        statement, conditions = late[0]
        return Counted(
            (*(test for test, _ in conditions if passes.counter in made_of(reads(test), bound)), statement),
            True,
        )
    again = [statement for statement, _ in adds if added(statement) in resets]
    if again and not early and not hands_on(loop, resets) and _read_after(live, loop, set(resets)):
        return Counted((resets[added(again[0])], again[0]), True)
    stored = [
        statement
        for statement, _ in statements(loop.body, ())
        if is_stored(statement, passes.counter)
        and root(statement.targets[0]) in results - made_of(learnt(loop), inside)
        and (is_cost(statement, known) or reads(statement.value) & costs)
    ]
    if stored and not adds and _read_after(live, loop, {root(stored[0].targets[0])}):
        return Counted((stored[0],), False)
    return _overwritten(program, live, loop, passes, learning)


def _of_what_is_learnt(loop: Loop, statement: ast.stmt, learning: dict[str, Live]) -> bool:
    """Whether a cost is added in a loop that learns too, or of a text that another loop learns from.

    A program that trains in each turn, and then scores another text, does neither.
    """
    inner = [part for part in own(loop) if isinstance(part, ast.For | ast.While)]
    learns = [part for part in inner if learning_calls(part, learning)]
    around = [part for part in inner if holds(part, statement)]
    if any(part in learns for part in around):
        return True
    if not around and not learns and steps(loop):
        return True
    calls_made = [part for part in own(loop) if calls_one_of(part, learning)]
    learnt_from = {text for part in learns for text in touched([part, *own(part)], loosely=True)}
    learnt_from |= {name for call in calls_made for name in reads(call)}
    scored = {text for part in around for text in touched([part, *own(part)], loosely=True)}
    scored = scored or reads(statement) | touched([statement, *own(statement)], loosely=True)
    return bool(learnt_from & scored - _acting(loop))


def _acting(node: ast.AST) -> set[str]:
    """The names that are called inside `node`, or handed to functions under a model's usual names."""
    return {root(part.func) for part in own(node) if isinstance(part, ast.Call)} | {"model", "net", "self"}


def _results(live: Live, bound: Sequence[Binding]) -> set[str]:
    """The names that a function's results and scores are made of."""
    stored = {
        name for part in live.nodes if isinstance(part, ast.Nonlocal | ast.Global) for name in part.names
    }
    return made_of(names_returned(live.nodes) | stored, bound) | made_scores(live.nodes, bound)


def _read_after(live: Live, loop: Loop, wanted: set[str]) -> bool:
    """Whether one of these names is read after a loop, before it gets another value."""
    for part in sorted((part for part in live.nodes if isinstance(part, ast.Name)), key=start):
        if part.id in wanted and start(part) > end(loop):
            return isinstance(part.ctx, ast.Load)
    return False


def _overwritten(
    program: Program, live: Live, loop: Loop, passes: Passes, learning: dict[str, Live]
) -> Counted | None:
    """A score that a learning function returns in each turn, of which the last is used after the loop."""
    for statement, _ in statements(loop.body, ()):
        made = [part for part in own(statement) if calls_one_of(part, learning)]
        if (
            not made
            or passes.counter in reads(statement)
            or not returns_costs(program, learning[called(made[0])], while_learning=True)
        ):
            continue
        scored = made_scores(live.nodes, bindings(live.nodes))
        if isinstance(statement, ast.Expr) and (kept := added(statement)):
            if _only_the_last(live, kept, loop):
                return Counted((statement,), kept in scored)
        elif isinstance(statement, ast.Assign) and not added(statement):
            taken = {name for target in statement.targets for name in reads(target)}
            summed = any(added(other) and reads(other) & taken for other, _ in statements(loop.body, ()))
            if taken and not summed and _read_after(live, loop, taken):
                return Counted((statement,), taken <= scored)
    return None


def _only_the_last(live: Live, name: str, loop: Loop) -> bool:
    """Whether of a list that a loop fills nothing but the last element is read after it."""
    after = [part for part in live.nodes if start(part) > end(loop)]
    read = [part for part in after if isinstance(part, ast.Name) and part.id == name]
    last = [
        part
        for part in after
        if isinstance(part, ast.Subscript)
        and isinstance(part.value, ast.Name)
        and part.value.id == name
        and ast.unparse(part.slice) == "-1"
    ]
    return bool(read) and len(read) == len(last)


def returns_costs(program: Program, live: Live, *, while_learning: bool = False) -> bool:
    """Whether a function returns a sum of costs; `while_learning`: that loops with optimizer steps make."""
    bound = bindings(live.nodes)
    results = _results(live, bound)
    known = models(program, live.node, bound)
    costs = made_into(
        {binding.name for binding in bound if is_cost(binding.value, known)} | (learnt(live.node) - known),
        bound,
    )
    loops = [part for part in live.nodes if isinstance(part, ast.For | ast.While)]
    return any(
        added(part) in results
        and (reads(part) & costs or is_cost(part, known))
        and (not while_learning or any(steps(loop) and holds(loop, part) for loop in loops))
        for part in live.nodes
    )


RULES = (LAST_EPOCH_SCORED,)
CHECKS = (last_epoch,)
