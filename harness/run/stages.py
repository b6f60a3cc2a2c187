"""One stage of one seed: start the contestant, hold the conversation, stop the clock, keep what the stage
leaves.

Every function returns what the judge measured and what the contestant claimed. Data moves one way: train ->
checkpoint/ -> pack -> artifact.bin -> score -> nats_T. Attempts and resuming: seeds.py. The witness:
witnesses.py.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.base.errors import Violation
from harness.base.files import sha256_of
from harness.base.progress import ProgressCallback
from harness.data.dataset import Dataset
from harness.data.shards import Tokens
from harness.edition import Limits
from harness.protocol import conversation
from harness.protocol.conversation import ScoringPass
from harness.protocol.frames import Description, Progress, Ready, ScoreReady
from harness.protocol.wire import Connection, ContestantLeft
from harness.run import last_error
from harness.run.cpu_use import CpuUse, measured, unreported
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.runners.base import Runner, Stage, StageSpec

EXIT_SECONDS = 2.0
"""How long a contestant that closed its socket may take to exit, so that its exit code can say why."""
MAX_RESOLVED_BYTES = 1 << 20


class Contestant(NamedTuple):
    """A program and its files by their names under /in: what StageSpec takes as `program` and `command`."""

    program: str | None
    command: tuple[str, ...]
    files: dict[str, Path]


@dataclass(frozen=True)
class StageJob:
    """What all stages of one seed share."""

    runner: Runner
    terms: StageTerms
    seed: int
    folder: SeedFolder
    contestant: Contestant | None = None
    """A program from elsewhere (`pgolf score`); None for the code bundle in the folder."""
    keeps_logs: bool = True
    """Whether the folder outlives the command, so that an error may name a log in it."""
    on_cpu_use: Callable[[CpuUse], None] = unreported
    """Told what each stage's clock cost, also where the stage fails."""

    @property
    def limits(self) -> Limits:
        return self.terms.limits


class StageResult(NamedTuple):
    """Seconds by the judge's clocks, the contestant's claims, and facts that the judge measured."""

    setup_seconds: float | None
    seconds: float
    claims: dict[str, Any]
    facts: dict[str, Any]


@contextmanager
def running(
    job: StageJob, stage: str, inputs: dict[str, Path], out_bytes: int, log: str = ""
) -> Iterator[Stage]:
    """The stage's process. Where it closed its socket early, its exit code is raised as the reason, if known.

    `log` names the log file; default: the stage. A violation quotes the contestant's last error from there.
    """
    folder = job.folder
    contestant = job.contestant or Contestant(None, ("code.pyz",), {"code.pyz": folder.code})
    files = {
        **contestant.files,
        "config.yaml": folder.config,
        "tokenizer.model": job.terms.tokenizer,
        **inputs,
    }
    spec = StageSpec(
        job.terms.run_id,
        stage,
        files,
        job.limits,
        folder.log(log or stage),
        out_bytes,
        contestant.command,
        contestant.program,
    )
    try:
        with job.runner.start(spec) as process:
            try:
                yield process
            except ContestantLeft:
                raise_exit_reason(process)
                raise
    except Violation as violation:  # the log is complete here
        last_error.explain(violation, spec.log, job.keeps_logs)
        raise


def raise_exit_reason(process: Stage) -> None:
    """Raise why the contestant exited (memory, full disk, exit code), if it does so within EXIT_SECONDS."""
    deadline = time.monotonic() + EXIT_SECONDS
    while time.monotonic() < deadline:
        process.watch()
        time.sleep(0.1)


def open_conversation(
    job: StageJob,
    process: Stage,
    stage: str,
    on_progress: ProgressCallback,
    ready: type[Ready] = Ready,
    **extra: Any,
) -> tuple[Connection, Any, float]:
    """hello, setup, ready: the connection, the `ready` frame, and the seconds since the start.

    `extra` goes into `setup` beside what every stage gets.
    """
    setup = {
        "seed": job.seed,
        "profile": job.terms.profile,
        "vocab_size": job.terms.vocab_size,
        "limits": job.limits.public(),
        "tokenizer": process.inside("tokenizer.model"),
        "config": process.inside("config.yaml"),
        "out": process.out,
        **extra,
    }
    on_progress(0.0, "setup")
    started = conversation.StartedStage(stage, process.listener, process.started, process.watch)
    connection, frame, seconds = conversation.open_stage(started, setup, job.limits, ready)

    def report(progress: Progress) -> None:
        on_progress(progress.fraction, progress.text)

    connection.on_progress = report
    return connection, frame, seconds


def describe(job: StageJob, on_progress: ProgressCallback) -> Description:
    """What golf says of the recipe. No data; only the setup clock runs."""
    with running(job, "describe", {}, job.limits.counted_bytes) as process:
        connection, _, _ = open_conversation(job, process, "describe", on_progress)
        return conversation.describe(connection, job.limits.setup_seconds)


def train(
    job: StageJob, dataset: Dataset, on_progress: ProgressCallback, steps: int | None = None
) -> StageResult:
    """Leaves checkpoint/ and config.resolved.yaml. Trains exactly `steps` steps, or what the clock allows."""
    folder = job.folder
    with running(job, "train", {}, job.limits.checkpoint_bytes) as process:
        connection, ready, setup_seconds = open_conversation(job, process, "train", on_progress)
        shards = [
            conversation.ShardToSend(shard.path.stem, shard.path, shard.tokens) for shard in dataset.train
        ]
        with measured(process.cpu_seconds, job.on_cpu_use):
            trained, seconds = conversation.train(connection, shards, job.limits, steps)
        process.freeze()
        on_progress(1.0, "copying the checkpoint")
        incoming = folder.incoming("train")
        process.collect(incoming)
    if not (incoming / "checkpoint").is_dir():
        raise Violation(
            "output", "train left no folder checkpoint/ in /out", hint="docs/protocol.md, stage train"
        )
    _keep_resolved_config(incoming / "config.resolved.yaml", folder.resolved)
    shutil.rmtree(folder.checkpoint, ignore_errors=True)
    (incoming / "checkpoint").rename(folder.checkpoint)
    shutil.rmtree(incoming)
    n_bytes = sum(path.stat().st_size for path in folder.checkpoint.rglob("*") if path.is_file())
    claims = {
        "steps": trained.steps,
        "tokens": trained.tokens,
        "attention": ready.attention,
        "world": ready.world,
    }
    return StageResult(setup_seconds, seconds, claims, {"checkpoint_bytes": n_bytes})


def _keep_resolved_config(source: Path, target: Path) -> None:
    """Keep the recipe as the contestant read it: a claim, bounded in size."""
    if not source.is_file() or source.stat().st_size > MAX_RESOLVED_BYTES:
        raise Violation(
            "output",
            f"train must leave {source.name} of at most {MAX_RESOLVED_BYTES} bytes in /out",
            hint="docs/protocol.md, stage train",
        )
    source.rename(target)


def pack(job: StageJob, on_progress: ProgressCallback) -> StageResult:
    """Leaves artifact.bin."""
    folder = job.folder
    with running(job, "pack", {"checkpoint": folder.checkpoint}, job.limits.checkpoint_bytes) as process:
        connection, _, setup_seconds = open_conversation(
            job, process, "pack", on_progress, checkpoint=process.inside("checkpoint")
        )
        with measured(process.cpu_seconds, job.on_cpu_use):
            seconds = conversation.pack(connection, job.limits)
        process.freeze()
        incoming = folder.incoming("pack")
        process.collect(incoming)
    if not (incoming / "artifact.bin").is_file():
        raise Violation("output", "pack left no artifact.bin in /out", hint="docs/protocol.md, stage pack")
    (incoming / "artifact.bin").replace(folder.artifact)
    shutil.rmtree(incoming)
    facts = {"artifact_bytes": folder.artifact.stat().st_size, "artifact_sha256": sha256_of(folder.artifact)}
    return StageResult(setup_seconds, seconds, {}, facts)


def score(
    job: StageJob, tokens_T: Tokens, on_progress: ProgressCallback, log: str = "score"
) -> tuple[StageResult, ScoringPass]:
    """One pass over tokens_T. Writes its log only; stored_score.py writes the rest."""
    inputs = {"artifact.bin": job.folder.artifact}
    with running(job, "score", inputs, job.limits.counted_bytes, log) as process:
        connection, ready, setup_seconds = open_conversation(
            job,
            process,
            "score",
            on_progress,
            ScoreReady,
            artifact=process.inside("artifact.bin"),
            role="scorer",
            tokens=len(tokens_T),
        )
        if ready.adapts and job.terms.track == "A":
            raise Violation(
                "track",
                "the contestant wants to learn from scored text, which track A forbids",
                hint="declare track B (manifest, or `pgolf score --track B`), or switch the adaptation off",
            )
        connection.on_progress = lambda progress: None  # the judge counts what was committed
        with measured(process.cpu_seconds, job.on_cpu_use) as meter:
            scored = conversation.score(
                connection,
                ready,
                tokens_T,
                job.terms.vocab_size,
                job.limits,
                lambda done: on_progress(done / len(tokens_T), f"{done:,} tokens"),
                meter.stop,
            )
        process.wait(EXIT_SECONDS)
    claims = {
        "chunk_tokens": ready.chunk_tokens,
        "adapts": ready.adapts,
        "context": ready.context,
        "attention": ready.attention,
        "world": ready.world,
    }
    facts = {
        "ledger_sha256": scored.ledger_sha256,
        "adapt_seconds": round(scored.adapt_seconds, 3),
        "borders": [boundary._asdict() for boundary in scored.boundaries],
    }
    return StageResult(setup_seconds, scored.seconds, claims, facts), scored
