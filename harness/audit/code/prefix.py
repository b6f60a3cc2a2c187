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

from harness.audit.code.flow import COST, Binding, bindings, made_into, made_of, reads
from harness.audit.code.learning import SUMS, parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import fold
from harness.audit.code.shape import called, names, quote, root
from harness.audit.code.tree import walk
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

ENVIRONMENT = re.compile(r"^(str\(|Path\(|pathlib\.Path\()*(os\.)?(environ|getenv)\b|^sys\.argv\[")
"""How an expression begins that reads a setting as it is."""
OTHER_FILES = re.compile(
    r"train|val|data|token|vocab|model|ckpt|checkpoint|weight|resume|init|load|log|out|cache|config|seed|run_id"
    r"|export|save|dir",
    re.I,
)
"""Settings that name the files of every program: text, tokenizer, weights, logs."""
PREFIX = re.compile(r"prefix|paid|blob|memo|answer|stored|known|lookup|covered", re.I)
PATH = re.compile(r"file|path|blob", re.I)
PATHS = {"Path", "join", "str", "expanduser", "abspath", "resolve", "strip", "get", "getenv", "getattr"}
"""Calls that make a path of a path."""
PAID = re.compile(r"paid_?prefix(?!_(file|codec|bytes|path))", re.I)
READS = re.compile(
    r"^(open|read|read_bytes|fromfile|memmap|load|loads|frombuffer|decompress|loadtxt|unpackb?)$"
)
ZEROES = {"masked_fill", "masked_fill_", "where"}
SIZE = re.compile(r"code|quant|model|zlib|artifact|submission|total", re.I)
ROUNDS = 4
"""Calls that a file's contents are followed through."""


PAID_PREFIX = RuleInfo(
    id="paid-prefix",
    title="Positions whose tokens a file holds cost nothing",
    condition=None,
    source="README R4, #262, #275",
    checks="contents of a file that a setting names, compared with targets or positions whose cost is then "
    "zero; `fail` where the file is not counted in the artifact either",
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
    settings = _settings(program)
    settings = {name: node for name, node in settings.items() if _is_set(program, name, node, texts)}
    if not settings:
        return
    contents = _contents(program, set(settings))
    for free in _free(program, contents):
        counted = _is_counted(program, contents, set(settings))
        used = {name for live in program.live if _loads(live) for name in names(live.node) & settings.keys()}
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


def _settings(program: Program) -> dict[str, ast.AST]:
    """The variables and attributes that hold settings which may name such a file, with their assignments."""
    found: dict[str, ast.AST] = {}
    for live in program.live:
        for part in live.nodes:
            value = getattr(part, "value", None)
            if isinstance(part, ast.Assign | ast.AnnAssign) and isinstance(value, ast.expr):
                target = part.targets[0] if isinstance(part, ast.Assign) else part.target
                name = target.attr if isinstance(target, ast.Attribute) else root(target)
                if _names_file(value, name) or _reads_file(value, set()):
                    found[name] = part
            elif called(part) == "add_argument" and isinstance(part, ast.Call) and part.args:
                option = getattr(part.args[0], "value", "")
                if isinstance(option, str) and PREFIX.search(option):
                    found[option.lstrip("-").replace("-", "_")] = part
    return found


def _is_set(program: Program, name: str, node: ast.AST, texts: Mapping[str, str]) -> bool:
    """Whether a setting is not empty: by its default, or where a README or a log names its variable."""
    value = getattr(node, "value", None)
    if not isinstance(value, ast.expr) or fold(value, program.settings) not in ("", None):
        return True
    variables = [
        part.value
        for part in walk(value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value
    ]
    wanted = re.compile("|".join(rf"\b{re.escape(word)}[=:]\s*[\w./~$]" for word in (*variables, name)))
    return any(
        wanted.search(text)
        for file, text in texts.items()
        if file.lower().endswith((".md", ".sh", ".log", ".txt"))
    )


def _contents(program: Program, settings: set[str]) -> dict[int, set[str]]:
    """For each function, the names that hold contents of such a file."""
    bound = {id(live): bindings(live.nodes) for live in program.live}
    paths = {id(live): _paths(bound[id(live)], settings) for live in program.live}
    own_names = {
        id(live): parameters(live.node) | {each.name for each in bound[id(live)]} for live in program.live
    }
    named = any(PREFIX.search(name) and PATH.search(name) for name in settings)
    found = {key: {name for name in own if named and PAID.search(name)} for key, own in own_names.items()}
    functions: dict[str, list[Live]] = {}
    for live in program.live:
        functions.setdefault(live.name.rsplit(".", 1)[-1], []).append(live)
    for _ in range(ROUNDS):
        given = {
            live.name.rsplit(".", 1)[-1]
            for live in program.live
            if any(
                isinstance(part, ast.Return)
                and part.value is not None
                and _holds(part.value, found[id(live)], set())
                for part in live.nodes
            )
        }
        before = {key: set(held) for key, held in found.items()}
        for live in program.live:
            key = id(live)
            outer = {name for other in program.live if _is_around(other, live) for name in found[id(other)]}
            found[key] |= (
                outer & {part.id for part in live.nodes if isinstance(part, ast.Name)} - own_names[key]
            )
            held = {
                binding.name
                for binding in bound[key]
                if _holds(binding.value, found[key], given)
                or _reads_file(binding.value, paths[key] | settings)
            }
            found[key] = made_into(
                found[key] | held, [each for each in bound[key] if not _is_cost(each.value)]
            )
            for part in live.nodes:
                if isinstance(part, ast.Call):
                    _hand_on(functions, part, found[key], paths[key] | settings, found, paths)
        if found == before:
            break
    return found


def _is_around(outer: Live, inner: Live) -> bool:
    """Whether a function sees the variables of another one, or of a module."""
    if isinstance(outer.node, ast.Module):
        return not isinstance(inner.node, ast.Module)
    return (
        outer is not inner
        and outer.file == inner.file
        and not isinstance(inner.node, ast.Module)
        and outer.node.lineno <= inner.node.lineno <= (outer.node.end_lineno or 0)
    )


def _paths(bound: Sequence[Binding], settings: set[str]) -> set[str]:
    """The names of a function that are paths made of a setting."""
    plain = [
        each
        for each in bound
        if all(called(part) in PATHS for part in walk(each.value) if isinstance(part, ast.Call))
    ]
    return made_into({each.name for each in plain if names(each.value) & settings}, plain)


def _reads_file(node: ast.AST, paths: set[str]) -> bool:
    """Whether a value is read from a file with one of these paths, or that a setting names right there."""
    return any(
        isinstance(part, ast.Call)
        and bool(READS.match(called(part)))
        and (bool(names(part) & paths) or any(_names_file(inner, "") for inner in part.args))
        for part in walk(node)
    )


def _names_file(value: ast.expr, name: str) -> bool:
    """Whether a value is a setting as it is, and not one of those that every program has."""
    if not isinstance(value, ast.Call | ast.Subscript):
        return False
    text = ast.unparse(value)
    return bool(ENVIRONMENT.match(text)) and bool(
        PREFIX.search(f"{name} {text}") or not OTHER_FILES.search(name or text)
    )


def _loads(live: Live) -> bool:
    return any(isinstance(part, ast.Call) and READS.match(called(part)) for part in live.nodes)


def _is_cost(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and COST.search(called(part)) for part in walk(node))


def _holds(value: ast.expr, held: set[str], given: set[str]) -> bool:
    """Whether a value is made of contents, or is what a function gives that returns them."""
    return bool(reads(value) & held) or any(called(part) in given for part in walk(value))


def _hand_on(
    functions: Mapping[str, Sequence[Live]],
    call: ast.Call,
    held: set[str],
    paths: set[str],
    contents: dict[int, set[str]],
    all_paths: dict[int, set[str]],
) -> None:
    """Note the parameters of a called function that get contents, or the path of the file."""
    for live in functions.get(called(call), ()):
        if isinstance(live.node, ast.Module):
            continue
        arguments = [argument.arg for argument in (*live.node.args.posonlyargs, *live.node.args.args)]
        given = [
            *zip(arguments, call.args, strict=False),
            *((word.arg, word.value) for word in call.keywords),
        ]
        for name, value in given:
            if name and reads(value) & held:
                contents[id(live)].add(name)
            elif name and (reads(value) if isinstance(value, ast.Name) else names(value)) & paths:
                all_paths[id(live)].add(name)


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
            if (kind := _comparison(binding.value, held)) is compared and kind is not None
            for name in made_into({binding.name}, [each for each in bound if not _is_cost(each.value)])
        }
        tests |= {
            root(part.targets[0]): kind
            for part in live.nodes
            if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Subscript)
            for kind in [_comparison(part.targets[0].slice, held)]
            if kind is not None
        }
        for part in live.nodes:
            found = _frees(part, held, tests, bound)
            if found is not None:
                lines = [each.node for each in bound if each.name in reads(part) and each.name in tests]
                yield Free(live, (*lines, part), found)
                return


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
        or any(_is_cost(binding.value) for binding in bound if binding.name == name)
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


RULES = (PAID_PREFIX,)
