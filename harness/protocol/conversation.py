"""The conversation of each stage: who speaks when, by which clock, and what is committed (docs/protocol.md).

The order of messages is the proof of three of the challenge's conditions: a chunk is revealed once (C4), its
numbers are committed before the contestant may learn from it (C3), and the first token of the next chunk is
predicted before it is shown. Not covered here: whether a number used its own token or later ones of its chunk
(C1) and whether the numbers between the borders come from one normalised distribution (C2); the witness is
for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.base.errors import Violation
from harness.base.text import quote
from harness.edition import Limits
from harness.protocol.frames import (
    Adapted,
    Description,
    Hello,
    Nats,
    Packed,
    Ready,
    ScoreReady,
    Trained,
    Variants,
)
from harness.protocol.ledger import Ledger
from harness.protocol.wire import MAX_DESCRIPTORS, Connection, DeadlineExpired, Listener
from harness.scoring.rows import logsumexp

BYE_SECONDS = 1.0
"""Time to take the last frame, which no clock counts."""
MAX_VARIANTS = 256


class ChunkBoundary(NamedTuple):
    """What was said of a chunk's first token before and after it was shown."""

    position: int
    before_nats: float
    after_nats: float
    logsumexp: float


class ScoringPass(NamedTuple):
    """The outcome of a whole pass: nats_T, its ledger, and the facts that the contestant declared."""

    nats_T: npt.NDArray[np.float32]
    ledger_sha256: str
    seconds: float
    chunk_tokens: int
    adapts: bool
    context: int | None
    boundaries: list[ChunkBoundary]
    adapt_seconds: float = 0.0
    """Of `seconds`, those between `adapt` and its answer."""


class ShardToSend(NamedTuple):
    name: str
    path: Path
    tokens: int


@contextmanager
def turn_deadline_into_violation(rule: str, seconds: float, what: str) -> Iterator[None]:
    """Turns a passed deadline into the finding of the clock that ran out."""
    try:
        yield
    except DeadlineExpired:
        raise Violation(
            rule,
            f"{what} did not end within {seconds:g} s",
            limit=True,
            hint="the log of the stage shows how far it came",
        ) from None


def open_stage(
    listener: Listener,
    stage: str,
    setup: dict[str, Any],
    started: float,
    limits: Limits,
    watch: Callable[[], None],
    ready: type[Ready] = Ready,
) -> tuple[Connection, Ready, float]:
    """hello, setup, ready. Returns the connection, the `ready` frame and the seconds since `started`
    (monotonic)."""
    deadline = started + limits.setup_seconds
    with turn_deadline_into_violation("setup-clock", limits.setup_seconds, f"setup of {stage}"):
        connection = listener.accept(deadline, watch)
        hello = connection.receive(deadline, Hello)
        if hello.stage != stage:
            raise Violation(
                "protocol",
                f"hello: expected stage {stage!r}, came {quote(hello.stage)!r}",
                hint="PGOLF_STAGE names it",
            )
        connection.send({"op": "setup", **setup}, deadline)
        frame = connection.receive(deadline, ready)
    return connection, frame, time.monotonic() - started


def describe(connection: Connection, seconds: float) -> Description:
    """What the harness must know of a recipe without understanding it, all its variants in one."""
    deadline = time.monotonic() + seconds
    with turn_deadline_into_violation("setup-clock", seconds, "describe"):
        described = connection.receive(deadline, Description)
        variants, more = list(described.variants), described.more
        while more and len(variants) <= MAX_VARIANTS:
            frame = connection.receive(deadline, Variants)
            variants, more = [*variants, *frame.variants], frame.more
    names = {variant.name for variant in variants}
    if len(variants) > MAX_VARIANTS or len(names) < len(variants):
        raise Violation(
            "protocol",
            f"{len(variants)} variants, {len(names)} of them with a name of their own",
            hint=f"at most {MAX_VARIANTS}, each under another name",
        )
    return described.model_copy(update={"variants": variants, "more": False})


def train(
    connection: Connection, shards: Sequence[ShardToSend], limits: Limits, steps: int | None = None
) -> tuple[Trained, float]:
    """Hands over the shards as read-only descriptors and stops the clock at `trained`. Returns it and the
    seconds.

    Where `steps` is given the contestant is asked for exactly so many. Raises Violation `train-clock` past
    the limit, `protocol` for another number of steps."""
    started = time.monotonic()
    deadline = started + limits.train_seconds + limits.grace_seconds
    with turn_deadline_into_violation("train-clock", limits.train_seconds, "training"):
        for first in range(0, len(shards), MAX_DESCRIPTORS):
            batch = shards[first : first + MAX_DESCRIPTORS]
            frame: dict[str, Any] = {
                "op": "train",
                "seconds": limits.train_seconds,
                "shards": [{"name": s.name, "tokens": s.tokens} for s in batch],
            }
            if steps is not None:
                frame["steps"] = steps
            if first + MAX_DESCRIPTORS < len(shards):
                frame["more"] = True
            _send_shards(connection, frame, batch, deadline)
        trained = connection.receive(deadline, Trained)
    seconds = time.monotonic() - started
    if steps is not None and trained.steps != steps:
        raise Violation(
            "protocol",
            f"trained {trained.steps} steps, asked for {steps}",
            hint="docs/protocol.md, stage train: `steps` is exact where it is sent",
        )
    return trained, seconds


def _send_shards(
    connection: Connection, frame: dict[str, Any], batch: Sequence[ShardToSend], deadline: float
) -> None:
    """One `train` frame; only its own descriptors are open here, so their number never nears the system's
    limit."""
    with ExitStack() as opened:
        descriptors = [opened.enter_context(shard.path.open("rb")).fileno() for shard in batch]
        connection.send(frame, deadline, descriptors=descriptors)


def pack(connection: Connection, limits: Limits) -> float:
    """Waits for `packed`; returns the seconds since `ready`."""
    started = time.monotonic()
    with turn_deadline_into_violation("pack-clock", limits.pack_seconds, "packing"):
        connection.receive(started + limits.pack_seconds, Packed)
    return time.monotonic() - started


def score(
    connection: Connection,
    ready: ScoreReady,
    tokens_T: npt.NDArray[np.uint16],
    vocab_size: int,
    limits: Limits,
    progress: Callable[[int], None],
) -> ScoringPass:
    """Reveals the stream chunk by chunk and commits the answers. `progress` is called with tokens scored so
    far.

    Raises Violation `score-clock` past the limit, `protocol` for a number that is not finite or is negative,
    for a wrong count, or for an answer out of turn."""
    if ready.chunk_tokens > limits.chunk_tokens:
        raise Violation(
            "protocol",
            f"chunk_tokens {ready.chunk_tokens}, at most {limits.chunk_tokens}",
            hint="inside a chunk order proves nothing, so the edition caps it",
        )
    ledger, boundaries, adapt_seconds = Ledger(), [], 0.0
    started = time.monotonic()
    deadline = started + limits.score_seconds
    boundary_row: npt.NDArray[np.float32] | None = None
    last_chunk = (len(tokens_T) - 1) // ready.chunk_tokens
    with turn_deadline_into_violation("score-clock", limits.score_seconds, "scoring"):
        for chunk in range(last_chunk + 1):
            start = chunk * ready.chunk_tokens
            chunk_T = np.ascontiguousarray(tokens_T[start : start + ready.chunk_tokens], dtype="<u2")
            row_wanted = chunk < last_chunk
            nats_T, next_row = _score_chunk(
                connection, chunk, start, chunk_T, vocab_size, row_wanted and not ready.adapts, deadline
            )
            if boundary_row is not None:
                boundaries.append(_check_boundary(start, boundary_row, int(chunk_T[0]), float(nats_T[0])))
            ledger.commit(chunk_T, nats_T)
            if row_wanted and ready.adapts:
                before = time.monotonic()
                next_row = _adapt_to_chunk(connection, chunk, vocab_size, deadline)
                adapt_seconds += time.monotonic() - before
            boundary_row = next_row
            progress(start + len(chunk_T))
    seconds = time.monotonic() - started
    with suppress(
        DeadlineExpired, Violation
    ):  # every number is committed: whoever left before `bye` changes nothing by it
        connection.send({"op": "bye"}, time.monotonic() + BYE_SECONDS)
    return ScoringPass(
        ledger.nats(),
        ledger.sha256,
        seconds,
        ready.chunk_tokens,
        ready.adapts,
        ready.context,
        boundaries,
        adapt_seconds,
    )


def _score_chunk(
    connection: Connection,
    chunk: int,
    start: int,
    chunk_T: npt.NDArray[np.uint16],
    vocab_size: int,
    row: bool,
    deadline: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Reveal one chunk; its nats_T, checked, and the border row_V where one is due with them."""
    n = len(chunk_T)
    connection.send(
        {"op": "score", "chunk": chunk, "start": start, "bytes": 2 * n}, deadline, chunk_T.tobytes()
    )
    frame = connection.receive(deadline, Nats)
    _require_chunk(frame.chunk, chunk)
    n_bytes = 4 * n + (4 * vocab_size if row else 0)
    numbers = np.frombuffer(
        connection.payload(n_bytes, frame.n_bytes, f"nats of chunk {chunk}", deadline), "<f4"
    )
    nats_T = numbers[:n]
    bad = np.flatnonzero(~(np.isfinite(nats_T) & (nats_T >= 0)))
    if len(bad):
        raise Violation(
            "protocol",
            f"token {start + int(bad[0])}: expected a finite number >= 0, came "
            f"{nats_T[bad[0]]!r} ({len(bad)} such in chunk {chunk})",
            hint="each number is -ln p of the token that came, in nats",
        )
    if start == 0 and nats_T[0] != 0:
        raise Violation(
            "protocol", f"token 0: expected 0, came {nats_T[0]!r}", hint="the first token is not scored"
        )
    return nats_T, numbers[n:] if row else None


def _adapt_to_chunk(
    connection: Connection, chunk: int, vocab_size: int, deadline: float
) -> npt.NDArray[np.float32]:
    """The chunk is committed: the contestant may learn from it, then gives the border row_V."""
    connection.send({"op": "adapt", "chunk": chunk}, deadline)
    frame = connection.receive(deadline, Adapted)
    _require_chunk(frame.chunk, chunk)
    row = connection.payload(4 * vocab_size, frame.n_bytes, f"border row after chunk {chunk}", deadline)
    return np.frombuffer(row, "<f4")


def _require_chunk(came: int, expected: int) -> None:
    if came != expected:
        raise Violation(
            "protocol",
            f"expected the answer for chunk {expected}, came one for chunk {came}",
            hint="answers come in the order of the questions",
        )


def _check_boundary(
    position: int, row_V: npt.NDArray[np.float32], token: int, after_nats: float
) -> ChunkBoundary:
    """The border's evidence, in float64. Raises Violation for a row that is not all finite, as log-softmax
    rows are."""
    bad = np.flatnonzero(~np.isfinite(row_V))
    if len(bad):
        raise Violation(
            "protocol",
            f"border row before token {position}: expected finite numbers, came {row_V[bad[0]]} for "
            f"id {bad[0]} ({len(bad)} such)",
            hint="rows are natural-log probabilities from float32 logits",
        )
    return ChunkBoundary(position, -float(row_V[token]), after_nats, logsumexp(row_V))
