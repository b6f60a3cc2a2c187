"""Find the sources that a package's entry point can reach: the static import closure of `package.__main__`.

Imports are found with `ast`; the contestant's code is never imported. Third-party packages are left out: the
image pins them, and the rules do not count them. Imports by a computed name are not found.
"""

from __future__ import annotations

import ast
from pathlib import Path

from harness.base.errors import UsageError


def sources_of(package: Path) -> dict[str, bytes]:
    """The source of every module that the entry point can reach by import statements, by its path.

    Raises UsageError for a file that cannot be parsed, and for an import of a module that the package lacks.
    """
    sources: dict[str, bytes] = {}
    waiting = [package.name, f"{package.name}.__main__"]
    for module in waiting:
        if _module_path(package, module) is None:
            raise UsageError(
                f"{package}: no module {module}", hint="a contestant is a package with an entry point"
            )
    while waiting:
        path = _module_path(package, waiting.pop())
        if path is None:
            continue
        name = path.relative_to(package.parent).as_posix()
        if name in sources:
            continue
        sources[name] = path.read_bytes()
        waiting += _imports(path, sources[name], package)
    return sources


def _module_path(package: Path, module: str) -> Path | None:
    """The file that an import of `module` runs; a package takes precedence over a module, as in Python."""
    base = package.parent.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imports(path: Path, source: bytes, package: Path) -> list[str]:
    """The package's modules that a source imports, with their parent packages."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UsageError(
            f"{path}:{error.lineno}: {error.msg}", hint="only files that parse are bundled"
        ) from error
    modules: list[str] = []
    candidates: list[str] = []  # in `from a import b`, b may be a module or a name inside a
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise UsageError(
                    f"{path}:{node.lineno}: relative import",
                    hint=f"import it by its full name, from {package.name} on",
                )
            assert node.module is not None
            modules.append(node.module)
            candidates += [f"{node.module}.{alias.name}" for alias in node.names]
    ours = [name for name in modules if name.split(".")[0] == package.name]
    for name in ours:
        if _module_path(package, name) is None:
            raise UsageError(f"{path}: imports {name}, which does not exist", hint="is the file missing?")
    ours += [name for name in candidates if name.split(".")[0] == package.name]
    return [
        ".".join(parts[:end])
        for name in ours
        for parts in [name.split(".")]
        for end in range(1, len(parts) + 1)
    ]
