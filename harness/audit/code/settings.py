"""Find the settings under which a submission ran, and evaluate conditions under them.

A setting is a default that the script reads from the environment (`os.environ.get("TTT_ENABLED", "0")`),
overridden by the run command of the README (`TTT_ENABLED=1 torchrun ...`) and by the hyper-parameters that
the log prints (`ttt_enabled: True`). A setting is unknown where two sources of one kind disagree: nothing is
switched off by guessing. Files of settings and arithmetic beyond comparison are not evaluated; `program.py`
follows arguments of functions that are switches.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Unknown:
    """The value of an expression that cannot be evaluated."""


UNKNOWN = Unknown()
COMMAND = re.compile(r"(?:^|[\s`])([A-Z][A-Z0-9_]{2,60})=(['\"]?)([\w.+-]{1,60})\2(?=[\s\\`]|$)", re.M)
STORED_TEXT = re.compile(
    r"(?:^|[\s`])([A-Z0-9_]*(?:PREFIX|BLOB|PAID|MEMO|ANSWER|KNOWN)[A-Z0-9_]*)="
    r"(['\"]?)([\w./~$+-]{1,200})\2(?=[\s\\`]|$)",
    re.M,
)
"""As COMMAND, with paths as values. Other paths, as of a checkpoint to evaluate, may be of other runs."""
PRINTED = re.compile(r"^\s{0,8}([a-z][a-z0-9_]{2,60}): (True|False|-?\d[\d.e+-]{0,20})$", re.M)
PRINTED_LIMIT = 60_000
"""Characters of a log that are searched for hyper-parameters."""
COMPARE_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
"""Comparisons of two single values."""
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    **COMPARE_ORDER,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
CAST: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "str": str}
LAUNCHER = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
"""Variables that the launcher sets: the script's defaults are not what ran (#1846 stops unless WORLD_SIZE
is 8)."""
METHODS = ("lower", "upper", "strip")


class Settings(NamedTuple):
    """Values by name; UNKNOWN where sources disagree."""

    environment: Mapping[str, Any]
    """By the name of the variable; values are text."""
    attributes: Mapping[str, Any]
    """By the name of the attribute or module variable."""


def agreed(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """One value for each name; UNKNOWN where the pairs disagree."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        values[name] = value if values.get(name, value) == value else UNKNOWN
    return values


def read(trees: Iterable[ast.Module], readmes: Iterable[str], logs: Iterable[str]) -> Settings:
    """The settings of a folder: defaults of the script, overridden by run commands, then by what logs
    print.
    """
    readmes = list(readmes)
    environment = agreed(
        (found[0], found[2])
        for command in (COMMAND, STORED_TEXT)
        for text in readmes
        for found in command.findall(text)
    )
    printed = agreed(
        (name, _literal(value)) for text in logs for name, value in PRINTED.findall(text[:PRINTED_LIMIT])
    )
    empty = Settings(environment, {})
    assigned: list[tuple[str, Any]] = []
    for tree in trees:
        holders = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
        for statement in (statement for body in holders for statement in body):
            targets = (
                statement.targets
                if isinstance(statement, ast.Assign)
                else ([statement.target] if isinstance(statement, ast.AnnAssign) and statement.value else [])
            )
            value = getattr(statement, "value", None)
            assigned += [
                (target.id, fold(value, empty))
                for target in targets
                if isinstance(target, ast.Name) and value
            ]
    return Settings(environment, {**agreed(assigned), **printed})


def _literal(text: str) -> Any:
    return (
        {"True": True, "False": False}[text]
        if text in ("True", "False")
        else float(text)
        if _number(text)
        else UNKNOWN
    )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def fold(node: ast.AST | None, settings: Settings) -> Any:
    """The value of an expression under `settings`, or UNKNOWN. Runs nothing of the script."""
    try:
        return _fold(node, settings)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return UNKNOWN


def _fold(node: ast.AST | None, settings: Settings) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return settings.attributes.get(name, UNKNOWN)
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            values = [_fold(element, settings) for element in elements]
            return UNKNOWN if any(value is UNKNOWN for value in values) else tuple(values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = _fold(operand, settings)
            return UNKNOWN if value is UNKNOWN else not value
        case ast.BoolOp(op=op, values=operands):
            stop = isinstance(op, ast.Or)
            values = [_fold(operand, settings) for operand in operands]
            if any(value is not UNKNOWN and bool(value) == stop for value in values):
                return stop
            return UNKNOWN if any(value is UNKNOWN for value in values) else not stop
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            first, second = _fold(left, settings), _fold(right, settings)
            return UNKNOWN if first is UNKNOWN or second is UNKNOWN else COMPARE[type(op)](first, second)
        case ast.Call():
            return _fold_call(node, settings)
    return UNKNOWN


def _fold_call(node: ast.Call, settings: Settings) -> Any:
    name = (
        node.func.attr
        if isinstance(node.func, ast.Attribute)
        else node.func.id
        if isinstance(node.func, ast.Name)
        else ""
    )
    source = ast.unparse(node.func)
    first = node.args[0] if node.args else None
    if (
        isinstance(first, ast.Constant)
        and isinstance(first.value, str)
        and (
            source in ("os.environ.get", "os.getenv", "environ.get")
            or ("env" in name.lower() and len(node.args) > 1)
        )
    ):
        if first.value in LAUNCHER:
            return UNKNOWN
        default = _fold(node.args[1], settings) if len(node.args) > 1 else None
        given = settings.environment.get(first.value, default)
        # the script reads it by a helper that casts to the type of the default
        if isinstance(given, str) and isinstance(default, bool | int | float):
            return given.lower() in ("1", "true", "yes", "on") if isinstance(default, bool) else float(given)
        return given
    if name == "getattr" and len(node.args) == 3 and isinstance(node.args[1], ast.Constant):
        return settings.attributes.get(str(node.args[1].value), UNKNOWN)
    if source in CAST and len(node.args) == 1:
        value = _fold(first, settings)
        return UNKNOWN if value is UNKNOWN else CAST[source](value)
    if name in METHODS and isinstance(node.func, ast.Attribute) and not node.args:
        value = _fold(node.func.value, settings)
        return getattr(value, name)() if isinstance(value, str) else UNKNOWN
    return UNKNOWN
