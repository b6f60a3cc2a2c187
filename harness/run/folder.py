"""Every path of a run folder.

    runs/<submission>/latest -> <profile>-<hash12>    run/find_runs.py
    runs/<submission>/<profile>-<hash12>/
      plan.json verdict.json report.md report.html
      seed-<n>/
        run.json events.jsonl {train,pack,score}.log
        checkpoint/ config.resolved.yaml code.pyz config.yaml artifact.bin nats.f32 docs.npz
        witness.json witness-<round>.npz witness-<round><number>.log
        rescored-<k>/ witness.json witness-<round>.npz rescored.json    written by `pgolf rescore --witness`
      seed-<n>.earlier-<k>/    what `--again` archived

See run/records.py for run.json and verdict/decide.py for verdict.json.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from harness.base.errors import UsageError


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
        """Where a rescoring of the same code, recipe and artifact keeps its witnesses' responses."""
        folder = SeedFolder(self.path / f"rescored-{number:02}")
        folder.code, folder.config, folder.artifact = self.code, self.config, self.artifact
        return folder

    def responses(self, round_name: int | str) -> Path:
        """What the witnesses of a round answered; `<round>-strict` for strict prefixes beside batches."""
        return self.path / f"witness-{round_name}.npz"

    def incoming(self, stage: str) -> Path:
        """Where a stage's /out is copied before its parts are moved to their places."""
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

    def seeds(self) -> list[int]:
        """The seeds that have a folder here, in ascending order."""
        found = (path.name.removeprefix("seed-") for path in self.path.glob("seed-*"))
        return sorted(int(number) for number in found if number.isdecimal() and number.isascii())

    def archived(self, seed: int) -> list[Path]:
        """Archived earlier runs of a seed, oldest first."""
        found = self.path.glob(f"seed-{seed}.earlier-*")
        numbered = [(path.name.rpartition("-")[2], path) for path in found]
        return [
            path for _, path in sorted((int(number), path) for number, path in numbered if number.isdigit())
        ]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder. The lock ends with this process. Raises UsageError if it is
        taken.
        """
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
