"""Read a folder's program: its settings, and what may run under them.

Pruning and the search for reachable code depend on each other: a setting that reachable code assigns again
has no single value, and a parameter is a constant if all reachable calls pass the same value (#634). So both
are repeated.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.audit.code.prune import Switches, prune
from harness.audit.code.reach import Live, reached
from harness.audit.code.settings import UNKNOWN, Settings, fold, read
from harness.audit.code.tree import Function, parsed

MAX_SOURCE = 2_000_000
"""Characters; larger sources are not parsed."""


class Program(NamedTuple):
    """The part of a folder's sources that may run."""

    live: list[Live]
    sources: Mapping[str, list[str]]
    """Lines by file."""
    unread: dict[str, str]
    """Files that could not be parsed, with the reason."""
    all_names: list[tuple[str, ast.ClassDef | Function]]
    """Every class and top-level function defined, by file."""
    settings: Settings

    def functions(self) -> dict[str, Live]:
        """What may run, by the last part of its name; of several with one name, the last."""
        return {live.last_name: live for live in self.live}


def read_program(sources: Mapping[str, str], readmes: Iterable[str], logs: Iterable[str]) -> Program:
    """The program of a folder: `sources` by file, with `readmes` and `logs` for its settings."""
    trees: dict[str, ast.Module] = {}
    unread: dict[str, str] = {}
    for file, text in sources.items():
        try:
            if len(text) > MAX_SOURCE:
                raise ValueError(f"{len(text):,} characters are more than {MAX_SOURCE:,}")
            trees[file] = parsed(text)
        except SyntaxError as error:
            unread[file] = (
                f"no syntax of Python {sys.version_info[0]}.{sys.version_info[1]}, which reads it here: "
                f"{error}"
            )
        except (ValueError, RecursionError, MemoryError) as error:
            unread[file] = f"{type(error).__name__}: {error}"
    settings = read(trees.values(), readmes, logs)
    names = [
        (file, node)
        for file, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    reassigned: set[str] = set()  # by code that may run; what only dead branches assign keeps its value: #634
    switches: dict[str, dict[str, bool]] = {}
    while True:
        known = Settings(settings.environment, {**settings.attributes, **dict.fromkeys(reassigned, UNKNOWN)})
        live = reached(
            {
                file: tree
                for file, text in sources.items()
                if file in trees and (tree := _pruned(file, text, known, switches, unread)) is not None
            }
        )
        copies = {
            id(node.targets[0])
            for item in live
            for node in item.nodes
            if isinstance(node, ast.Assign) and _copies(node, settings)
        }
        stored = {
            node.attr
            for item in live
            for node in item.nodes
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and id(node) not in copies
        } | {
            name
            for item in live
            for node in item.nodes
            if isinstance(node, ast.Global)
            for name in node.names
        }
        if not stored & settings.attributes.keys() <= reassigned:
            reassigned |= stored & settings.attributes.keys()
            continue
        found = _switches(live)
        if found == switches or switches:
            break
        switches = found
    return Program(live, {file: text.splitlines() for file, text in sources.items()}, unread, names, known)


def _pruned(
    file: str, text: str, settings: Settings, switches: Switches, unread: dict[str, str]
) -> ast.Module | None:
    """The pruned tree of a file; None, and a reason in `unread`, where it is nested too deeply."""
    try:
        return prune(text, settings, switches)
    except RecursionError as error:
        unread[file] = f"RecursionError: {error}"
        return None


def _copies(node: ast.Assign, settings: Settings) -> bool:
    """Whether an assignment such as `self.x = bool(h.x)` only repeats the value that x has anyway (#2039)."""
    match node.targets:
        case [ast.Attribute(attr=name)] if settings.attributes.get(name, UNKNOWN) is not UNKNOWN:
            return bool(fold(node.value, settings) == settings.attributes[name])
    return False


def _switches(live: list[Live]) -> dict[str, dict[str, bool]]:
    """Parameters with a default of True or False that every call which may run gives the same such value
    (#634).
    """
    functions = [item.node for item in live if isinstance(item.node, ast.FunctionDef)]
    switches: dict[str, dict[str, bool]] = {}
    for function in functions:
        parameters = [*function.args.posonlyargs, *function.args.args]
        defaults = dict(
            zip(
                [each.arg for each in parameters][len(parameters) - len(function.args.defaults) :],
                function.args.defaults,
                strict=True,
            )
        )
        wanted = {
            name: default.value
            for name, default in defaults.items()
            if isinstance(default, ast.Constant) and isinstance(default.value, bool)
        }
        if not wanted or sum(other.name == function.name for other in functions) > 1:
            continue
        named = [
            node
            for item in live
            for node in item.nodes
            if function.name in (getattr(node, "id", ""), getattr(node, "attr", ""))
        ]
        made = [
            node
            for item in live
            for node in item.nodes
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == function.name
        ]
        if len(named) != len(made) or any(word.arg is None for call in made for word in call.keywords):
            continue  # passed on as a value, or called with a mapping
        for name, default in wanted.items():
            at = [each.arg for each in parameters].index(name)
            given = [
                next(
                    (word.value for word in call.keywords if word.arg == name),
                    call.args[at] if at < len(call.args) else ast.Constant(default),
                )
                for call in made
            ]
            values = {value.value if isinstance(value, ast.Constant) else None for value in given}
            if (
                len(values) == 1
                and isinstance(value := values.pop(), bool)
                and not any(isinstance(argument, ast.Starred) for call in made for argument in call.args)
            ):
                switches.setdefault(function.name, {})[name] = value
    return switches
