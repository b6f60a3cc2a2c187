"""Build code.pyz, the contestant's code: the bytes that are counted are the bytes that run in every stage.

It holds the static import closure of the contestant's package from its entry point, with verbatim sources.
Training code and comments count too (public records counted a minified copy of what they shipped:
docs/rules.md). Imports are found with `ast`; the contestant's code is never imported. Third-party packages
are left out: the image pins them, and the rules do not count them.
"""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import UsageError

ENTRY = 'from {}.__main__ import main\n\nif __name__ == "__main__":\n    raise SystemExit(main())\n'
EPOCH = (1980, 1, 1, 0, 0, 0)
MAX_SOURCE_BYTES = 64 << 20


class Bundle(NamedTuple):
    """The archive's bytes, and a digest of its contents that does not depend on the compressor's version."""

    pyz: bytes
    sha256: str
    modules: tuple[str, ...]


def build(package: Path) -> Bundle:
    """The bundle of the package in the folder `package`, whose name is the import name.

    Raises UsageError for a file that cannot be parsed, and for an import of a module that the package lacks.
    """
    sources = _closure(package)
    content = {**sources, "__main__.py": ENTRY.format(package.name).encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in sorted(content.items()):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, text)
    return Bundle(buffer.getvalue(), _digest(content), tuple(sorted(sources)))


def digest_of(pyz: Path) -> str:
    """The content digest of a bundle on disk. Raises UsageError for a damaged or oversized file."""
    try:
        with zipfile.ZipFile(pyz) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_SOURCE_BYTES:
                raise UsageError(
                    f"{pyz}: unpacks to more than {MAX_SOURCE_BYTES} bytes", hint="this is no code bundle"
                )
            return _digest({info.filename: archive.read(info) for info in archive.infolist()})
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, zlib.error) as error:
        raise UsageError(
            f"{pyz}: not a code bundle ({error})", hint="the file was changed or damaged"
        ) from error


def _digest(content: dict[str, bytes]) -> str:
    """sha256 (hex) of names and sources, in the order of names."""
    digest = hashlib.sha256()
    for name, text in sorted(content.items()):
        digest.update(
            len(name).to_bytes(4, "little") + name.encode() + len(text).to_bytes(8, "little") + text
        )
    return digest.hexdigest()


def _closure(package: Path) -> dict[str, bytes]:
    """The source of every module that the entry point can reach by import statements, by archive name."""
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
