"""Find scores in bits per byte that are computed by a constant number of bytes a token.

#1017 V: bytes are counted token by token. `nats / ln 2 / 3.5` states a score to four digits by a ratio with
two. The ratio may stand in the expression, in a variable, a setting, a default or an argument. A program that
counts bytes for a score may use such a constant for its log lines. A ratio that is a known tokenizer's own,
to a fiftieth of a per cent, gives the right score for the whole set; the rules on numbers judge that.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.audit.code.flow import (
    BUILTIN,
    LIBRARY,
    Binding,
    bindings,
    is_score_name,
    made_of,
    names_returned,
    reads,
    returned,
    sees,
    stated_scores,
    values_of_scores,
)
from harness.audit.code.learning import argument, parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import fold
from harness.audit.code.shape import called, names, quote, root
from harness.audit.code.tree import walk
from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.denominator import TOKENIZERS
from harness.verdict.rule_info import RuleInfo

LN2 = re.compile(r"^(_?ln_?2|log_?2e?|ln_?two|bits(_per_tok\w*)?)$", re.I)
LN2_DIGITS = 0.002
"""Relative: `0.693` is ln 2 too."""
BYTES = re.compile(r"byte|_lut$|utf", re.I)
TOKENS = re.compile(r"tok|count|num|len|total|steps|batches|windows|^n\w?$", re.I)
"""What a sum of nats may be divided by to be nats a token."""
MAX_LINES = 3
RATIOS = (1.2, 16.0)
"""Bytes a token that a constant may mean: one byte a token is the truth for models of bytes."""
KNOWN = 2e-4
"""Relative distance from a known tokenizer's ratio within which a constant gives the right score."""
COARSE = 1e-3
"""Relative half unit in the last digit of a constant from which it cannot give a score's four digits."""
MAX_DEPTH = 6
"""Names that a factor is followed through."""


FIXED_BYTES_PER_TOKEN = RuleInfo(
    id="fixed-bytes-per-token",
    title="Bytes per token is a constant",
    condition=None,
    source="#1017 V, #875",
    checks="a score in bits per byte made of nats, ln 2 and a constant, in a program that counts no bytes "
    "for a score; `fail` where the constant has too few digits to be right",
    example="#875: val_bpb = val_loss / (math.log(2) * 3.5)",
    not_covered="constants that are a known tokenizer's ratio (2.436), which the rules on numbers judge; one "
    "with four digits may have been measured and is a question, as is one beside a score of code that is not "
    "in the folder",
)


class Factor(NamedTuple):
    """One factor of a product."""

    node: ast.expr
    inverse: bool
    """Whether the product is divided by it."""


class Constant(NamedTuple):
    """A ratio of bytes to tokens that a score is computed with."""

    bytes_per_token: float
    text: str
    """As the program writes it."""
    error: float
    """Relative: half a unit of its last digit."""
    live: Live
    nodes: tuple[ast.expr, ...]


def fixed_ratio(program: Program) -> Iterator[Finding]:
    """Find a score that is computed by a constant, where no other is computed from bytes that are counted."""
    found = []
    for live in program.live:
        bound: list[Binding] | None = None
        for product in _products(live):
            bound = _visible(program, live) if bound is None else bound
            factors = list(_factors(product, False, bound, 0))
            if not any(_is_ln2(factor.node) for factor in factors):
                continue
            constant = _constant(program, live, factors, bound)
            if constant is None and _may_count(program, live, product, factors, bound):
                return
            if constant is not None and _is_score(program, live, product):
                found.append((live, product, constant))
    for live, product, constant in found[:1]:
        elsewhere = _is_scored_elsewhere(program, [product for _, product, _ in found])
        yield Finding.of(
            FIXED_BYTES_PER_TOKEN,
            "fail" if constant.error >= COARSE and not elsewhere else "question",
            f"{live.name}() computes bits per byte with the constant {constant.text}, "
            f"{constant.bytes_per_token:.4g} bytes for every token, and no score from bytes that are counted"
            + ("; another score is made by code that is not in the folder" if elsewhere else ""),
            tuple(dict.fromkeys((*quote(program, live, product), *_bound_at(program, constant)))),
            "bytes counted token by token for the headline score",
        )


def _is_scored_elsewhere(program: Program, products: Sequence[ast.expr]) -> bool:
    """Whether a stated score is made without these products, by a call of what the program does not hold."""
    mine = program.functions()
    constant = {name for name, live in mine.items() if any(part in products for part in live.nodes)}
    classes = {live.name.split(".", 1)[0] for live in program.live}
    for live in program.live:
        bound = bindings(live.nodes)
        kept = {each.name for each in bound} | parameters(live.node)
        for value in stated_scores(live.nodes):
            made = made_of(reads(value), bound)
            parts = [
                part
                for each in (value, *(each.value for each in bound if each.name in made))
                for part in walk(each)
            ]
            if not any(part in products or called(part) in constant for part in parts) and any(
                isinstance(part, ast.Call)
                and (name := root(part.func))
                and name not in mine.keys() | classes | kept | BUILTIN | LIBRARY
                for part in parts
            ):
                return True
    return False


def _products(live: Live) -> list[ast.BinOp]:
    """The products and quotients of a function that are no factors of another."""
    found = [
        part for part in live.nodes if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div)
    ]
    inner = {id(side) for part in found for side in (part.left, part.right)}
    return [part for part in found if id(part) not in inner]


def _visible(program: Program, live: Live) -> list[Binding]:
    """The bindings of a function, and of those around it for names that it does not bind itself."""
    bound = bindings(live.nodes)
    mine = {binding.name for binding in bound} | parameters(live.node)
    return bound + [
        binding
        for other in program.live
        if sees(live, other) and not isinstance(other.node, ast.Module)
        for binding in bindings(other.nodes)
        if binding.name not in mine
    ]


def _factors(node: ast.expr, inverse: bool, bound: Sequence[Binding], depth: int) -> Iterator[Factor]:
    """The factors of a product; names that are bound once, to a product or a name, are replaced by it."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            yield from _factors(left, inverse, bound, depth)
            yield from _factors(right, inverse ^ isinstance(op, ast.Div), bound, depth)
            return
        case ast.Call(func=ast.Name(id="float"), args=[inner]):
            yield from _factors(inner, inverse, bound, depth)
            return
        case ast.Name(id=name) if depth < MAX_DEPTH:
            values = [binding for binding in bound if binding.name == name]
            if len(values) == 1 and isinstance(values[0].node, ast.Assign | ast.AnnAssign):
                value = values[0].value
                if isinstance(value, ast.BinOp | ast.Name) or _is_ln2(value):
                    yield from _factors(value, inverse, bound, depth + 1)
                    return
    yield Factor(node, inverse)


def _is_ln2(node: ast.expr) -> bool:
    """Whether a factor turns nats into bits, or is in bits already."""
    match node:
        case ast.Constant(value=float() as number):
            return any(abs(number / wanted - 1) < LN2_DIGITS for wanted in (math.log(2), 1 / math.log(2)))
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return bool(LN2.search(name))
        case ast.Call():
            name = called(node)
            texts = [ast.unparse(part) for argument in node.args for part in walk(argument)]
            return name == "log2" or (name == "log" and any(text in ("2", "2.0") for text in texts))
    return False


def _may_count(
    program: Program, live: Live, product: ast.expr, factors: Sequence[Factor], bound: Sequence[Binding]
) -> bool:
    """Whether a product may be a score from bytes that are counted: by a factor's name, or a score with more
    than nats among its factors.
    """
    unknown = [
        factor.node
        for factor in factors
        if not _is_ln2(factor.node) and _value(program, live, factor.node, bound) is None
    ]
    return any(_is_count(program, live, node, bound) for node in unknown) or (
        len(unknown) > 1 and _is_score(program, live, product)
    )


def _is_count(program: Program, live: Live, node: ast.expr, bound: Sequence[Binding]) -> bool:
    """Whether a factor is made of bytes that are counted, and not of a constant with such a name."""
    return any(
        BYTES.search(name) and _value(program, live, ast.Name(name, ast.Load()), bound) is None
        for name in made_of(names(node), bound)
    )


def _constant(
    program: Program, live: Live, factors: Sequence[Factor], bound: Sequence[Binding]
) -> Constant | None:
    """The constant bytes a token among the factors of a score.

    None where there is none, it is a known tokenizer's, or something else than nats and tokens is a factor.
    """
    ratio, error, nodes, texts, costs = 1.0, 0.0, [], [], 0
    for factor in factors:
        if _is_ln2(factor.node):
            continue
        value = _value(program, live, factor.node, bound)
        if value is None:
            if _is_count(program, live, factor.node, bound):
                return None
            if factor.inverse and not TOKENS.search(ast.unparse(factor.node)):
                return None
            costs += not factor.inverse
        elif value not in (0, 1):
            ratio = ratio * value if factor.inverse else ratio / value
            error = max(error, _half_unit(value) / abs(value))
            nodes.append(factor.node)
            texts.append(f"{value:g}")
    known = any(abs(ratio / known - 1) < KNOWN for _, known in TOKENIZERS)
    if not texts or not costs or known or not RATIOS[0] <= ratio <= RATIOS[1]:
        return None
    return Constant(ratio, " and ".join(texts), error, live, tuple(nodes))


def _value(program: Program, live: Live, node: ast.expr, bound: Sequence[Binding]) -> float | None:
    """The number that a factor is: written there, bound once, a setting, a default or an argument."""
    if isinstance(node, ast.Name):
        values = [binding for binding in bound if binding.name == node.id]
        if len(values) > 1:
            return None
        if values:
            alone = isinstance(values[0].node, ast.Assign | ast.AnnAssign)
            value = fold(values[0].value, program.settings) if alone else None
        elif node.id in parameters(live.node):
            value = argument(program, live, node)
        else:
            value = fold(node, program.settings)
    elif isinstance(node, ast.Attribute) and root(node) == "self":
        value = _kept(program, node.attr)
    else:
        value = fold(node, program.settings)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _kept(program: Program, name: str) -> object:
    """The value that an object keeps under a name, where one place alone stores it."""
    stored = [
        part.value
        for live in program.live
        for part in live.nodes
        if isinstance(part, ast.Assign)
        and isinstance(part.targets[0], ast.Attribute)
        and part.targets[0].attr == name
    ]
    return fold(stored[0] if len(stored) == 1 else ast.Name(name, ast.Load()), program.settings)


def _half_unit(value: float) -> float:
    """Half a unit in the last digit of a number as it is written."""
    digits = f"{value:.12g}"
    return 0.5 * 10.0 ** -len(digits.partition(".")[2])


def _bound_at(program: Program, constant: Constant) -> tuple[Evidence, ...]:
    """The lines where the names of a constant are bound."""
    wanted = {name for node in constant.nodes for name in names(node)}
    return tuple(
        line
        for live in program.live
        for part in live.nodes
        if isinstance(part, ast.Assign | ast.AnnAssign)
        and names(getattr(part, "targets", [getattr(part, "target", part)])[0]) & wanted
        and isinstance(part.value, ast.Constant | ast.Call)
        for line in quote(program, live, part)
    )[:MAX_LINES]


def _is_score(program: Program, live: Live, product: ast.expr) -> bool:
    """Whether a product is a score, part of one, or returned by a function whose result is one."""
    if _is_part_of_score(live, product):
        return True
    bound = bindings(live.nodes)
    results = made_of(names_returned(live.nodes), bound)
    given = any(any(part is product for part in walk(value)) for value in returned(live.nodes)) or any(
        binding.name in results and any(part is product for part in walk(binding.value)) for binding in bound
    )
    name = live.last_name
    lambdas = {
        binding.name
        for binding in bound
        if isinstance(binding.value, ast.Lambda) and any(part is product for part in walk(binding.value))
    }
    callers = lambdas | ({name} if given else set())
    return bool(callers) and (
        any(is_score_name(caller) for caller in callers)
        or any(
            isinstance(part, ast.Call) and called(part) in callers and _is_part_of_score(other, part)
            for other in program.live
            for part in other.nodes
        )
    )


def _is_part_of_score(live: Live, node: ast.expr) -> bool:
    """Whether a node is in what a function calls a score, or in a value that such a score is made of."""
    return any(
        part is node
        for value in values_of_scores(live)
        if not isinstance(value, ast.Lambda)
        for part in walk(value)
    )


RULES = (FIXED_BYTES_PER_TOKEN,)
CHECKS = (fixed_ratio,)
