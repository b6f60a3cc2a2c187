"""Asking a witness one token at a time: `reveal` up to a probe, `predict`, check the row; `adapt` at the
scorer's borders.

The witness is shown x_0 .. x_{t-1} and nothing else when its row for x_t is due; x_t itself follows with the
next `reveal`. What it does not answer, late or wrongly or because it left, stays unanswered and is charged by
the bound (harness/scoring/certificate/bound.py); nothing is asked again. Not covered: isolation from the
scorer, and asking many at once (lanes.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.base.errors import Violation
from harness.protocol.conversation import ScoringPass
from harness.protocol.frames import Adapted, Count, Frame, ScoreReady
from harness.protocol.wire import Connection, DeadlineExpired
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.rows import logsumexp


class Revealed(Frame):
    op: Literal["revealed"]


class Row(Frame):
    op: Literal["row"]
    n_bytes: Count = Field(alias="bytes")


@dataclass
class Timing:
    """How long a witness thought, by the judge's clock, for how many answers."""

    rows: int = 0
    row_seconds: float = 0.0
    adapts: int = 0
    adapt_seconds: float = 0.0
    reveal_seconds: float = 0.0


class ProbeResult(NamedTuple):
    """The answers in the order of the positions, the borders passed, why it ended early if it did, and its
    time."""

    responses: Responses
    boundaries: list[BoundaryPair]
    ended: str | None
    timing: Timing = Timing()


def probe(
    connection: Connection,
    ready: ScoreReady,
    tokens_T: npt.NDArray[np.uint16],
    scored: ScoringPass,
    vocab_size: int,
    positions_P: npt.NDArray[np.int64],
    answer_seconds: float,
    deadline: float,
    progress: Callable[[int], None] = lambda done: None,
) -> ProbeResult:
    """All positions, in rising order. Each answer has `answer_seconds`, the whole ends at `deadline`
    (monotonic seconds).

    `progress` is called with the positions answered so far.

    Raises Violation where the witness declares another chunk, context or adaptation than the scorer did.
    """
    require_same_declaration(ready, scored)
    nats_P, sums_P = np.full(len(positions_P), np.nan), np.full(len(positions_P), np.nan)
    boundaries, ended = [], None
    before = {boundary.position: boundary.before_nats for boundary in scored.boundaries}
    talk = _ProbeSession(connection, tokens_T, vocab_size, answer_seconds, deadline)
    asked = dict(zip(positions_P.tolist(), range(len(positions_P)), strict=True))
    last = int(positions_P[-1]) // ready.chunk_tokens if len(positions_P) else -1
    stops = sorted({*asked, *(chunk * ready.chunk_tokens for chunk in range(1, last + 1))})
    try:
        for position in stops:
            chunk, offset = divmod(position, ready.chunk_tokens)
            talk.reveal(position, ready.chunk_tokens)
            if offset == 0 and position:
                if ready.adapts:
                    talk.adapt(chunk - 1)
                sums, nats = judge_row(talk.predict(), int(tokens_T[position]))
                boundaries.append(BoundaryPair(position, before[position], nats))
            elif position in asked:
                sums, nats = judge_row(talk.predict(), int(tokens_T[position]))
            if position in asked:
                sums_P[asked[position]], nats_P[asked[position]] = sums, nats
                progress(asked[position] + 1)
    except Violation as violation:
        ended = violation.message
    except DeadlineExpired:
        ended = f"an answer before token {position} did not come {describe_timeout(answer_seconds, deadline)}"
    return ProbeResult(
        Responses(np.where(np.isnan(sums_P), np.inf, nats_P), sums_P), boundaries, ended, talk.timing
    )


def require_same_declaration(ready: ScoreReady, scored: ScoringPass) -> None:
    """Raises Violation where the witness declares another chunk, context or adaptation than the scorer
    did."""
    declared = (ready.chunk_tokens, ready.adapts, ready.context)
    if declared != (scored.chunk_tokens, scored.adapts, scored.context):
        raise Violation(
            "protocol",
            f"the witness declares (chunk_tokens, adapts, context) {declared}, the scorer declared "
            f"{(scored.chunk_tokens, scored.adapts, scored.context)}",
            hint="both are the same program",
        )


def describe_timeout(answer_seconds: float, deadline: float) -> str:
    """Which of two clocks ran out: that of one answer, in seconds, or that of all (monotonic)."""
    return (
        "before the time of all answers was over"
        if time.monotonic() >= deadline
        else f"within {answer_seconds:g} s"
    )


def judge_row(row_V: npt.NDArray[np.float32], token: int) -> tuple[float, float]:
    """(logsumexp, -ln of the token's probability under the row renormalised in float64), both inf for a
    broken row."""
    log_sum = logsumexp(row_V)
    return log_sum, max(log_sum - float(row_V[token]), 0.0) if np.isfinite(log_sum) else np.inf


class _ProbeSession:
    """The frames, and how much is revealed."""

    def __init__(
        self,
        connection: Connection,
        tokens_T: npt.NDArray[np.uint16],
        vocab_size: int,
        answer_seconds: float,
        deadline: float,
    ) -> None:
        self.connection, self.tokens_T, self.vocab_size = connection, tokens_T, vocab_size
        self.answer_seconds, self.deadline, self.known, self.timing = answer_seconds, deadline, 0, Timing()

    def until(self) -> float:
        return min(self.deadline, time.monotonic() + self.answer_seconds)

    def reveal(self, stop: int, chunk_tokens: int) -> None:
        """x up to, not including, `stop`, none of which lies beyond the chunk that is begun."""
        if stop == self.known:
            return
        piece_T = np.ascontiguousarray(self.tokens_T[self.known : stop], "<u2")
        begun, until = time.monotonic(), self.until()
        self.connection.send(
            {
                "op": "reveal",
                "chunk": self.known // chunk_tokens,
                "start": self.known,
                "bytes": 2 * len(piece_T),
            },
            until,
            piece_T.tobytes(),
        )
        self.connection.receive(until, Revealed)
        self.known = stop
        self.timing.reveal_seconds += time.monotonic() - begun

    def predict(self) -> npt.NDArray[np.float32]:
        begun, until = time.monotonic(), self.until()
        self.connection.send({"op": "predict"}, until)
        frame = self.connection.receive(until, Row)
        row = self.connection.payload(
            4 * self.vocab_size, frame.n_bytes, f"row before token {self.known}", until
        )
        self.timing.rows += 1
        self.timing.row_seconds += time.monotonic() - begun
        return np.frombuffer(row, "<f4")

    def adapt(self, chunk: int) -> None:
        begun, until = time.monotonic(), self.until()
        self.connection.send({"op": "adapt", "chunk": chunk}, until)
        frame = self.connection.receive(until, Adapted)
        self.connection.payload(4 * self.vocab_size, frame.n_bytes, f"border row after chunk {chunk}", until)
        self.timing.adapts += 1
        self.timing.adapt_seconds += time.monotonic() - begun
