"""Every path of a run folder.

    runs/<submission>/latest -> <profile>-<hash12>    run/find_runs.py
    runs/<submission>/<profile>-<hash12>/
      plan.json verdict.json report.md report.html
      seed-<n>/
        run.json events.jsonl {train,pack,score}.log
        checkpoint/ config.resolved.yaml code.pyz source.zip config.yaml artifact.bin nats.f32 docs.npz
        witness.json witness-<round>.npz witness-<round><number>.log
        rescored-<k>/ witness.json witness-<round>.npz rescored.json    written by `pgolf rescore --witness`
      seed-<n>.earlier-<k>/    what `--again` archived

A process that writes there holds the folder's lock (`locked`). One that only reads needs no lock: every file
but logs and events.jsonl appears complete.

See run/records.py for run.json and verdict/decide.py for verdict.json.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import filelock

from harness.base.errors import UsageError
from harness.base.lock import file_lock, lock_fault

SEED_NAME = re.compile(r"seed-(?P<seed>0|[1-9][0-9]{0,9})(\.earlier-(?P<earlier>[1-9][0-9]{0,5}))?")
"""The name of a seed's folder, or of an earlier run of the seed."""


RESCORED_NAME = re.compile(r"rescored-(?P<number>[0-9]{2,6})")


class SeedFolder:
    """Paths of one seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.events = path / "events.jsonl"
        self.code = path / "code.pyz"
        self.source = path / "source.zip"
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
        return self.writing_to(self.path / f"rescored-{number:02}")

    def writing_to(self, path: Path) -> SeedFolder:
        """The same code, recipe and artifact; everything else in `path`."""
        folder = SeedFolder(path)
        folder.code, folder.source, folder.config = self.code, self.source, self.config
        folder.artifact = self.artifact
        return folder

    def rescorings(self) -> list[Path]:
        """The folders of earlier rescorings with a witness, oldest first."""
        found = ((RESCORED_NAME.fullmatch(path.name), path) for path in self.path.glob("rescored-*"))
        return [path for _, path in sorted((int(match["number"]), path) for match, path in found if match)]

    def responses(self, round_name: int | str) -> Path:
        """What the witnesses of a round answered; `<round>-strict` for strict prefixes beside batches."""
        return self.path / f"witness-{round_name}.npz"

    def incoming(self, stage: str) -> Path:
        """Where a stage's /out is copied before its parts are moved to their places."""
        return self.path / f".{stage}.out"


class FolderInUse(UsageError):
    """Another process holds the lock of a run folder."""


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
        """The seeds that have a folder here, or that `--again` archived, in ascending order."""
        found = (SEED_NAME.fullmatch(path.name) for path in self.path.glob("seed-*"))
        return sorted({int(match["seed"]) for match in found if match})

    def archived(self, seed: int) -> list[Path]:
        """Archived earlier runs of a seed, oldest first."""
        found = ((SEED_NAME.fullmatch(path.name), path) for path in self.path.glob(f"seed-{seed}.earlier-*"))
        return [path for _, path in sorted((int(match["earlier"]), path) for match, path in found if match)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes that write out of the folder. The lock ends with this process.

        Raises FolderInUse if it is taken, and MachineFault where this user may not write here or the disk is
        mounted read-only.
        """
        lock = file_lock(self.path / ".lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise FolderInUse(
                f"{self.path}: another process is working in this run folder",
                hint="wait for it, or run another profile or submission",
            ) from None
        except OSError as error:
            raise lock_fault(error, self.path / ".lock", "the run folder cannot be written") from error
        try:
            yield
        finally:
            lock.release()
