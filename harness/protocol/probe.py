"""Ask a witness one token at a time: `reveal` the text before it, `predict`, check the row.

When its row for x_t is due, the witness has been shown x_0 .. x_{t-1} and nothing else; x_t follows with the
next `reveal`. At the end of each chunk it is sent `adapt`, as the scorer was. A question that is answered
late, wrongly or not at all is not asked again: it has no answer, and the bound charges the largest possible
gain for it (harness/scoring/certificate/bound.py). Many tokens at once: batched_probe.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
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

Positions = npt.NDArray[np.int64]


class Revealed(Frame):
    op: Literal["revealed"]


class Row(Frame):
    op: Literal["row"]
    n_bytes: Count = Field(alias="bytes")


@dataclass
class Timing:
    """How long a witness took, by the judge's clock, and for how many answers."""

    rows: int = 0
    row_seconds: float = 0.0
    adapts: int = 0
    adapt_seconds: float = 0.0
    reveal_seconds: float = 0.0


class ProbeResult(NamedTuple):
    """What one witness answered: responses in the order of the positions, and one pair per chunk boundary."""

    responses: Responses
    boundaries: list[BoundaryPair]
    ended: str | None
    """Why it ended early, if it did."""
    timing: Timing


@dataclass(frozen=True)
class ProbeContext:
    """One witness, what it is asked about, and its deadlines."""

    connection: Connection
    ready: ScoreReady
    """What the witness declared."""
    tokens_T: npt.NDArray[np.uint16]
    scored: ScoringPass
    vocab_size: int
    answer_seconds: float
    """Time for one answer."""
    deadline: float
    """End of all answers, monotonic seconds."""
    on_progress: Callable[[int], None] = lambda done: None
    """Called with the number of positions answered so far."""

    def until(self) -> float:
        """The deadline of an answer that is asked for now, monotonic seconds."""
        return min(self.deadline, time.monotonic() + self.answer_seconds)

    def timeout(self) -> str:
        """Which of the two clocks has run out, for a sentence."""
        if time.monotonic() >= self.deadline:
            return "before the time of all answers was over"
        return f"within {self.answer_seconds:g} s"

    def require_same_declaration(self) -> None:
        """Raises Violation where the witness declares other chunks, context or adaptation than the scorer."""
        declared = (self.ready.chunk_tokens, self.ready.adapts, self.ready.context)
        expected = (self.scored.chunk_tokens, self.scored.adapts, self.scored.context)
        if declared != expected:
            raise Violation(
                "protocol",
                f"the witness declares (chunk_tokens, adapts, context) {declared}, the scorer declared "
                f"{expected}",
                hint="both are the same program",
            )


class CheckedRows:
    """The rows that came for some positions, each reduced to the true token's nats and the row's
    logsumexp.
    """

    def __init__(self, positions_P: Positions) -> None:
        self.index = {int(position): at for at, position in enumerate(positions_P)}
        self.nats_P = np.full(len(positions_P), np.inf)
        self.logsumexp_P = np.full(len(positions_P), np.nan)

    def add(self, position: int, row_V: npt.NDArray[np.float32], token: int) -> float:
        """Keep a row if its position was asked for; returns the nats of the true token."""
        log_sum, nats = check_row(row_V, token)
        if (at := self.index.get(position)) is not None:
            self.logsumexp_P[at], self.nats_P[at] = log_sum, nats
        return nats

    def responses(self) -> Responses:
        return Responses(self.nats_P, self.logsumexp_P)


def check_row(row_V: npt.NDArray[np.float32], token: int) -> tuple[float, float]:
    """(logsumexp, -ln p of the token under the row renormalised in float64); both +inf for a row not all
    finite.
    """
    log_sum = logsumexp(row_V)
    return log_sum, max(log_sum - float(row_V[token]), 0.0) if np.isfinite(log_sum) else np.inf


def probe(context: ProbeContext, positions_P: Positions) -> ProbeResult:
    """Ask for the rows at all positions, in rising order.

    Raises Violation where the witness declares other chunks, context or adaptation than the scorer did.
    """
    context.require_same_declaration()
    chunk_tokens = context.ready.chunk_tokens
    rows, boundaries, ended = CheckedRows(positions_P), [], None
    before = {boundary.position: boundary.before_nats for boundary in context.scored.boundaries}
    last = int(positions_P[-1]) // chunk_tokens if len(positions_P) else -1
    stops = sorted({*rows.index, *(chunk * chunk_tokens for chunk in range(1, last + 1))})
    talk = _Dialogue(context)
    try:
        for position in stops:
            chunk, offset = divmod(position, chunk_tokens)
            talk.reveal(position)
            if offset == 0 and position and context.ready.adapts:
                talk.adapt(chunk - 1)
            nats = rows.add(position, talk.predict(), int(context.tokens_T[position]))
            if offset == 0 and position:
                boundaries.append(BoundaryPair(position, before[position], nats))
            if position in rows.index:
                context.on_progress(rows.index[position] + 1)
    except Violation as violation:
        ended = violation.message
    except DeadlineExpired:
        ended = f"an answer before token {position} did not come {context.timeout()}"
    return ProbeResult(rows.responses(), boundaries, ended, talk.timing)


@dataclass
class _Dialogue:
    """The frames of one witness in order: how much is revealed, and how long answers took."""

    context: ProbeContext
    revealed: int = 0
    timing: Timing = field(default_factory=Timing)

    def reveal(self, stop: int) -> None:
        """Show x up to, not including, `stop`; never beyond the chunk that has begun."""
        if stop == self.revealed:
            return
        context, began = self.context, time.monotonic()
        piece_T = np.ascontiguousarray(context.tokens_T[self.revealed : stop], "<u2")
        frame = {
            "op": "reveal",
            "chunk": self.revealed // context.ready.chunk_tokens,
            "start": self.revealed,
            "bytes": 2 * len(piece_T),
        }
        until = context.until()
        context.connection.send(frame, until, piece_T.tobytes())
        context.connection.receive(until, Revealed)
        self.revealed = stop
        self.timing.reveal_seconds += time.monotonic() - began

    def predict(self) -> npt.NDArray[np.float32]:
        """The row_V before the next token."""
        context, began, until = self.context, time.monotonic(), self.context.until()
        context.connection.send({"op": "predict"}, until)
        frame = context.connection.receive(until, Row)
        row = context.connection.payload(
            4 * context.vocab_size, frame.n_bytes, f"row before token {self.revealed}", until
        )
        self.timing.rows += 1
        self.timing.row_seconds += time.monotonic() - began
        return np.frombuffer(row, "<f4")

    def adapt(self, chunk: int) -> None:
        """Let the witness learn from a chunk, as the scorer did; its boundary row is not used."""
        context, began, until = self.context, time.monotonic(), self.context.until()
        context.connection.send({"op": "adapt", "chunk": chunk}, until)
        frame = context.connection.receive(until, Adapted)
        what = f"border row after chunk {chunk}"
        context.connection.payload(4 * context.vocab_size, frame.n_bytes, what, until)
        self.timing.adapts += 1
        self.timing.adapt_seconds += time.monotonic() - began
