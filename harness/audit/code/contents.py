"""Follow the contents of a file that a setting names: which settings may, and which variables hold them.

Paths and contents are followed through assignments, calls and returns. What is inside the file is not known.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from harness.audit.code.flow import Binding, bindings, is_cost, made_into, reads, returned, sees
from harness.audit.code.learning import parameters
from harness.audit.code.program import Program
from harness.audit.code.reach import Live
from harness.audit.code.settings import fold
from harness.audit.code.shape import arguments, called, names, root
from harness.audit.code.tree import walk

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
NUMBERS = {"int", "float", "len"}
"""Calls that give one number of a file, which is no contents."""
ROUNDS = 4
"""Calls that a file's contents are followed through."""


def file_settings(program: Program) -> dict[str, ast.AST]:
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


def is_set(program: Program, name: str, node: ast.AST, texts: Mapping[str, str]) -> bool:
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


def contents_of(program: Program, settings: set[str]) -> dict[int, set[str]]:
    """For each function, the names that hold contents of such a file."""
    bound = {id(live): bindings(live.nodes) for live in program.live}
    paths = {id(live): paths_of(bound[id(live)], settings) for live in program.live}
    own_names = {
        id(live): parameters(live.node) | {each.name for each in bound[id(live)]} for live in program.live
    }
    named = any(PREFIX.search(name) and PATH.search(name) for name in settings)
    found = {key: {name for name in mine if named and PAID.search(name)} for key, mine in own_names.items()}
    functions: dict[str, list[Live]] = {}
    for live in program.live:
        functions.setdefault(live.last_name, []).append(live)
    for _ in range(ROUNDS):
        given = {
            live.last_name
            for live in program.live
            if any(_holds(value, found[id(live)], set()) for value in returned(live.nodes))
        }
        before = {key: set(held) for key, held in found.items()}
        for live in program.live:
            key = id(live)
            outer = {name for other in program.live if sees(live, other) for name in found[id(other)]}
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
                found[key] | held, [each for each in bound[key] if not is_cost(each.value)]
            )
            for part in live.nodes:
                if isinstance(part, ast.Call):
                    _hand_on(functions, part, found[key], paths[key] | settings, found, paths)
        if found == before:
            break
    return found


def paths_of(bound: Sequence[Binding], settings: set[str]) -> set[str]:
    """The names of a function that are paths made of a setting."""
    plain = [
        each
        for each in bound
        if all(called(part) in PATHS for part in walk(each.value) if isinstance(part, ast.Call))
    ]
    return made_into({each.name for each in plain if names(each.value) & settings}, plain)


def _reads_file(node: ast.AST, paths: set[str]) -> bool:
    """Whether a value is read from a file with one of these paths, or that a setting names right there."""
    if called(node) in NUMBERS:
        return False
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


def reads_any_file(live: Live) -> bool:
    """Whether a function reads or loads a file."""
    return any(isinstance(part, ast.Call) and READS.match(called(part)) for part in live.nodes)


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
        for name, value in arguments(call, live).items():
            if reads(value) & held:
                contents[id(live)].add(name)
            elif (reads(value) if isinstance(value, ast.Name) else names(value)) & paths:
                all_paths[id(live)].add(name)
