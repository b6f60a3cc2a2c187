"""Find the functions that may run, starting from the program's entry.

Names are followed, not values. A function counts as reached if reachable code mentions its name; a method, if
reachable code reads an attribute of its name and mentions its class other than as a type (#1140 has an
annotation with a cache's class and never creates the cache). So what is left out does not run; what is kept
may run. Names made at run time (`getattr`, `globals()`) and functions that only a decorator passes on are
not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.audit.code.tree import Function, children, walk


class Live(NamedTuple):
    """A function that may run, without its dead branches."""

    file: str
    node: Function | ast.Module
    name: str
    nodes: list[ast.AST]
    """What it runs itself, in source order."""

    @property
    def last_name(self) -> str:
        """The name by which it is called: `forward` of `Model.forward`."""
        return self.name.rsplit(".", 1)[-1]


def _own(node: ast.AST) -> Iterable[ast.AST]:
    """What a module or a function runs itself: without the bodies of what it defines, and without types in
    annotations.
    """
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
    """For each import, the module, then the names that it takes from it."""


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
    """Files by the names under which they are imported."""
    return {file.rsplit("/", 1)[-1].removesuffix(".py"): file for file in files}


def _entries(indices: Mapping[str, _Index]) -> list[str]:
    """Files that are run, not imported: train scripts and an archive's __main__.py, else all such files."""
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
    """The entries and what they import, directly or not; helpers that people run by hand are left out."""
    stems = _stems(indices)
    files, queue = set[str](), _entries(indices)
    while queue:
        file = queue.pop()
        if file not in files:
            files.add(file)
            queue += [
                stems[last]
                for names in indices[file].imports
                for name in names
                if (last := name.rsplit(".", 1)[-1]) in stems
            ]
    return files


def reached(all_trees: Mapping[str, ast.Module]) -> list[Live]:
    """The functions and modules that may run, of the pruned trees of all files."""
    all_indices = {file: _index(tree) for file, tree in all_trees.items()}
    files = _imported(all_indices)
    indices = {file: index for file, index in all_indices.items() if file in files}
    trees = {file: all_trees[file] for file in indices}
    defined: dict[str, list[tuple[str, Function]]] = {}
    classes: dict[str, list[tuple[str, ast.ClassDef]]] = {}
    for file, index in indices.items():
        for function in index.functions:
            defined.setdefault(function.name, []).append((file, function))
        for defined_class in index.classes:
            classes.setdefault(defined_class.name, []).append((file, defined_class))
    stems = _stems(trees)
    live = [Live(file, trees[file], "<module>", list(_own(trees[file]))) for file in _entries(all_indices)]
    seen = {id(item.node) for item in live}
    queue = list(live)
    owner = {
        id(part): defined_class.name
        for index in indices.values()
        for defined_class in index.classes
        for part in defined_class.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    made_of: set[str] = set()
    waiting: dict[str, list[tuple[str, Function, str]]] = {}
    """Methods whose names are read, by their class, which nothing has mentioned yet."""

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
                for file, defined_class in classes.get(name, ()):
                    for part in defined_class.body:
                        if isinstance(part, ast.FunctionDef) and (
                            part.name == "forward" or part.name.startswith("__")
                        ):
                            reach(file, part, f"{name}.{part.name}")
    return live
