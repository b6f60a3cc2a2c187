"""The conversation of each stage: order of messages, clock, and what is committed (docs/protocol.md).

Message order enforces score-before-update: a chunk is revealed once (C4), its numbers are committed before
the contestant may learn from it (C3), and the first token of the next chunk is predicted before it is shown
(the boundary prediction; in docs/protocol.md the border row). Inside a chunk message order proves nothing:
witnesses (probe.py) check whether a number used its own token or later ones (C1), and whether it comes from
one normalised distribution (C2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.base.errors import Violation
from harness.base.text import quote
from harness.data.shards import Tokens
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
"""Time for the contestant to read the last frame; no clock of the edition counts it."""
MAX_VARIANTS = 256

FloatArray = npt.NDArray[np.float32]


class ChunkBoundary(NamedTuple):
    """What the contestant predicted for a chunk's first token before it was shown, and reported after."""

    position: int
    before_nats: float
    after_nats: float
    logsumexp: float
    """Of the boundary prediction; 0 for a normalised distribution."""


class ScoringPass(NamedTuple):
    """The outcome of a whole pass: nats_T, its ledger, and what the contestant declared in `ready`."""

    nats_T: npt.NDArray[np.float32]
    ledger_sha256: str
    seconds: float
    chunk_tokens: int
    adapts: bool
    context: int | None
    boundaries: list[ChunkBoundary]
    adapt_seconds: float = 0.0
    """The part of `seconds` between `adapt` and its answer."""


class ShardToSend(NamedTuple):
    name: str
    path: Path
    tokens: int


@contextmanager
def _deadline_as_violation(rule: str, seconds: float, what: str) -> Iterator[None]:
    """Turn DeadlineExpired into a Violation of the clock that ran out."""
    try:
        yield
    except DeadlineExpired:
        raise Violation(
            rule,
            f"{what} did not end within {seconds:g} s",
            limit=True,
            hint="the log of the stage shows how far it got",
        ) from None


@dataclass(frozen=True)
class StartedStage:
    """The process of one stage, which has not connected yet."""

    name: str
    listener: Listener
    """The socket that it will connect to."""
    started: float
    """When it was started, monotonic seconds."""
    watch: Callable[[], None]
    """Raises when the process has died or exceeded a limit."""


def open_stage(
    stage: StartedStage, setup: dict[str, Any], limits: Limits, ready: type[Ready] = Ready
) -> tuple[Connection, Ready, float]:
    """hello, setup, ready. Returns the connection, the `ready` frame and the seconds since the start.

    Raises Violation: `protocol` for a wrong frame, `setup-clock` past the limit.
    """
    deadline = stage.started + limits.setup_seconds
    with _deadline_as_violation("setup-clock", limits.setup_seconds, f"setup of {stage.name}"):
        connection = stage.listener.accept(deadline, stage.watch)
        hello = connection.receive(deadline, Hello)
        if hello.stage != stage.name:
            raise Violation(
                "protocol",
                f"hello: expected stage {stage.name!r}, got {quote(hello.stage)!r}",
                hint="the environment variable PGOLF_STAGE names the stage",
            )
        connection.send({"op": "setup", **setup}, deadline)
        frame = connection.receive(deadline, ready)
    return connection, frame, time.monotonic() - stage.started


def describe(connection: Connection, seconds: float) -> Description:
    """What the contestant says of its recipe, with the variants of all frames in one list.

    Raises Violation: `protocol` for more than MAX_VARIANTS or a repeated name, `setup-clock` past `seconds`.
    """
    deadline = time.monotonic() + seconds
    with _deadline_as_violation("setup-clock", seconds, "describe"):
        described = connection.receive(deadline, Description)
        variants, more = list(described.variants), described.more
        while more and len(variants) <= MAX_VARIANTS:
            frame = connection.receive(deadline, Variants)
            variants, more = [*variants, *frame.variants], frame.more
    names = {variant.name for variant in variants}
    if len(variants) > MAX_VARIANTS or len(names) < len(variants):
        raise Violation(
            "protocol",
            f"{len(variants)} variants with {len(names)} different names",
            hint=f"at most {MAX_VARIANTS}, each with its own name",
        )
    return described.model_copy(update={"variants": variants, "more": False})


def train(
    connection: Connection, shards: Sequence[ShardToSend], limits: Limits, steps: int | None = None
) -> tuple[Trained, float]:
    """Send the shards as read-only descriptors and wait for `trained`. Returns that frame and the seconds.

    If `steps` is given, the contestant must train exactly that many. Raises Violation: `train-clock` past the
    limit and its grace, `protocol` for another number of steps.
    """
    started = time.monotonic()
    deadline = started + limits.train_seconds + limits.grace_seconds
    with _deadline_as_violation("train-clock", limits.train_seconds, "training"):
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
    """Send one `train` frame. Only its own shards are open, to stay below the limit on open files."""
    with ExitStack() as opened:
        descriptors = [opened.enter_context(shard.path.open("rb")).fileno() for shard in batch]
        connection.send(frame, deadline, descriptors=descriptors)


def pack(connection: Connection, limits: Limits) -> float:
    """Wait for `packed`; returns the seconds since `ready`. Raises Violation `pack-clock` past the limit."""
    started = time.monotonic()
    with _deadline_as_violation("pack-clock", limits.pack_seconds, "packing"):
        connection.receive(started + limits.pack_seconds, Packed)
    return time.monotonic() - started


def score(
    connection: Connection,
    ready: ScoreReady,
    tokens_T: Tokens,
    vocab_size: int,
    limits: Limits,
    on_scored: Callable[[int], None],
    on_stopped: Callable[[], None] = lambda: None,
) -> ScoringPass:
    """Reveal the text chunk by chunk and commit the nats of each chunk before the next one is shown.

    `on_scored` is called with the number of tokens committed so far, and `on_stopped` once the clock has
    stopped and before the contestant is told to leave. Raises Violation: `protocol` for a wrong
    answer, `score-clock` past the limit.
    """
    if ready.chunk_tokens > limits.chunk_tokens:
        raise Violation(
            "protocol",
            f"chunk_tokens {ready.chunk_tokens}, at most {limits.chunk_tokens}",
            hint="the order of messages proves nothing inside a chunk, so the edition limits its size",
        )
    started = time.monotonic()
    dialogue = _ScoringDialogue(connection, ready, tokens_T, vocab_size, started + limits.score_seconds)
    with _deadline_as_violation("score-clock", limits.score_seconds, "scoring"):
        for chunk in range(dialogue.last_chunk + 1):
            on_scored(dialogue.score_chunk(chunk))
    seconds = time.monotonic() - started
    on_stopped()
    with suppress(DeadlineExpired, Violation):  # all numbers are committed, so a missed `bye` changes nothing
        connection.send({"op": "bye"}, time.monotonic() + BYE_SECONDS)
    return ScoringPass(
        dialogue.ledger.nats(),
        dialogue.ledger.sha256,
        seconds,
        ready.chunk_tokens,
        ready.adapts,
        ready.context,
        dialogue.boundaries,
        dialogue.adapt_seconds,
    )


@dataclass
class _ScoringDialogue:
    """The frames of one scoring pass in order, and what they have committed so far."""

    connection: Connection
    ready: ScoreReady
    tokens_T: Tokens
    vocab_size: int
    deadline: float
    """End of the pass, monotonic seconds."""
    ledger: Ledger = field(default_factory=Ledger)
    boundaries: list[ChunkBoundary] = field(default_factory=list)
    adapt_seconds: float = 0.0
    boundary_row_V: FloatArray | None = None
    """The prediction of the next chunk's first token, until that chunk is scored."""

    @property
    def last_chunk(self) -> int:
        return (len(self.tokens_T) - 1) // self.ready.chunk_tokens

    def score_chunk(self, chunk: int) -> int:
        """Score one chunk and let the contestant adapt to it; returns the number of tokens scored so far."""
        start = chunk * self.ready.chunk_tokens
        chunk_T = np.ascontiguousarray(self.tokens_T[start : start + self.ready.chunk_tokens], dtype="<u2")
        needs_row = chunk < self.last_chunk
        nats_T, next_row_V = self._reveal(chunk, chunk_T, needs_row and not self.ready.adapts)
        if self.boundary_row_V is not None:
            self.boundaries.append(
                _check_boundary(start, self.boundary_row_V, int(chunk_T[0]), float(nats_T[0]))
            )
        self.ledger.commit(chunk_T, nats_T)
        if needs_row and self.ready.adapts:
            before = time.monotonic()
            next_row_V = self._adapt(chunk)
            self.adapt_seconds += time.monotonic() - before
        self.boundary_row_V = next_row_V
        return start + len(chunk_T)

    def _reveal(self, chunk: int, chunk_T: Tokens, with_row: bool) -> tuple[FloatArray, FloatArray | None]:
        """Reveal a chunk: its nats_T, checked, and the boundary prediction if the answer holds one."""
        n, start = len(chunk_T), chunk * self.ready.chunk_tokens
        question = {"op": "score", "chunk": chunk, "start": start, "bytes": 2 * n}
        self.connection.send(question, self.deadline, chunk_T.tobytes())
        answer = self.connection.receive(self.deadline, Nats)
        _require_chunk(answer.chunk, chunk)
        n_bytes = 4 * n + (4 * self.vocab_size if with_row else 0)
        payload = self.connection.payload(n_bytes, answer.n_bytes, f"nats of chunk {chunk}", self.deadline)
        numbers = np.frombuffer(payload, "<f4")
        _check_nats(chunk, start, numbers[:n])
        return numbers[:n], numbers[n:] if with_row else None

    def _adapt(self, chunk: int) -> FloatArray:
        """Let the contestant learn from the committed chunk; returns its boundary prediction row_V."""
        self.connection.send({"op": "adapt", "chunk": chunk}, self.deadline)
        answer = self.connection.receive(self.deadline, Adapted)
        _require_chunk(answer.chunk, chunk)
        what = f"border row after chunk {chunk}"
        row = self.connection.payload(4 * self.vocab_size, answer.n_bytes, what, self.deadline)
        return np.frombuffer(row, "<f4")


def _check_nats(chunk: int, start: int, nats_T: FloatArray) -> None:
    """Raise Violation unless all numbers are finite and at least 0, and that of token 0 is 0."""
    bad = np.flatnonzero(~(np.isfinite(nats_T) & (nats_T >= 0)))
    if len(bad):
        raise Violation(
            "protocol",
            f"token {start + int(bad[0])}: expected a finite number >= 0, got {nats_T[bad[0]]:g} "
            f"({len(bad)} such in chunk {chunk})",
            hint="each number is -ln p of the token, in nats",
        )
    if start == 0 and nats_T[0] != 0:
        raise Violation(
            "protocol", f"token 0: expected 0, got {nats_T[0]:g}", hint="the first token is not scored"
        )


def _require_chunk(answered: int, expected: int) -> None:
    if answered != expected:
        raise Violation(
            "protocol",
            f"expected the answer for chunk {expected}, got one for chunk {answered}",
            hint="answers come in the order of the questions",
        )


def _check_boundary(position: int, row_V: FloatArray, token: int, after_nats: float) -> ChunkBoundary:
    """The evidence at one chunk boundary, in float64. Raises Violation for a row that is not finite."""
    bad = np.flatnonzero(~np.isfinite(row_V))
    if len(bad):
        raise Violation(
            "protocol",
            f"border row before token {position}: expected finite numbers, got {row_V[bad[0]]} for "
            f"id {bad[0]} ({len(bad)} such)",
            hint="rows are natural-log probabilities from float32 logits",
        )
    return ChunkBoundary(position, -float(row_V[token]), after_nats, logsumexp(row_V))
