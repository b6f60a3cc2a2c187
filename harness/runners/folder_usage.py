"""Measure a folder that a contestant may change meanwhile, and compare it with its limits (local runner).

Folders are opened one inside the other, by descriptors, so paths of any length can be measured. What is
removed or replaced while it is measured counts as gone; everything else still counts.
Not covered: a file that was removed while a process has it open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import Violation

PAGE_BYTES = 4096
"""What the folders of a container (tmpfs) are counted in."""


class FolderLimits(NamedTuple):
    """What one folder of a contestant may hold."""

    name: str
    """As messages name it, such as `HOME of stage train`."""
    n_bytes: int
    n_files: int
    """Files and folders."""
    depth: int
    """Levels of folders."""
    size: Callable[[os.stat_result], int]
    """The bytes of a file that count."""
    hint: str


def check_folder(folder: Path, limits: FolderLimits) -> None:
    """Raises Violation `output` if a folder exceeds one of its limits or cannot be measured."""
    n_bytes = n_files = 0
    linked = set[tuple[int, int]]()
    """Files of several names that were counted: they take their room once."""
    try:
        for depth, status in _walk(folder, None, 1):
            n_files += 1
            if n_files > limits.n_files or depth > limits.depth:
                most = f"{limits.n_files:,} files or {limits.depth} levels of folders"
                raise _violation(f"{limits.name} holds more than {most}", limits)
            inode = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode) and inode not in linked:
                n_bytes += limits.size(status)
                linked |= {inode} if status.st_nlink > 1 else set()
    except PermissionError as error:
        raise _violation(
            f"{limits.name} cannot be measured: it holds a folder that cannot be read", limits
        ) from error
    if n_bytes > limits.n_bytes:
        raise _violation(f"{n_bytes:,} bytes in {limits.name}, at most {limits.n_bytes:,}", limits)


def _violation(message: str, limits: FolderLimits) -> Violation:
    return Violation("output", message, limit=True, hint=limits.hint)


def _walk(path: str | Path, above: int | None, level: int) -> Iterator[tuple[int, os.stat_result]]:
    """The level and status of all that a folder holds. `above`: the open folder in which `path` lies."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield level, status
                if stat.S_ISDIR(status.st_mode):
                    yield from _walk(entry.name, folder, level + 1)
    finally:
        os.close(folder)


def stored_bytes(status: os.stat_result) -> int:
    """The bytes of a file without its holes. A file system may reserve more blocks than a file has bytes."""
    return min(status.st_size, 512 * status.st_blocks)


def stored_pages(status: os.stat_result) -> int:
    """The bytes of a file without its holes, in whole pages as in a container."""
    return whole_pages(stored_bytes(status))


def whole_pages(n_bytes: int) -> int:
    """`n_bytes`, rounded up to whole pages."""
    return -(-n_bytes // PAGE_BYTES) * PAGE_BYTES
