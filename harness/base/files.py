"""Small file duties of every dataset: hash a file, write one atomically, read one within a bound.

Readers of dataset files never follow links and never read more than they announced, since a dataset folder
may come from anybody. Not covered: a file that somebody changes after it was checked."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.base.errors import MachineFault, UsageError

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
BLOCK_BYTES = 1 << 20


def file_size(path: Path) -> int:
    """Bytes of a regular file; a link, a folder, a device or nothing at all is an error."""
    try:
        status = path.lstat()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be opened ({error.strerror})", hint="is the path right, and readable?"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"{path}: expected a regular file, found something else",
            hint="links, folders and devices are refused: copy the file itself",
        )
    return status.st_size


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The whole file, or an error if it is larger than `limit_bytes`."""
    n_bytes = file_size(path)
    if n_bytes > limit_bytes:
        raise UsageError(
            f"{path}: {n_bytes:,} bytes, expected at most {limit_bytes:,}",
            hint="this does not look like the file that was meant",
        )
    with open(path, "rb") as file:
        return file.read(limit_bytes)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` once it is complete and on disk; on an error nothing is left
    behind."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise MachineFault(
            f"{path}: cannot be written ({error.strerror or error})",
            hint="is the disk full, or the folder read-only?",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write all of `content`, or nothing."""
    with atomic_file(path) as file:
        file.write(content)
