"""The run folder: every path in it, and the only writers of its JSON. All writes are atomic.

    runs/<submission>/<profile>-<hash12>/
      plan.json verdict.json report.md report.html
      seed-<n>/ run.json events.jsonl {train,pack,score}.log checkpoint/ config.resolved.yaml code.pyz config.yaml
                artifact.bin nats.f32 docs.npz witness.json witness-<look>.npz
                witness-<look><number>.log
        rescored-<k>/ witness.json witness-<look>.npz rescored.json    of `pgolf rescore --witness`
      seed-<n>.earlier-<k>/    what `--again` set aside
Not covered: what the files say (records.py, verdict.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from harness.base.errors import UsageError

MAX_JSON_BYTES = 64 << 20
MAX_ARRAYS_BYTES = 1 << 28
"""Unpacked, of one .npz: ten million documents."""


def write_bytes(path: Path, data: bytes) -> None:
    """The whole file or nothing: written beside its place, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    write_bytes(path, json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """JSON of a file of ours. Raises UsageError when it is missing, too large or damaged."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UsageError(f"{path}: larger than {MAX_JSON_BYTES} bytes", hint="this is no file of a run")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", hint="is this a run folder?"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path}: not valid JSON ({error})", hint="the file was changed by hand or the disk is damaged"
        ) from error


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray[Any, Any], ...]:
    """Arrays of an .npz of ours, which may be anybody's by now: never unpickled, bounded once unpacked.

    Raises UsageError for a file that is damaged, too large or lacks one of them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARRAYS_BYTES:
                raise ValueError(f"unpacks to more than {MAX_ARRAYS_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as stored:
            return tuple(np.asarray(stored[name]) for name in names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"{path}: cannot be read ({error})",
            hint="the file was changed after the run; `pgolf run --again` runs the seed anew",
        ) from error


class SeedFolder:
    """Paths of one seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.events = path / "events.jsonl"
        self.code = path / "code.pyz"
        self.config = path / "config.yaml"
        self.resolved = path / "config.resolved.yaml"
        self.checkpoint = path / "checkpoint"
        self.artifact = path / "artifact.bin"
        self.nats = path / "nats.f32"
        self.documents = path / "docs.npz"
        self.witness = path / "witness.json"

    def log(self, stage: str) -> Path:
        return self.path / f"{stage}.log"

    def rescored(self, number: int) -> SeedFolder:
        """Where a later scoring of the same artifact keeps what its witnesses said."""
        folder = SeedFolder(self.path / f"rescored-{number:02}")
        folder.artifact = self.artifact
        return folder

    def responses(self, round_number: int | str) -> Path:
        """What the witnesses of a look said; `<look>-strict` beside lanes."""
        return self.path / f"witness-{round_number}.npz"

    def incoming(self, stage: str) -> Path:
        """Where /out of a stage lands before its parts go to their places."""
        return self.path / f".{stage}.out"


class RunFolder:
    """Paths of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "plan.json"
        self.verdict = path / "verdict.json"
        self.report = path / "report.md"
        self.page = path / "report.html"

    def seed(self, seed: int) -> SeedFolder:
        return SeedFolder(self.path / f"seed-{seed}")

    def earlier(self, seed: int) -> list[Path]:
        """Earlier runs of a seed that were set aside, in no order."""
        return list(self.path.glob(f"seed-{seed}.earlier-*"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps two processes from one folder; the lock dies with its process."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"{self.path}: another process is working in this run folder",
                hint="wait for it, or run another profile or submission",
            ) from None
        try:
            yield
        finally:
            lock.release()
