"""Find code that learns from validation text before it scores it: pre-quant test-time training, SLOT.

#402, #1376: a program may learn from a validation token only after its score is fixed. #1240: a delta that is
fitted to the scored positions predicts what it has seen. Where the order cannot be read, the finding is a
question. Epochs are judged in epochs.py, other programs than those of public records in order.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import UNKNOWN, fold
from harness.audit.code.shape import arguments, called, calls, names, order_of, own, quote, root, steps
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

VALIDATION = re.compile(r"^(val|eval)_?(tokens|data|seqs|ids|inputs|x)$|^val_tokens\w*$")
SCORES = re.compile(r"byte|bpb|nll|_lut$|score_|_score")
MAIN = re.compile(r"^_?(main|run|train\w*|<module>)$")
EVALUATES = re.compile(r"eval|score|validate")
TRAINS = re.compile(r"train_loader|train_files|train_tokens|DistributedTokenLoader|train_data|train_batch")
SUMS = re.compile(r"(loss|nll)_?(sum|total)|(sum|total)_(loss|nll)|^batch_loss$|^(lsum|nsum)$")
EPOCH = re.compile(r"(^|_)ep(och)?s?$|epoch|num_pass")


VAL_BEFORE_SCORE = RuleInfo(
    id="val-before-score",
    title="Validation text is learnt from before it is scored",
    condition="C3",
    source="#402, #1376, #1017 C3",
    checks="optimizer steps on validation tokens and the scoring of the same tokens after them: in a "
    "function that scores nothing and that the main program calls, or in the program's own loops, methods "
    "and helpers",
    example="#1487: prequant_ttt_adapt_adamw(h, model, device, val_tokens) before the eval that makes the "
    "headline",
    not_covered="weights that are changed by hand, and losses in a closure that an optimizer calls; a "
    "question where it cannot be read that the texts and the model are the same, where weights may have been "
    "put back, where a score stands before it too, and where the logs print nothing of it, or only after the "
    "stated score",
)


Excuse = Callable[[Live, Live, ast.Call, ast.Call], str | None]
"""Takes a caller, a function that learns, its call and a score after it. Gives None where that is lawful,
else why it is in doubt, as the end of a message; empty where nothing speaks for it.
"""


def before_scoring(program: Program, excuse: Excuse) -> Iterator[Finding]:
    """Find a function that steps an optimizer on validation tokens and scores nothing, which the main program
    calls before it scores.
    """
    for live in program.live:
        tokens = sorted(name for name in parameters(live.node) if VALIDATION.match(name))
        optimizer_steps = steps(live.node) if tokens else []
        known = names(live.node) if optimizer_steps else set()
        if not optimizer_steps or any(
            TRAINS.search(name) or SCORES.search(name) for name in known | parameters(live.node)
        ):
            continue
        if any(isinstance(part, ast.Return) and part.value is not None for part in live.nodes):
            continue
        for other in program.live:
            if not MAIN.match(other.name) or "ttt" in other.name:
                continue
            for call in calls(other.node, live.name):
                scored = [
                    part
                    for part in other.nodes
                    if isinstance(part, ast.Call)
                    and part.lineno > call.lineno
                    and EVALUATES.search(called(part))
                ]
                unsure = excuse(other, live, call, scored[0]) if scored else None
                if unsure is None:
                    continue
                data = [part for part in live.nodes if isinstance(part, ast.Name) and part.id == tokens[0]]
                evidence = quote(
                    program,
                    live,
                    live.node,
                    *data[-1:],
                    *calls(live.node, "backward")[:1],
                    optimizer_steps[0],
                )
                yield Finding.of(
                    VAL_BEFORE_SCORE,
                    "question" if unsure else "fail",
                    f"{live.name}() steps an optimizer on `{tokens[0]}` and scores "
                    f"nothing; {other.name}() calls it, and {called(scored[0])}() scores after it{unsure}",
                    evidence + quote(program, other, call, scored[0]),
                    "scores of these tokens that stand before the call, or settings of the run that switch "
                    "it off",
                )
                break


def pass_then_score(
    program: Program, excuse: Callable[[Live, ast.Call, ast.Call], str | None]
) -> Iterator[Finding]:
    """Find one function with a loop of steps on the validation tokens, and only then their scoring (#297)."""
    for live in program.live:
        tokens = {name for name in parameters(live.node) if VALIDATION.match(name)}
        if not tokens or not isinstance(live.node, ast.FunctionDef):
            continue
        for at, loop in enumerate(live.node.body):
            if not (isinstance(loop, ast.For) and steps(loop) and names(loop) & tokens):
                continue
            if any(TRAINS.search(name) or "byte" in name or "nll" in name for name in names(loop)):
                break
            scores = [
                [
                    part
                    for statement in block
                    for part in (statement, *own(statement))
                    if isinstance(part, ast.Call)
                    and called(part).startswith("eval_val")
                    and names(part) & tokens
                ]
                for block in (live.node.body[:at], live.node.body[at + 1 :])
            ]
            unsure = excuse(live, steps(loop)[0], scores[1][0]) if scores[1] and not scores[0] else None
            if unsure is not None:
                yield Finding.of(
                    VAL_BEFORE_SCORE,
                    "question" if unsure else "fail",
                    f"{live.name}() steps an optimizer over the validation tokens, scoring nothing, then "
                    f"{called(scores[1][0])}() scores them{unsure}",
                    quote(program, live, live.node, loop, steps(loop)[0], scores[1][0]),
                    "scores of these tokens that stand before the loop, or settings of the run that switch "
                    "it off",
                )
            break


SLOT = RuleInfo(
    id="slot",
    title="Parameters are fitted to the positions that are scored",
    condition="C1",
    source="#1240, #1336, #1229, #1017 C1",
    checks="steps on a loss over the targets, then the score over the same targets; `fail` where mask and "
    "score start alike",
    example="#1229: mask[i, s:wlen] = 1.0, sixteen steps, then nll[i, s:wlen] is added up",
    not_covered="a loss over the context only ([:s]), which is no violation; masks under other names make "
    "it a question",
)


def fitted_positions(program: Program) -> Iterator[Finding]:
    """Find SLOT: within one block, steps on a loss over the targets, then the score over the same targets."""
    for live in program.live:
        for block in _blocks(live.node):
            for at, loop in enumerate(block):
                if not isinstance(loop, ast.For) or not steps(loop) or EPOCH.search(root(loop.target)):
                    continue
                fitted = _targets(loop)
                earlier = {name for statement in block[:at] for name in _targets(statement)}
                later = [
                    part
                    for statement in block[at + 1 :]
                    for part in _losses(statement)
                    if root(part.args[1]) in fitted
                ]
                adds = [
                    part
                    for part in live.nodes
                    if isinstance(part, ast.AugAssign)
                    and SUMS.search(root(part.target))
                    and part.lineno > (loop.end_lineno or 0)
                ]
                if not later or not adds or any(TRAINS.search(name) for name in names(live.node)):
                    continue
                if fitted & earlier and any(
                    isinstance(part, ast.AugAssign) and SUMS.search(root(part.target))
                    for statement in block[:at]
                    for part in (statement, *own(statement))
                ):
                    continue
                found = _slot(program, live, loop, later[0], adds[0])
                if found is not None:
                    yield found


def _slot(
    program: Program, live: Live, loop: ast.For, loss: ast.Call, added: ast.AugAssign
) -> Finding | None:
    """The finding for a loop that fits and scores the same targets; None where it fits the context only."""
    masks = {
        root(part.left) or root(part.right): part
        for part in own(loop)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult)
    } | {
        root(part.right): part
        for part in own(loop)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult)
    }
    fills = [
        part
        for part in live.nodes
        if isinstance(part, ast.Assign)
        and part.lineno < loop.lineno
        and isinstance(part.targets[0], ast.Subscript)
        and root(part.targets[0]) in masks
        and root(part.targets[0])
    ]
    slices = [part for fill in fills for part in ast.walk(fill.targets[0]) if isinstance(part, ast.Slice)]
    scored = {
        ast.unparse(part.lower)
        for part in live.nodes
        if isinstance(part, ast.Slice) and part.lower is not None and part.lineno > (loop.end_lineno or 0)
    }
    evidence = quote(program, live, live.node, *fills[:1], loop, *steps(loop)[:1], loss, added)
    clears = (
        "a mask that ends where scoring begins ([:s] fitted, [s:] scored), or settings of the run that "
        "switch this off"
    )
    if slices and all(
        part.lower is None and part.upper is not None and ast.unparse(part.upper) in scored for part in slices
    ):
        return None  # fitted to the context, scored after it: #1306
    same = [part for part in slices if part.lower is not None and ast.unparse(part.lower) in scored]
    if same:
        return Finding.of(
            SLOT,
            "fail",
            f"{live.name}() fits parameters to the positions `{ast.unparse(same[0])}` and then scores them",
            evidence,
            clears,
        )
    return Finding.of(
        SLOT,
        "question",
        f"{live.name}() fits parameters to targets in a loop and scores the same targets after it; which "
        "positions "
        "the loss covers cannot be read",
        evidence,
        clears,
    )


def parameters(node: ast.AST) -> set[str]:
    """The names of a function's parameters."""
    if not isinstance(node, ast.FunctionDef):
        return set()
    return {argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


def argument(program: Program, live: Live, count: ast.expr | None) -> object:
    """The number that callers pass for the parameter `count`, or its default."""
    if not isinstance(count, ast.Name) or not isinstance(live.node, ast.FunctionDef):
        return UNKNOWN
    order = order_of(live)
    if count.id not in order:
        return UNKNOWN
    defaults = dict(zip(reversed(order), reversed(live.node.args.defaults), strict=False))
    given = [
        fold(arguments(call, live).get(count.id, defaults.get(count.id)), program.settings)
        for other in program.live
        for call in calls(other.node, live.name)
    ]
    return given[0] if given and all(value == given[0] for value in given) else UNKNOWN


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for part in (node, *own(node)):
        for field in ("body", "orelse"):
            block = getattr(part, field, None)
            if isinstance(block, list):
                yield block


def _losses(node: ast.AST) -> list[ast.Call]:
    return [
        part
        for part in own(node)
        if isinstance(part, ast.Call) and called(part) == "cross_entropy" and len(part.args) > 1
    ]


def _targets(node: ast.AST) -> set[str]:
    return {name for loss in _losses(node) if (name := root(loss.args[1]))}


RULES = (SLOT,)
CHECKS = (fitted_positions,)
