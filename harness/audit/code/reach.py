"""What of a program runs: dead branches are cut by its settings, then what the entry does not reach is left
out.

Names are followed, not values: a function counts as reached where anything that runs mentions its name, a
method where an attribute of its name is read and its class is mentioned too, other than as a type. So what is
left out is not run, and what is kept may still not be. #1458 was accused for code that its settings switch
off; merged records hold disabled SLOT, and #1140 names the class of a cache that it never makes in an
annotation. Not covered: names made at run time (`getattr`, `globals()`), functions that only a decorator
hands on."""

from __future__ import annotations

import ast
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from harness.audit.code.settings import UNKNOWN, Settings, fold, read
from harness.audit.code.tree import children, parsed, walk

Function = ast.FunctionDef | ast.AsyncFunctionDef
LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
LINE = re.compile(r"\r\n|\r|\n")
IF = re.compile(r"\bif\b")
MAX_SOURCE = 2_000_000
"""Characters; larger sources are not parsed."""


class Live(NamedTuple):
    """A function that may run, without its dead branches."""

    file: str
    node: Function | ast.Module
    name: str
    nodes: list[ast.AST]
    """What it runs itself, in the order of the text."""


class Program(NamedTuple):
    """What may run of a folder's sources."""

    live: list[Live]
    sources: Mapping[str, list[str]]
    """Lines by file."""
    unread: dict[str, str]
    """Files that could not be parsed, with the reason."""
    all_names: list[tuple[str, ast.ClassDef | Function]]
    """Every class and top-level function defined, by file."""
    settings: Settings


class _Prune(ast.NodeTransformer):
    """Cuts what the settings switch off."""

    def __init__(self, settings: Settings, passed: Mapping[str, Mapping[str, bool]], text: str) -> None:
        self.settings = settings
        self.passed = passed
        self.ifs = [number for number, line in enumerate(LINE.split(text), 1) if IF.search(line)]
        self.whole = False

    def visit(self, node: ast.AST) -> Any:
        """Expressions without an `if` on their lines hold nothing to cut; inside f-strings lines are not to
        be trusted."""
        if not isinstance(node, ast.expr) or self.whole:
            return super().visit(node)
        at = bisect_left(self.ifs, node.lineno)
        if at == len(self.ifs) or self.ifs[at] > (node.end_lineno or node.lineno):
            return node
        self.whole = isinstance(node, ast.JoinedStr)
        seen = super().visit(node)
        self.whole = False
        return seen

    def local(self, function: Function) -> Settings:
        """Without the names that the function binds itself, except those bound once to something that
        folds."""
        bound: dict[str, list[ast.AST | None]] = {}
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            bound.setdefault(argument.arg, []).append(None)
        stores: Counter[str] = Counter()
        for node in walk(function):
            if (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                bound.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.setdefault(node.id, [])
                stores[node.id] += 1
        local = {
            name: fold(values[0], self.settings)
            if len(values) == 1 and values[0] and stores[name] == 1
            else UNKNOWN
            for name, values in bound.items()
        }
        local |= {
            name: value for name, value in self.passed.get(function.name, {}).items() if stores[name] == 0
        }
        return Settings(self.settings.environment, {**self.settings.attributes, **local})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self.settings = self.settings, self.local(node)
        self.generic_visit(node)
        self.settings = outer
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        value = fold(node.test, self.settings)
        if isinstance(node.test, ast.Compare) and ast.unparse(node.test.left) == "__name__":
            value = True
        if value is UNKNOWN:
            return self.generic_visit(node)
        kept: list[ast.stmt] = []
        for statement in node.body if value else node.orelse:
            seen = self.visit(statement)
            kept += seen if isinstance(seen, list) else [seen]
        return kept or ast.copy_location(ast.Pass(), node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        value = fold(node.test, self.settings)
        return (
            self.generic_visit(node) if value is UNKNOWN else self.visit(node.body if value else node.orelse)
        )

    def visit_For(self, node: ast.For) -> ast.AST:
        match node.iter:
            case ast.Call(func=ast.Name(id="range"), args=[count]) if _none(fold(count, self.settings)):
                return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                ends = next(
                    (at for at, statement in enumerate(body) if isinstance(statement, LEAVES)), len(body)
                )
                setattr(node, field, body[: ends + 1])
        return node


def _none(count: object) -> bool:
    return isinstance(count, int | float) and count <= 0


def understand(sources: Mapping[str, str], readmes: Iterable[str], logs: Iterable[str]) -> Program:
    """The program of a folder: `sources` by file, `readmes` and `logs` for its settings."""
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
    again: set[str] = set()
    passed: dict[str, dict[str, bool]] = {}
    while (
        True
    ):  # what the program sets anew has no one value; what it sets anew in dead branches (#634) keeps it
        known = Settings(settings.environment, {**settings.attributes, **dict.fromkeys(again, UNKNOWN)})
        live = _reached(
            {
                file: tree
                for file, text in sources.items()
                if file in trees and (tree := _pruned(file, text, known, passed, unread)) is not None
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
        if stored & settings.attributes.keys() <= again:
            switches = _switches(live)
            if switches == passed or passed:
                break
            passed = switches
            continue
        again |= stored & settings.attributes.keys()
    return Program(live, {file: text.splitlines() for file, text in sources.items()}, unread, names, known)


def _copies(node: ast.Assign, settings: Settings) -> bool:
    """Whether `self.x = bool(h.x)` only hands on the value that x has anyway (#2039)."""
    match node.targets:
        case [ast.Attribute(attr=name)] if settings.attributes.get(name, UNKNOWN) is not UNKNOWN:
            return bool(fold(node.value, settings) == settings.attributes[name])
    return False


def _switches(live: list[Live]) -> dict[str, dict[str, bool]]:
    """Parameters with a default of True or False that every call that may run gives one and the same such
    value (#634)."""
    functions = [item.node for item in live if isinstance(item.node, ast.FunctionDef)]
    switches: dict[str, dict[str, bool]] = {}
    for function in functions:
        places = [*function.args.posonlyargs, *function.args.args]
        defaults = dict(
            zip(
                [place.arg for place in places][len(places) - len(function.args.defaults) :],
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
            continue  # handed on as a value, or called with a mapping
        for name, default in wanted.items():
            at = [place.arg for place in places].index(name)
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


def _pruned(
    file: str, text: str, settings: Settings, passed: Mapping[str, Mapping[str, bool]], unread: dict[str, str]
) -> ast.Module | None:
    """The tree without its dead branches; None, and a reason in `unread`, where it is too deep."""
    try:
        tree = ast.parse(text)
        _Prune(settings, passed, text).visit(tree)
    except RecursionError as error:
        unread[file] = f"RecursionError: {error}"
        return None
    return tree


def _own(node: ast.AST) -> Iterable[ast.AST]:
    """What a module or a function runs itself: not the bodies of what it defines, and no types of
    annotations."""
    stack = children(node)[::-1]
    while stack:
        child = stack.pop()
        inner: list[ast.AST]
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [
                *child.decorator_list,
                *child.args.defaults,
                *(default for default in child.args.kw_defaults if default),
            ]
        elif isinstance(child, ast.ClassDef):
            inner = [
                *child.decorator_list,
                *child.bases,
                *(
                    part
                    for part in child.body
                    if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                ),
            ]
        elif isinstance(child, ast.AnnAssign):
            yield child
            inner = [child.target, *([child.value] if child.value else [])]
        elif isinstance(child, ast.Call) and getattr(child.func, "id", "") in ("isinstance", "issubclass"):
            yield child
            inner = [child.func, *child.args[:1]]
        else:
            yield child
            inner = children(child)
        stack += inner[::-1]


class _Index(NamedTuple):
    """One walk over a tree."""

    functions: list[Function]
    classes: list[ast.ClassDef]
    imports: list[list[str]]
    """Of each import the module, then the names that are taken from it."""


def _index(tree: ast.Module) -> _Index:
    index = _Index([], [], [])
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            index.functions.append(node)
        elif isinstance(node, ast.ClassDef):
            index.classes.append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            index.imports.append(_imports(node))
    return index


def _imports(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]


def _stems(files: Iterable[str]) -> dict[str, str]:
    """File by the name that an import has for it."""
    return {file.rsplit("/", 1)[-1].removesuffix(".py"): file for file in files}


def _entries(indices: Mapping[str, _Index]) -> list[str]:
    """Files that are run, not imported: train scripts and what starts an archive, else all."""
    stems = _stems(indices)
    imported = {
        stems[name]
        for index in indices.values()
        for names in index.imports
        for name in names
        if name in stems
    }
    left = [file for file in indices if file not in imported]
    return (
        [file for file in left if "train" in file.rsplit("/", 1)[-1] or file.endswith("!__main__.py")]
        or left
        or list(indices)
    )


def _imported(indices: Mapping[str, _Index]) -> set[str]:
    """The entries and what they import, directly or not: helpers that are run by hand beforehand are left
    out."""
    stems = _stems(indices)
    kept, queue = set[str](), _entries(indices)
    while queue:
        file = queue.pop()
        if file not in kept:
            kept.add(file)
            queue += [
                stems[last]
                for names in indices[file].imports
                for name in names
                if (last := name.rsplit(".", 1)[-1]) in stems
            ]
    return kept


def _reached(every: Mapping[str, ast.Module]) -> list[Live]:
    whole = {file: _index(tree) for file, tree in every.items()}
    kept = _imported(whole)
    indices = {file: index for file, index in whole.items() if file in kept}
    trees = {file: every[file] for file in indices}
    defined: dict[str, list[tuple[str, Function]]] = {}
    classes: dict[str, list[tuple[str, ast.ClassDef]]] = {}
    for file, index in indices.items():
        for function in index.functions:
            defined.setdefault(function.name, []).append((file, function))
        for made in index.classes:
            classes.setdefault(made.name, []).append((file, made))
    stems = _stems(trees)
    live = [Live(file, trees[file], "<module>", list(_own(trees[file]))) for file in _entries(whole)]
    seen = {id(item.node) for item in live}
    queue = list(live)
    owner = {
        id(part): made.name
        for index in indices.values()
        for made in index.classes
        for part in made.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    made_of: set[str] = set()
    waiting: dict[str, list[tuple[str, Function, str]]] = {}
    """Methods whose names are read, by the class that nothing has mentioned yet."""

    def reach(file: str, node: Function | ast.Module, name: str) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            live.append(Live(file, node, name, list(_own(node))))
            queue.append(live[-1])

    while queue:
        for node in queue.pop().nodes:
            names: list[str] = []
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names = [node.id]
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names = [node.attr]
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for module in _imports(node):
                    if module in stems:
                        reach(stems[module], trees[stems[module]], "<module>")
            for name in names:
                for file, function in defined.get(name, ()):
                    holder = owner.get(id(function))
                    if holder is None or holder in made_of:
                        reach(file, function, name)
                    else:
                        waiting.setdefault(holder, []).append((file, function, name))
                if name in classes and name not in made_of:
                    made_of.add(name)
                    for file, function, method in waiting.pop(name, ()):
                        reach(file, function, method)
                for file, made in classes.get(name, ()):
                    for part in made.body:
                        if isinstance(part, ast.FunctionDef) and (
                            part.name == "forward" or part.name.startswith("__")
                        ):
                            reach(file, part, f"{name}.{part.name}")
    return live
