"""Find positions that cost nothing because a file that a setting names holds their tokens.

The README of the challenge rules a paid prefix out: validation text in the artifact, left out of the score
(#168, #262, #275). The file's path comes from the environment or the command line, its contents are compared
with the targets, or their number with the position, and the cost is set to zero there. A prefix that is read
as context, with every position scored, is left alone. Contents that are part of the script are not found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.audit.code.contents import (
    PATH,
    PREFIX,
    contents_of,
    file_settings,
    is_set,
    paths_of,
    reads_any_file,
)
from harness.audit.code.flow import (
    COST,
    Binding,
    Loop,
    bindings,
    holds,
    is_cost,
    made_into,
    made_of,
    made_scores,
    names_returned,
    reads,
    start,
)
from harness.audit.code.learning import SUMS, parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.shape import called, names, own, quote, root
from harness.audit.code.tree import walk
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

ZEROES = {"masked_fill", "masked_fill_", "where"}
JOINS = {"cat", "concat", "concatenate", "hstack"}
SIZES = {"getsize", "stat"}
PACKS = {"add", "write", "append", "copy", "copy2", "copyfile"}
BYTES = re.compile(r"\d\s*(bytes|[KM]i?B)\b", re.I)
SIZE = re.compile(r"code|quant|model|zlib|artifact|submission|total", re.I)


PAID_PREFIX = RuleInfo(
    id="paid-prefix",
    title="Positions whose tokens a file holds cost nothing",
    condition=None,
    source="README R4, #262, #275",
    checks="contents of a file that a setting names, compared with targets or positions whose cost is then "
    "zero in a score; `fail` where the file is not counted in the artifact either",
    example="#262: match_mask = prefix_slice == tgt_slice; scored_nll[:n] *= ~match_mask, with "
    "PAID_PREFIX_FILE=prefix.xz",
    not_covered="tokens that are part of the script; what the file holds; a question where the file is "
    "counted, and where only positions are compared",
)


class Free(NamedTuple):
    """Statements that make positions cost nothing."""

    live: Live
    lines: tuple[ast.AST, ...]
    compared: bool
    """Whether the file's tokens are compared with the targets, not only their number with the position."""


def paid_prefix(program: Program, texts: Mapping[str, str]) -> Iterator[Finding]:
    """Report a file named by a setting whose tokens cost nothing where they are scored."""
    settings = file_settings(program)
    settings = {name: node for name, node in settings.items() if is_set(program, name, node, texts)}
    if not settings:
        return
    contents = contents_of(program, set(settings))
    for free in _free(program, contents):
        counted = _is_counted(program, contents, set(settings)) or _is_told(settings, texts)
        used = {
            name
            for live in program.live
            if reads_any_file(live)
            for name in names(live.node) & settings.keys()
        }
        named = sorted(used or settings, key=lambda name: (not PREFIX.search(name), not PATH.search(name)))
        read = [(live, part) for live in program.live for part in live.nodes if part is settings[named[0]]]
        yield Finding.of(
            PAID_PREFIX,
            "fail" if free.compared and not counted else "question",
            f"{free.live.name}() lets positions cost nothing where a file that a setting names "
            + ("holds the target" if free.compared else "reaches")
            + (
                "; the file counts in the artifact's bytes, and the ruling on #275 excludes it"
                if counted
                else ""
            ),
            tuple(line for place in read[:1] for line in quote(program, *place))
            + quote(program, free.live, *free.lines),
            "scores of all positions, or a run without the file",
        )
        return


def _free(program: Program, contents: Mapping[int, set[str]]) -> Iterator[Free]:
    """The statements that set a cost to zero, or leave it out, by what the file holds."""
    for live in program.live:
        held = contents[id(live)]
        if not held:
            continue
        bound = bindings(live.nodes)
        if not any(_costs(part, bound) for part in live.nodes if isinstance(part, ast.Name)):
            continue
        tests = {
            name: compared
            for compared in (False, True)
            for binding in bound
            if _comparison(binding.value, held) is compared
            for name in made_into({binding.name}, [each for each in bound if not is_cost(each.value)])
        }
        tests |= {
            root(part.targets[0]): kind
            for part in live.nodes
            if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Subscript)
            for kind in [_comparison(part.targets[0].slice, held)]
            if kind is not None
        }
        scored = _scored(live, bound)
        for part in live.nodes:
            found = _frees(part, held, tests, bound)
            if found is not None and _freed(live, part, bound) & scored:
                if not found and _is_put_before(live, held):
                    continue
                lines = [each.node for each in bound if each.name in reads(part) and each.name in tests]
                yield Free(live, (*lines, part), found)
                return


def _scored(live: Live, bound: Sequence[Binding]) -> set[str]:
    """The names that a function's scores and results are made of, and what it may change for its caller."""
    return made_of(names_returned(live.nodes), bound) | made_scores(live.nodes, bound) | parameters(live.node)


def _freed(live: Live, part: ast.AST, bound: Sequence[Binding]) -> set[str]:
    """The names of the costs, or of their sums, that a statement lets positions be without."""
    match part:
        case ast.AugAssign(target=target):
            return {root(target)}
        case ast.Assign(targets=targets):
            return {root(target) for target in targets}
        case ast.If(body=body):
            around = [loop for loop in live.nodes if isinstance(loop, Loop) and holds(loop, part)]
            skips = any(isinstance(each, ast.Continue) for each in body)
            inside = own(max(around, key=start)) if skips and around else walk(part)
            return {
                each.name
                for each in bindings(inside)
                if isinstance(each.node, ast.AugAssign | ast.Call) or not skips
            }
    changed = {root(part.func)} if called(part).endswith("_") and isinstance(part, ast.Call) else set()
    return changed | {each.name for each in bound if any(inner is part for inner in walk(each.value))}


def _is_put_before(live: Live, held: set[str]) -> bool:
    """Whether a function puts contents before the text: the freed positions may be those of the contents."""
    return any(
        isinstance(part, ast.Call) and called(part) in JOINS and reads(part) & held for part in live.nodes
    )


def _comparison(node: ast.AST, held: set[str]) -> bool | None:
    """True where contents are compared with something for equality, False where their number is with a
    position, None for anything else.
    """
    found: bool | None = None
    for part in walk(node):
        if not isinstance(part, ast.Compare):
            continue
        sides = [part.left, *part.comparators]
        if not any(reads(side) & held for side in sides) or any(
            isinstance(side, ast.Constant) for side in sides
        ):
            continue
        if isinstance(part.ops[0], ast.Eq | ast.NotEq):
            return True
        if isinstance(part.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE) and PREFIX.search(ast.unparse(part)):
            found = False
    return found


def _frees(part: ast.AST, held: set[str], tests: Mapping[str, bool], bound: Sequence[Binding]) -> bool | None:
    """Whether a statement lets positions cost nothing, and by which comparison; None where it does not."""
    match part:
        case ast.AugAssign(target=target, op=ast.Mult(), value=value) if _costs(target, bound):
            return _by(value, held, tests)
        case ast.Assign(targets=[ast.Subscript() as target], value=ast.Constant(value=0 | 0.0)) if _costs(
            target, bound
        ):
            by = _by(target.slice, held, tests)
            return False if by is None and reads(target.slice) & held else by
        case ast.Assign(value=ast.BinOp(op=ast.Mult(), left=left, right=right)) if _costs(
            left, bound
        ) or _costs(right, bound):
            return _by(right if _costs(left, bound) else left, held, tests)
        case ast.Call(args=[test, *_]) if called(part) in ZEROES and any(
            isinstance(each, ast.Constant) and each.value == 0 for each in part.args
        ):
            return _by(test, held, tests)
        case ast.IfExp(test=test, body=body, orelse=orelse) if any(
            isinstance(each, ast.Constant) and each.value == 0 for each in (body, orelse)
        ):
            return _by(test, held, tests)
        case ast.If(test=test, body=[only]) if isinstance(only, ast.Continue):
            return _by(test, held, tests)
        case ast.If(test=test, body=body) if any(
            isinstance(each, ast.Assign)
            and isinstance(each.value, ast.Constant)
            and each.value.value == 0
            and _costs(each.targets[0], bound)
            for each in body
        ):
            return _by(test, held, tests)
        case ast.If(test=test, body=body, orelse=[]) if any(
            isinstance(inner, ast.AugAssign) and isinstance(inner.op, ast.Add) and _costs(inner.target, bound)
            for each in body
            for inner in walk(each)
        ) and any(
            isinstance(each, ast.Compare) and isinstance(each.ops[0], ast.NotEq | ast.GtE)
            for each in walk(test)
        ):
            return _by(test, held, tests)
    return None


def _costs(node: ast.AST, bound: Sequence[Binding]) -> bool:
    """Whether a place holds the cost of tokens: by its name, or by what it is made of."""
    name = root(node)
    return bool(name) and (
        bool(COST.search(name) or SUMS.search(name) or re.search(r"cost|nats|bits", name))
        or any(is_cost(binding.value) for binding in bound if binding.name == name)
    )


def _by(test: ast.AST, held: set[str], tests: Mapping[str, bool]) -> bool | None:
    """By which comparison a test or a mask decides."""
    direct = _comparison(test, held)
    if direct is not None:
        return direct
    kinds = [tests[name] for name in reads(test) if name in tests]
    return any(kinds) if kinds else None


def _is_counted(program: Program, contents: Mapping[int, set[str]], settings: set[str]) -> bool:
    """Whether a sum of sizes takes in the file."""
    for live in program.live:
        if _pays(live, settings):
            return True
        bound = bindings(live.nodes)
        for part in live.nodes:
            if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
                known = made_of(reads(part), bound)
                everything = (
                    known
                    | {
                        name
                        for binding in bound
                        if binding.name in reads(part)
                        for name in names(binding.value)
                    }
                    | names(part)
                )
                mine = known & contents[id(live)] or everything & settings
                if mine and any(SIZE.search(name) for name in reads(part) | names(part)):
                    return True
    return False


def _pays(live: Live, settings: set[str]) -> bool:
    """Whether a function adds up the size of a file that a setting names, or packs it into an archive."""
    bound = bindings(live.nodes)
    paths = paths_of(bound, settings) | settings
    sizes = [
        part
        for part in live.nodes
        if isinstance(part, ast.Call) and called(part) in SIZES and names(part) & paths
    ]
    known = {each.name for each in bound if any(part in sizes for part in walk(each.value))}
    sums = [
        part
        for part in live.nodes
        if called(part) == "sum"
        or (isinstance(part, ast.BinOp | ast.AugAssign) and isinstance(part.op, ast.Add))
    ]
    return (
        any(part in sizes for each in sums for part in walk(each))
        or any(reads(each) & known for each in sums)
        or any(
            isinstance(part, ast.Call)
            and isinstance(part.func, ast.Attribute)
            and called(part) in PACKS
            and any(names(argument) & paths for argument in part.args)
            for part in live.nodes
        )
    )


def _is_told(settings: Mapping[str, ast.AST], texts: Mapping[str, str]) -> bool:
    """Whether a README gives the bytes of a file that a setting names by default."""
    files = [
        part.value.rsplit("/", 1)[-1]
        for node in settings.values()
        for part in walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and "." in part.value
    ]
    return any(
        file in line and BYTES.search(line)
        for name, text in texts.items()
        if name.lower().endswith(".md")
        for line in text.splitlines()
        for file in files
    )


RULES = (PAID_PREFIX,)
