"""Ask a witness many tokens at once (`lanes` frames): for contestants that declare a context and do not
adapt.

A context is the tokens before one target, as many as the contestant declares. A witness must not be sent a
target before it has predicted it, so the order is:

    1. Cut the text into stretches as long as the context. One witness is asked the targets of the even
       stretches, a second, fresh one those of the odd stretches.
    2. Within a stretch, targets are asked in rising order, one per batch; the contexts of a batch come from
       different stretches.

A context lies in the stretch of its target and the one before, which belongs to the other witness. So the
only targets of this witness in it are earlier ones of the same stretch, which were predicted in earlier
batches. `ShownTokens.show` marks what was shown, and verifies this for every batch before it is sent.

Unlike `predict`, a batch shows text after a target, in other contexts. So a bound from it assumes
that a row depends on its own context alone; run/certify.py compares some rows with those after strict
prefixes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.base.errors import Violation
from harness.protocol.frames import Count, Frame
from harness.protocol.probe import CheckedRows, Positions, ProbeContext, ProbeResult, Timing
from harness.protocol.wire import DeadlineExpired
from harness.scoring.certificate.responses import BoundaryPair

MAX_CONTEXTS = 64
"""Contexts in one batch."""


class Rows(Frame):
    op: Literal["rows"]
    n_bytes: Count = Field(alias="bytes")


def stretches(positions_P: Positions, context: int) -> tuple[Positions, Positions]:
    """The targets of the even stretches of `context` tokens, and those of the odd ones: one witness each."""
    odd_P = positions_P // context % 2 == 1
    return positions_P[~odd_P], positions_P[odd_P]


def batches(positions_P: Positions, context: int, most: int = MAX_CONTEXTS) -> Iterator[Positions]:
    """One witness's targets (rising) as batches: each takes the next target of up to `most` stretches."""
    starts = 1 + np.flatnonzero(np.diff(positions_P // context))
    waiting = iter(np.split(positions_P, starts) if len(positions_P) else [])
    open_stretches = [list(part[::-1]) for part in islice(waiting, most)]
    while open_stretches:
        yield np.array(sorted(stretch.pop() for stretch in open_stretches), np.int64)
        open_stretches = [stretch for stretch in open_stretches if stretch]
        open_stretches += [list(part[::-1]) for part in islice(waiting, most - len(open_stretches))]


class ShownTokens:
    """Which tokens one witness has been shown so far."""

    def __init__(self, n_tokens: int, context: int) -> None:
        self.shown_T, self.context = np.zeros(n_tokens, bool), context

    def show(self, targets_L: Positions) -> Positions:
        """Mark the contexts of a batch as shown; returns where each begins (L contexts).

        Raises AssertionError where a target of the batch was shown, now or before: a bug of the judge; such a
        batch must not be sent.
        """
        starts_L = np.maximum(targets_L - self.context, 0)
        for start, target in zip(starts_L, targets_L, strict=True):
            self.shown_T[start:target] = True
        seen = targets_L[self.shown_T[targets_L]]
        if len(seen):
            raise AssertionError(f"token {seen[0]} would be asked after it was shown")
        return starts_L


def probe_batched(context: ProbeContext, positions_P: Positions) -> ProbeResult:
    """Ask one witness for the rows at all its positions (see `stretches`), batch by batch, as probe.probe
    does.

    Chunk boundaries are reported where they are among the positions.
    """
    context.require_same_declaration()
    scored, n_context = context.scored, context.scored.context
    assert n_context is not None and not scored.adapts, "batches need a declared context and no adaptation"
    rows, timing, ended = CheckedRows(positions_P), Timing(), None
    shown = ShownTokens(len(context.tokens_T), n_context)
    try:
        for targets_L in batches(positions_P, n_context):
            began = time.monotonic()
            rows_LV = _ask(context, targets_L, shown.show(targets_L))
            timing.rows += len(targets_L)
            timing.row_seconds += time.monotonic() - began
            for target, row_V in zip(targets_L.tolist(), rows_LV, strict=True):
                rows.add(target, row_V, int(context.tokens_T[target]))
            context.on_progress(timing.rows)
    except Violation as violation:
        ended = violation.message
    except DeadlineExpired:
        ended = f"rows did not come {context.timeout()}, after {timing.rows:,} of {len(positions_P):,}"
    boundaries = [
        BoundaryPair(boundary.position, boundary.before_nats, float(rows.nats_P[at]))
        for boundary in scored.boundaries
        if (at := rows.index.get(boundary.position)) is not None and not np.isnan(rows.logsumexp_P[at])
    ]
    return ProbeResult(rows.responses(), sorted(boundaries), ended, timing)


def _ask(context: ProbeContext, targets_L: Positions, starts_L: Positions) -> npt.NDArray[np.float32]:
    """Send one `lanes` frame; its rows_LV."""
    until = context.until()
    payload = b"".join(
        np.ascontiguousarray(context.tokens_T[start:target], "<u2").tobytes()
        for start, target in zip(starts_L, targets_L, strict=True)
    )
    frame = {
        "op": "lanes",
        "starts": starts_L.tolist(),
        "lengths": (targets_L - starts_L).tolist(),
        "bytes": len(payload),
    }
    context.connection.send(frame, until, payload)
    answer = context.connection.receive(until, Rows)
    n_bytes = 4 * context.vocab_size * len(targets_L)
    rows = context.connection.payload(n_bytes, answer.n_bytes, f"rows of {len(targets_L)} lanes", until)
    return np.frombuffer(rows, "<f4").reshape(len(targets_L), context.vocab_size)
