"""Find record folders under a path, and read one within limits.

Folders differ: with or without submission.json, train_gpt.py or another name, logs beside it or in logs/,
several configurations in one. Files that are not read as text are listed by name, since a program may hide in
them. Links, pipes, sockets and devices are never opened; one with the name of a text is listed as not read.
"""

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
"""Files that are not programs; any other file that is not read might be one."""
MAX_FILE = 3_000_000
MAX_FILES = 400
MAX_TOTAL = 48_000_000
"""Bytes of a folder; the largest public one has a third of that."""
MAX_DEPTH = 12
MAX_ENTRIES = 20_000
"""Names of one directory."""
SIGN = re.compile(r"^(train|seed|run|log)[^/]*\.(log|txt)$|^train[^/]*\.(py|ipynb)$|\.log$", re.I)
CLAIM = re.compile(r"^submission.*\.json$", re.I)
README = re.compile(r"^readme(\.\w+)?$", re.I)
LOGS = re.compile(r"log|seed|^ttt|result|^runs?$|output", re.I)
"""Names of folders inside a record that hold its logs."""
SHELF = re.compile(r"^(records|track_\w+)$")
"""Folders that hold records and are never records themselves."""


class _Listing(NamedTuple):
    folders: list[Path]
    files: list[Path]
    others: list[Path]
    """Links, pipes, sockets and devices."""
    incomplete: bool


def _list(folder: Path) -> _Listing:
    """The entries of a directory by name, without hidden folders; empty where it cannot be read."""
    folders: list[Path] = []
    files: list[Path] = []
    others: list[Path] = []
    incomplete = False
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    incomplete = True
                    break
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") and entry.name != "__pycache__":
                        folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    files.append(Path(entry.path))
                else:
                    others.append(Path(entry.path))
    except OSError:
        pass
    return _Listing(sorted(folders), sorted(files), sorted(others), incomplete)


def folders(path: Path) -> list[Path]:
    """The record folders under `path`, or `path` where it is one. Raises UsageError where there are none."""
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
    """The records in `folder`, by name.

    A folder with only a README is a record if no folder below it has its own README or submission.json.
    """
    listed = _list(folder)
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
    if described and not any(_is_described(record) for record in below):
        return [folder]
    if below and all(
        record.parent == folder and LOGS.search(record.name) and not _is_described(record) for record in below
    ):
        return [folder]
    return below


def _is_described(record: Path) -> bool:
    """Whether a folder has a README or a submission.json of its own."""
    return any(CLAIM.match(file.name) or README.match(file.name) for file in _list(record).files)


class RawFolder(NamedTuple):
    """The bytes that were read of a folder."""

    data: dict[str, bytes]
    """By path inside the folder, as far as it was read."""
    incomplete: dict[str, str]
    """The paths that were not read completely, with the reasons."""
    unrecognised: list[str]
    """The paths of files and links that are neither text nor known data."""

    def digest(self) -> str:
        """sha256 (hex) of all fields."""
        digest = hashlib.sha256()
        for part in (
            *self.data,
            "",
            *(text for pair in self.incomplete.items() for text in pair),
            "",
            *self.unrecognised,
        ):
            encoded = part.encode("utf-8", "surrogateescape")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        for data in self.data.values():
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def read_raw(folder: Path) -> RawFolder:
    """Read the texts and archives of a folder: MAX_FILE bytes of each, MAX_FILES files, MAX_TOTAL bytes."""
    raw, total, n_files = RawFolder({}, {}, []), 0, 0
    waiting = [(folder, 0)]
    while waiting:
        top, depth = waiting.pop()
        listed = _list(top)
        inside = "" if top == folder else top.relative_to(folder).as_posix() + "/"
        if listed.incomplete:
            raw.incomplete[inside or "."] = f"only {MAX_ENTRIES:,} of its names were read"
        if depth >= MAX_DEPTH and listed.folders:
            raw.incomplete[inside] = f"folders more than {MAX_DEPTH} deep were not read"
        else:
            waiting += [(below, depth + 1) for below in reversed(listed.folders)]
        for file in sorted(listed.files + listed.others):
            name = inside + file.name
            if not file.name.lower().endswith(TEXT + ARCHIVE):
                if not file.name.lower().endswith(DATA) and len(raw.unrecognised) < MAX_FILES:
                    raw.unrecognised.append(name)
                continue
            if n_files >= MAX_FILES:
                raw.incomplete[name] = f"it and what follows it are beyond the first {MAX_FILES} files"
                return raw
            n_files += 1
            if file in listed.others:
                raw.incomplete[name] = "no regular file: links, pipes, sockets and devices are not opened"
                continue
            data = _data(file, MAX_FILE + 1)
            if data is None:
                raw.incomplete[name] = "it cannot be opened"
                continue
            if total + min(len(data), MAX_FILE) > MAX_TOTAL:
                raw.incomplete[name] = f"it and what follows it are beyond the first {MAX_TOTAL:,} bytes"
                return raw
            if len(data) > MAX_FILE:
                raw.incomplete[name] = f"only its first {MAX_FILE:,} bytes were read"
            raw.data[name] = data[:MAX_FILE]
            total += len(raw.data[name])
    return raw


def _data(file: Path, n_bytes: int) -> bytes | None:
    """The file's first bytes; None where it cannot be opened.

    Should a link or a pipe have replaced the file, opening it neither follows nor waits.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read(n_bytes)
    except OSError:
        return None


class Contents(NamedTuple):
    """The texts of a folder, with packed sources beside their wrappers as `x.py!1.py`."""

    texts: dict[str, str]
    incomplete: dict[str, str]
    unrecognised: list[str]


def read(folder: Path) -> Contents:
    """The texts of a folder within the limits of `read_raw`."""
    return unpack(read_raw(folder))


def unpack(raw: RawFolder) -> Contents:
    """Decode the texts of a folder and unpack the sources that are packed in them."""
    found = Contents({}, dict(raw.incomplete), raw.unrecognised)
    for name, data in raw.data.items():
        if name.lower().endswith(ARCHIVE):
            try:
                found.texts.update((f"{name}!{member}", text) for member, text in archived(data))
            except ValueError as error:
                found.incomplete.setdefault(name, str(error))
            continue
        found.texts[name] = data.decode("utf-8", "replace")
        if name.endswith(".py"):
            for number, packed in enumerate(unwrapped(found.texts[name]), 1):
                if packed.text is None:
                    found.incomplete[f"{name}!{number}.py"] = packed.reason
                else:
                    found.texts[f"{name}!{number}.py"] = packed.text
    return found
