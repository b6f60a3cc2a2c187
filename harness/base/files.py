"""Read files within a bound, hash them, and write them atomically.

`file_size` and `read_bounded` are for dataset folders, which may come from anybody: they follow no links and
read no more than the size that was checked. A file that is changed after the check is not noticed here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.base import disk
from harness.base.errors import UsageError

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
BLOCK_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20
TAIL_BYTES = 256 << 10
MAX_LINE = 2000
PROBE_BYTES = 64 << 10


def file_size(path: Path) -> int:
    """Size of a regular file in bytes. Raises UsageError for a link, a folder, a device or no file."""
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
    """The content of a regular file. Raises UsageError if it is larger than `limit_bytes`."""
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
    """A binary file that appears at `path` when the block ends, complete and flushed to disk.

    On an error the partial file is removed and what was at `path` stays. Creates missing folders. Raises
    MachineFault where the system refuses a write.
    """
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        raise disk.machine_fault(error, path, f"{path}: cannot be written") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Raises MachineFault where PROBE_BYTES cannot be written in `folder`: no permission, or a full disk.

    Creates missing folders.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
            os.fsync(file.fileno())
    except OSError as error:
        raise disk.machine_fault(error, folder) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON, atomically. Raises ValueError for NaN and infinity."""
    write_bytes(path, json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")


def last_lines(path: Path) -> list[str]:
    """The lines of the last TAIL_BYTES of a text file, each cut to MAX_LINE characters; none without a file.

    For logs of strangers: neither many lines nor long ones cost the reader much.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    return [line[:MAX_LINE] for line in text.split("\n")]


def read_json(path: Path) -> Any:
    """The JSON value in a file that the harness wrote.

    A link to a file is followed. Raises UsageError when the file is missing, no regular file, too large or
    damaged.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(
                f"{path}: expected a regular file, found something else",
                hint="the file was changed after the run: restore it",
            )
        if status.st_size > MAX_JSON_BYTES:
            raise UsageError(
                f"{path}: larger than {MAX_JSON_BYTES} bytes", hint="this is not a file of a run"
            )
        with path.open("rb") as file:
            return json.loads(file.read(MAX_JSON_BYTES))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", hint="is this a run folder?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not valid JSON ({error})", hint="the file was changed by hand or the disk is damaged"
        ) from error
