"""One stage of one seed, from its inputs to its place in the run folder.

Each function opens a container (or process), holds the conversation, stops the clock, takes what the stage
may leave, and returns what the judge measured. Data moves right only: train -> checkpoint/ -> pack ->
artifact.bin -> score -> nats.f32. Not covered: attempts, resuming and verdicts (run.py, verdict.py)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.base import files
from harness.base.arrays import write_arrays
from harness.base.errors import UsageError, Violation
from harness.base.files import sha256_of
from harness.base.progress import ProgressCallback, no_progress
from harness.data.dataset import Dataset
from harness.data.shards import Tokens
from harness.edition import Limits
from harness.protocol import conversation, ledger, probe
from harness.protocol.frames import Description, Progress, Ready, ScoreReady
from harness.protocol.wire import Connection, ContestantLeft
from harness.run.folder import SeedFolder
from harness.run.records import Attempt, SeedRecord
from harness.runners.base import Runner, Stage, StageSpec
from harness.scoring import bpb, low_bpb_documents

EXIT_SECONDS = 2.0
"""How long a contestant that broke off is waited for, so that its end can say why."""
RESOLVED_BYTES = 1 << 20
ANSWER_FACTOR, LEAST_ANSWER_SECONDS = 1.5, 15.0
"""A witness's time for one answer, in the scorer's own for a chunk; the least is what a busy machine may
steal at once."""
WHOLE_FACTOR, ROW_SHARE, LEAST_WHOLE_SECONDS = 10.0, 0.1, 120.0
"""A witness's time for all answers: in the scorer's own for all chunks, or a share of a chunk's for each row,
if that is more."""


class Contestant(NamedTuple):
    """A program and its files, by their names under /in: what StageSpec takes for `program` and `command`."""

    program: str | None
    command: tuple[str, ...]
    files: dict[str, Path]


@dataclass(frozen=True)
class StageJob:
    """What all stages of a run share."""

    runner: Runner
    limits: Limits
    profile: str
    track: str
    code: Path
    config: Path
    tokenizer: Path
    vocab_size: int
    run_id: str
    contestant: Contestant | None = None
    """A program from elsewhere (`pgolf score`); None: the code bundle."""


class StageResult(NamedTuple):
    """Seconds by the judge's clocks, claims of the contestant, facts measured by the judge."""

    setup_seconds: float | None
    seconds: float
    claims: dict[str, Any]
    facts: dict[str, Any]


@contextmanager
def _running(
    job: StageJob, stage: str, log: Path, inputs: dict[str, Path], out_bytes: int
) -> Iterator[Stage]:
    """The stage's process; a broken socket is explained by how the process ended, where that is known."""
    contestant = job.contestant or Contestant(None, ("code.pyz",), {"code.pyz": job.code})
    spec = StageSpec(
        job.run_id,
        stage,
        {**contestant.files, "config.yaml": job.config, "tokenizer.model": job.tokenizer, **inputs},
        job.limits,
        log,
        out_bytes,
        contestant.command,
        contestant.program,
    )
    with job.runner.start(spec) as running:
        try:
            yield running
        except ContestantLeft:
            _explain_end(running)
            raise


def _explain_end(running: Stage) -> None:
    """Raises the reason when the contestant has ended by itself (memory, full disk, exit code) within a
    moment."""
    deadline = time.monotonic() + EXIT_SECONDS
    while time.monotonic() < deadline:
        running.watch()
        time.sleep(0.1)


def _open(
    job: StageJob,
    running: Stage,
    stage: str,
    seed: int,
    report: ProgressCallback,
    ready: type[Ready] = Ready,
    **extra: Any,
) -> tuple[Connection, Any, float]:
    setup = {
        "seed": seed,
        "profile": job.profile,
        "vocab_size": job.vocab_size,
        "limits": job.limits.public(),
        "tokenizer": running.inside("tokenizer.model"),
        "config": running.inside("config.yaml"),
        "out": running.out,
        **extra,
    }
    report(0.0, "setup")
    connection, frame, seconds = conversation.open_stage(
        running.listener, stage, setup, running.started, job.limits, running.watch, ready
    )

    def on_progress(progress: Progress) -> None:
        report(progress.fraction, progress.text)

    connection.on_progress = on_progress
    return connection, frame, seconds


def describe(job: StageJob, log: Path, report: ProgressCallback) -> Description:
    """What golf says of the recipe; no data, no clock but the setup's."""
    with _running(job, "describe", log, {}, job.limits.counted_bytes) as running:
        connection, _, _ = _open(job, running, "describe", 0, report)
        return conversation.describe(connection, job.limits.setup_seconds)


def train(
    job: StageJob,
    seed: int,
    folder: SeedFolder,
    dataset: Dataset,
    report: ProgressCallback,
    steps: int | None = None,
) -> StageResult:
    """Leaves checkpoint/ and config.resolved.yaml. Exactly `steps` steps where they are given, else what the
    clock allows."""
    with _running(job, "train", folder.log("train"), {}, job.limits.checkpoint_bytes) as running:
        connection, ready, setup_seconds = _open(job, running, "train", seed, report)
        shards = [
            conversation.ShardToSend(shard.path.stem, shard.path, shard.tokens) for shard in dataset.train
        ]
        trained, seconds = conversation.train(connection, shards, job.limits, steps)
        running.freeze()
        report(1.0, "copying the checkpoint")
        incoming = folder.incoming("train")
        running.collect(incoming)
    if not (incoming / "checkpoint").is_dir():
        raise Violation(
            "output", "train left no folder checkpoint/ in /out", hint="docs/protocol.md, stage train"
        )
    _keep_text(incoming / "config.resolved.yaml", folder.resolved)
    shutil.rmtree(folder.checkpoint, ignore_errors=True)
    (incoming / "checkpoint").rename(folder.checkpoint)
    shutil.rmtree(incoming)
    n_bytes = sum(path.stat().st_size for path in folder.checkpoint.rglob("*") if path.is_file())
    return StageResult(
        setup_seconds,
        seconds,
        {
            "steps": trained.steps,
            "tokens": trained.tokens,
            "attention": ready.attention,
            "world": ready.world,
        },
        {"checkpoint_bytes": n_bytes},
    )


def _keep_text(source: Path, target: Path) -> None:
    """A small text of the contestant's own, kept as its claim."""
    if not source.is_file() or source.stat().st_size > RESOLVED_BYTES:
        raise Violation(
            "output",
            f"train must leave {source.name} of at most {RESOLVED_BYTES} bytes in /out",
            hint="docs/protocol.md, stage train",
        )
    source.rename(target)


def pack(job: StageJob, seed: int, folder: SeedFolder, report: ProgressCallback) -> StageResult:
    """Leaves artifact.bin."""
    cap = job.limits.checkpoint_bytes
    with _running(job, "pack", folder.log("pack"), {"checkpoint": folder.checkpoint}, cap) as running:
        connection, _, setup_seconds = _open(
            job, running, "pack", seed, report, checkpoint=running.inside("checkpoint")
        )
        seconds = conversation.pack(connection, job.limits)
        running.freeze()
        incoming = folder.incoming("pack")
        running.collect(incoming)
    if not (incoming / "artifact.bin").is_file():
        raise Violation("output", "pack left no artifact.bin in /out", hint="docs/protocol.md, stage pack")
    (incoming / "artifact.bin").replace(folder.artifact)
    shutil.rmtree(incoming)
    return StageResult(
        setup_seconds,
        seconds,
        {},
        {"artifact_bytes": folder.artifact.stat().st_size, "artifact_sha256": sha256_of(folder.artifact)},
    )


def require_packed_artifact(folder: SeedFolder, record: SeedRecord) -> None:
    """What is scored must be what was packed and counted. Raises UsageError for an artifact that was changed
    since."""
    packed = record.done("pack")
    if packed is None or sha256_of(folder.artifact) != packed.facts["artifact_sha256"]:
        raise UsageError(
            f"{folder.artifact}: is not the artifact that was packed",
            hint="the file was changed after the stage; --again runs the seed anew",
        )


def score(
    job: StageJob,
    seed: int,
    folder: SeedFolder,
    tokens_T: Tokens,
    report: ProgressCallback,
    tag: str = "score",
) -> tuple[StageResult, conversation.ScoringPass]:
    """One pass over tokens_T. Nothing is written but the log; `keep_score` writes the rest."""
    with _running(
        job, "score", folder.log(tag), {"artifact.bin": folder.artifact}, job.limits.counted_bytes
    ) as running:
        connection, ready, setup_seconds = _open(
            job,
            running,
            "score",
            seed,
            report,
            ScoreReady,
            artifact=running.inside("artifact.bin"),
            role="scorer",
            tokens=len(tokens_T),
        )
        if ready.adapts and job.track == "A":
            raise Violation(
                "track",
                "the contestant wants to learn from scored text, the manifest declares track A",
                hint="declare track B, or switch the adaptation off",
            )
        connection.on_progress = lambda progress: None  # the judge counts what was committed
        scored = conversation.score(
            connection,
            ready,
            tokens_T,
            job.vocab_size,
            job.limits,
            lambda done: report(done / len(tokens_T), f"{done:,} tokens"),
        )
        running.wait(EXIT_SECONDS)
    declared = {
        "chunk_tokens": ready.chunk_tokens,
        "adapts": ready.adapts,
        "context": ready.context,
        "attention": ready.attention,
        "world": ready.world,
    }
    boundaries = [boundary._asdict() for boundary in scored.boundaries]
    return StageResult(
        setup_seconds,
        scored.seconds,
        declared,
        {
            "ledger_sha256": scored.ledger_sha256,
            "adapt_seconds": round(scored.adapt_seconds, 3),
            "borders": boundaries,
        },
    ), scored


def witness(
    job: StageJob,
    seed: int,
    folder: SeedFolder,
    tokens_T: Tokens,
    scored: conversation.ScoringPass,
    asked_P: np.ndarray[Any, Any],
    progress: Callable[[int], None],
    tag: str,
    ask: Callable[..., probe.ProbeResult] = probe.probe,
) -> probe.ProbeResult:
    """A fresh copy of the scorer, asked for its rows at asked_P. Its log is the only thing written.

    Its time is the scorer's own, lest it think longer and so hide a gain: ANSWER_FACTOR of what a chunk took
    on average for each answer, `witness_seconds` for all. Where it ended early the reason holds what became
    of its process; a fault of the machine is raised. `progress` is called with questions answered so far.
    `ask` is asking.ask or lanes.ask."""
    with _running(
        job, "score", folder.log(tag), {"artifact.bin": folder.artifact}, job.limits.counted_bytes
    ) as running:
        connection, ready, _ = _open(
            job,
            running,
            "score",
            seed,
            no_progress,
            ScoreReady,
            artifact=running.inside("artifact.bin"),
            role="witness",
            tokens=len(tokens_T),
        )
        chunks = -(-len(tokens_T) // scored.chunk_tokens)
        answer_seconds = max(LEAST_ANSWER_SECONDS, ANSWER_FACTOR * scored.seconds / chunks)
        whole = witness_seconds(scored.seconds, chunks, len(asked_P))
        asked = ask(
            connection,
            ready,
            tokens_T,
            scored,
            job.vocab_size,
            asked_P,
            answer_seconds,
            time.monotonic() + whole,
            progress,
        )
        if asked.ended is not None:
            try:
                _explain_end(running)
            except Violation as violation:
                return asked._replace(ended=violation.message)
        return asked


def witness_seconds(score_seconds: float, chunks: int, rows: int) -> float:
    """Seconds that a witness may take for all its answers, where the scorer took `score_seconds` for all
    chunks."""
    return max(LEAST_WHOLE_SECONDS, WHOLE_FACTOR * score_seconds, ROW_SHARE * score_seconds / chunks * rows)


def store_score(folder: SeedFolder, dataset: Dataset, scored: conversation.ScoringPass) -> dict[str, Any]:
    """Writes nats.f32 and docs.npz; returns the metric as JSON-ready facts."""
    return store_metric(
        folder, bpb.measure(dataset.validation_tokens(), scored.nats_T, dataset.byte_table()), scored
    )


def store_metric(
    folder: SeedFolder, measured: bpb.Metric, scored: conversation.ScoringPass
) -> dict[str, Any]:
    """The same for a text that no dataset holds."""
    files.write_bytes(folder.nats, scored.nats_T.astype("<f4").tobytes())
    write_arrays(
        folder.documents, {"starts": measured.starts_D, "bits": measured.bits_D, "bytes": measured.bytes_D}
    )
    return {
        "bpb": measured.bpb,
        "nats_per_token": measured.nats_per_token,
        "scored_tokens": measured.scored_tokens,
        "scored_bytes": measured.scored_bytes,
        "documents": low_bpb_documents.scan(measured.bits_D, measured.bytes_D, measured.starts_D),
    }


def stored_score(folder: SeedFolder, dataset: Dataset, done: Attempt) -> conversation.ScoringPass:
    """The pass of a finished run, as it was when its ledger closed. Raises UsageError where nats.f32 was
    changed since."""
    facts, claims = done.facts, done.claims
    nats_T = stored_nats(folder, dataset, claims["chunk_tokens"], facts["ledger_sha256"])
    assert done.seconds is not None
    return conversation.ScoringPass(
        nats_T,
        facts["ledger_sha256"],
        done.seconds,
        claims["chunk_tokens"],
        claims["adapts"],
        claims["context"],
        [conversation.ChunkBoundary(**boundary) for boundary in facts["borders"]],
        facts.get("adapt_seconds", 0.0),
    )


def stored_nats(
    folder: SeedFolder, dataset: Dataset, chunk_tokens: int, expected: str
) -> np.ndarray[Any, Any]:
    """nats_T of a finished run, checked against its ledger. Raises UsageError when the file was changed."""
    tokens_T, nats_T = dataset.validation_tokens(), np.fromfile(folder.nats, "<f4")
    if len(nats_T) != len(tokens_T) or ledger.replay(tokens_T, nats_T, chunk_tokens) != expected:
        raise UsageError(
            f"{folder.nats}: does not match the ledger in {folder.record.name}",
            hint="the file was changed after the run; `pgolf run --again` runs the seed anew",
        )
    return nats_T
