"""run.json: what happened to one seed, attempt by attempt, as measured from outside.

Every attempt of every stage is kept, failed and interrupted ones too: a contestant that crashes when its
score is poor must not be able to hide the attempt. An attempt is written down before it starts, so `kill -9`
leaves it on record as interrupted.
"""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError, Violation
from harness.run.cpu_use import CpuUse

StageName = Literal["train", "pack", "score", "witness"]
STAGES: tuple[StageName, ...] = ("train", "pack", "score")
"""What a score needs; `witness` follows where one is asked, and changes no score."""
Outcome = Literal["done", "failed", "over_limit", "interrupted", "machine"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Attempt(_Record):
    """One attempt at one stage. Seconds are the judge's own."""

    stage: StageName
    outcome: Outcome = "interrupted"
    started_at: str
    setup_seconds: float | None = None
    seconds: float | None = None
    """By the stage's clock; null when it never started or never ended."""
    wall_seconds: float | None = None
    rule: str | None = None
    message: str | None = None
    claims: dict[str, Any] = {}
    """What the contestant says of itself; never evidence."""
    facts: dict[str, Any] = {}
    """Results of the stage as the judge measured them."""
    host: dict[str, Any] = {}
    cpu: CpuUse | None = None
    """Of the stage's clock, of all witnesses together; null in records made before it was measured."""

    def add_cpu_use(self, use: CpuUse) -> None:
        """Add what a clock of this attempt cost."""
        self.cpu = use if self.cpu is None else self.cpu + use

    def fail(self, violation: Violation) -> None:
        """Record what the contestant did wrong."""
        self.outcome = "over_limit" if violation.limit else "failed"
        self.rule, self.message = violation.rule, str(violation)


class SeedRecord(_Record):
    """run.json"""

    schema_version: Literal[1] = 1
    seed: int
    attempts: list[Attempt] = []

    def done(self, stage: StageName) -> Attempt | None:
        """The attempt that finished a stage, if one did."""
        return next((a for a in reversed(self.attempts) if a.stage == stage and a.outcome == "done"), None)

    def cpu_use(self) -> dict[str, CpuUse | None]:
        """Of each stage that was begun: of the attempt that finished it, or else of the last one."""
        last = {attempt.stage: attempt.cpu for attempt in self.attempts}
        return {stage: done.cpu if (done := self.done(stage)) else use for stage, use in last.items()}

    def packed(self) -> Attempt | None:
        """The attempt that left the artifact, also one that is too large."""
        return next((a for a in reversed(self.attempts) if "artifact_bytes" in a.facts), None)

    def attempts_by_stage(self) -> dict[StageName, int]:
        """How often each stage was begun."""
        return dict(Counter(attempt.stage for attempt in self.attempts))

    def left(self, stages: Sequence[StageName]) -> list[StageName]:
        """The stages still to do: none after a violation; after a machine fault the stage is tried again."""
        return [] if self.violation() else [stage for stage in stages if self.done(stage) is None]

    def violation(self) -> Attempt | None:
        return next((a for a in self.attempts if a.outcome in ("failed", "over_limit")), None)

    def outcome(self) -> Literal["scored", "failed", "over_limit", "interrupted", "machine", "missing"]:
        """The seed's outcome as verdict.json reports it; `missing`: never begun in this folder."""
        if self.done("score") is not None:
            return "scored"
        if not self.attempts:
            return "missing"
        last = self.violation() or self.attempts[-1]
        return "interrupted" if last.outcome == "done" else last.outcome


def now() -> str:
    """The time in UTC, for people; durations come from the monotonic clock."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def load(path: Path, seed: int) -> SeedRecord:
    """The seed's record, a new one if there is none. Raises UsageError for a damaged or foreign file."""
    if not path.exists():
        return SeedRecord(seed=seed)
    try:
        record = SeedRecord.model_validate(files.read_json(path))
    except ValidationError as error:
        raise UsageError(
            f"{path}: {error.errors(include_url=False)[0]['msg']}",
            hint="restore the file; without it the seed is not judged",
        ) from error
    if record.seed != seed:  # a folder copied under another name would count one seed twice
        raise UsageError(
            f"{path}: is the record of seed {record.seed}, not of seed {seed}",
            hint="restore the file; without it the seed is not judged",
        )
    return record


def save(path: Path, record: SeedRecord) -> None:
    files.write_json(path, record.model_dump(mode="json"))


class Events:
    """events.jsonl, for people and plots: one line an event, with wall clock and monotonic clock in
    seconds.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")

    def add(self, event: str, **facts: Any) -> None:
        line = {"at": now(), "monotonic": round(time.monotonic(), 3), "event": event, **facts}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
