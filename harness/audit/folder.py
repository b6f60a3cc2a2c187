"""Record folders: finding them under a path, and reading one within limits.

Folders are uneven: submission.json or not, train_gpt.py or another name, logs beside it or in logs/, several
configurations in one. What a folder ships that is not read as text is kept by name, since a program may hide
in it. Links, pipes and devices are never opened. Not covered: what the texts say."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from harness.audit.unwrap import archived, unwrapped
from harness.base.errors import UsageError

TEXT = (".py", ".md", ".log", ".txt", ".json", ".sh", ".c", ".cpp", ".cu", ".rs", ".ipynb")
ARCHIVE = (".pyz",)
DATA = (
    ".model",
    ".vocab",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".pdf",
    ".csv",
    ".tsv",
    ".npz",
    ".npy",
    ".yaml",
    ".yml",
    ".toml",
    ".html",
    ".jsonl",
    ".ptz",
    ".pt",
    ".bin",
    ".safetensors",
    ".cfg",
    ".lock",
    ".patch",
    ".diff",
    ".gitignore",
    ".gitkeep",
)
"""Files that are no program; anything else that is not read might be one."""
MAX_FILE = 3_000_000
MAX_FILES = 400
MAX_TOTAL = 48_000_000
"""Bytes of a folder together; the largest public one has a third of that."""
MAX_DEPTH = 12
MAX_ENTRIES = 20_000
"""Names of one directory."""
SIGN = re.compile(r"^(train|seed|run|log)[^/]*\.(log|txt)$|^train[^/]*\.(py|ipynb)$|\.log$", re.I)
CLAIM = re.compile(r"^submission.*\.json$", re.I)
README = re.compile(r"^readme(\.\w+)?$", re.I)
LOGS = re.compile(r"log|seed|^ttt|result|^runs?$|output", re.I)
"""Names of folders inside a record that hold its logs."""
SHELF = re.compile(r"^(records|track_\w+)$")
"""Folders of records, never records."""


class _Listed(NamedTuple):
    folders: list[Path]
    files: list[Path]
    cut: bool


def _listed(folder: Path) -> _Listed:
    """What lies in a directory, by name, links and hidden folders left out; empty where it cannot be read."""
    listed, cut = _Listed([], [], False), False
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    cut = True
                    break
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") and entry.name != "__pycache__":
                        listed.folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    listed.files.append(Path(entry.path))
    except OSError:
        pass
    return _Listed(sorted(listed.folders), sorted(listed.files), cut)


def folders(path: Path) -> list[Path]:
    """The record folders under `path`, or itself where it is one. Raises UsageError where there are none."""
    if not path.is_dir():
        raise UsageError(
            f"{path}: no such folder", hint="a record folder, or a checkout of the challenge's repository"
        )
    found = _found(path / "records" if (path / "records").is_dir() else path, 0)
    if not found:
        raise UsageError(
            f"{path}: no record folder in it",
            hint="one holds submission.json, a train script, a log or a README",
        )
    return found


def _found(folder: Path, depth: int) -> list[Path]:
    """Records in the order of their names. A folder with a README alone is one where nothing below speaks for
    itself."""
    listed = _listed(folder)
    names = [file.name for file in listed.files]
    shelf = bool(SHELF.match(folder.name))
    if not shelf and any(CLAIM.match(name) or SIGN.search(name) for name in names):
        return [folder]
    below = (
        [record for inner in listed.folders for record in _found(inner, depth + 1)]
        if depth < MAX_DEPTH
        else []
    )
    if shelf:
        return below
    described = any(README.match(name) for name in names)
    if described and not any(_speaks(record) for record in below):
        return [folder]
    if below and all(
        record.parent == folder and LOGS.search(record.name) and not _speaks(record) for record in below
    ):
        return [folder]
    return below


def _speaks(record: Path) -> bool:
    """Whether a folder has a README or a submission.json of its own."""
    return any(CLAIM.match(file.name) or README.match(file.name) for file in _listed(record).files)


class Held(NamedTuple):
    """What was read of a folder."""

    raw: dict[str, bytes]
    """By path inside the folder, as far as it was read."""
    cut: dict[str, str]
    """Paths of what was not read whole, with the reason."""
    left: list[str]
    """Paths of files that are neither text nor known data."""

    def digest(self) -> str:
        """sha256 (hex) of everything that an audit can depend on."""
        digest = hashlib.sha256()
        for part in (*self.raw, "", *(word for pair in self.cut.items() for word in pair), "", *self.left):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "little") + data)
        for data in self.raw.values():
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def hold(folder: Path) -> Held:
    """Texts and runnable archives of a folder: MAX_FILE bytes of each, MAX_FILES of them, MAX_TOTAL bytes
    together."""
    held, total = Held({}, {}, []), 0
    waiting = [(folder, 0)]
    while waiting:
        top, depth = waiting.pop()
        listed = _listed(top)
        inside = "" if top == folder else top.relative_to(folder).as_posix() + "/"
        if listed.cut:
            held.cut[inside or "."] = f"only {MAX_ENTRIES:,} of its names were read"
        if depth >= MAX_DEPTH and listed.folders:
            held.cut[inside] = f"folders more than {MAX_DEPTH} deep were not read"
        else:
            waiting += [(below, depth + 1) for below in reversed(listed.folders)]
        for file in listed.files:
            name = inside + file.name
            if not file.name.lower().endswith(TEXT + ARCHIVE):
                if not file.name.lower().endswith(DATA) and len(held.left) < MAX_FILES:
                    held.left.append(name)
                continue
            if len(held.raw) >= MAX_FILES:
                held.cut[name] = f"it and what follows it are beyond the first {MAX_FILES} files"
                return held
            data = _data(file, MAX_FILE + 1)
            if data is None:
                held.cut[name] = "it cannot be opened"
                continue
            if total + min(len(data), MAX_FILE) > MAX_TOTAL:
                held.cut[name] = f"it and what follows it are beyond the first {MAX_TOTAL:,} bytes"
                return held
            if len(data) > MAX_FILE:
                held.cut[name] = f"only its first {MAX_FILE:,} bytes were read"
            held.raw[name] = data[:MAX_FILE]
            total += len(held.raw[name])
    return held


def _data(file: Path, n_bytes: int) -> bytes | None:
    """The file's first bytes; opened so that neither a link nor a pipe put there meanwhile is followed or
    waited for."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read(n_bytes)
    except OSError:
        return None


class Read(NamedTuple):
    """The texts of a folder, packed sources beside their wrappers as `x.py!1.py`."""

    texts: dict[str, str]
    cut: dict[str, str]
    left: list[str]


def read(folder: Path) -> Read:
    """The texts of a folder, as far as the limits of `hold` let them be read."""
    return opened(hold(folder))


def opened(held: Held) -> Read:
    """Decodes what was held and unpacks what is packed in it."""
    found = Read({}, dict(held.cut), held.left)
    for name, data in held.raw.items():
        if name.lower().endswith(ARCHIVE):
            try:
                found.texts.update((f"{name}!{member}", text) for member, text in archived(data))
            except ValueError as error:
                found.cut.setdefault(name, str(error))
            continue
        found.texts[name] = data.decode("utf-8", "replace")
        if name.endswith(".py"):
            for number, packed in enumerate(unwrapped(found.texts[name]), 1):
                if packed.text is None:
                    found.cut[f"{name}!{number}.py"] = packed.reason
                else:
                    found.texts[f"{name}!{number}.py"] = packed.text
    return found
