"""Asking a witness many tokens at once: `lanes`, for contestants that declare a context and do not adapt.

A lane is the context of one target: the tokens before it, as many as the contestant says it looks at. Which
lanes may be asked, and when, so that nobody ever holds a target before its row is due:

    cut the text into stretches as long as the context; one witness is asked the targets of the even stretches, another,
    fresh, those of the odd ones
    within a stretch targets are asked in rising order, one a batch; the lanes of a batch come from different stretches

A context reaches back over its own stretch and the one before it at most. So it can hold a target of its own
witness only from its own stretch and lower, and those were asked before. `show` checks this over again for
every batch that is sent, by marking what was shown, and is the only way to send one.

Unlike `predict` this shows text from after a target beside its own context (other lanes'), so a bound made of
it assumes that a row depends on its own lane alone; witness.py compares some rows with those of strict
prefixes. Not covered: contestants that adapt, since their lanes would belong to different chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.base.errors import Violation
from harness.protocol.conversation import ScoringPass
from harness.protocol.frames import Count, Frame, ScoreReady
from harness.protocol.probe import ProbeResult, Timing, describe_timeout, judge_row, require_same_declaration
from harness.protocol.wire import Connection, DeadlineExpired
from harness.scoring.certificate.responses import BoundaryPair, Responses

MAX_CONTEXTS = 64
Positions = npt.NDArray[np.int64]


class Rows(Frame):
    op: Literal["rows"]
    n_bytes: Count = Field(alias="bytes")


def stretches(positions_P: Positions, context: int) -> tuple[Positions, Positions]:
    """The targets of the even stretches of `context` tokens, and of the odd ones: one witness each."""
    odd_P = positions_P // context % 2 == 1
    return positions_P[~odd_P], positions_P[odd_P]


def batches(positions_P: Positions, context: int, most: int = MAX_CONTEXTS) -> Iterator[Positions]:
    """The targets of one witness (rising) as batches: the next of each of at most `most` stretches, until all
    are asked."""
    waiting = iter(
        np.split(positions_P, 1 + np.flatnonzero(np.diff(positions_P // context))) if len(positions_P) else []
    )
    lanes = [list(part[::-1]) for part in islice(waiting, most)]
    while lanes:
        yield np.array(sorted(lane.pop() for lane in lanes), np.int64)
        lanes = [lane for lane in lanes if lane]
        lanes += [list(part[::-1]) for part in islice(waiting, most - len(lanes))]


class ShownTokens:
    """What one witness has been shown so far, token by token."""

    def __init__(self, n_tokens: int, context: int) -> None:
        self.shown_T, self.context = np.zeros(n_tokens, bool), context

    def show(self, targets_L: Positions) -> Positions:
        """The first position of each lane's context, after proof that none of these targets was shown, in
        this batch or before.

        Raises AssertionError: a batch that breaks this is a mistake of ours, and must never be sent.
        """
        starts_L = np.maximum(targets_L - self.context, 0)
        for start, target in zip(starts_L, targets_L, strict=True):
            self.shown_T[start:target] = True
        seen = targets_L[self.shown_T[targets_L]]
        if len(seen):
            raise AssertionError(f"token {seen[0]} would be asked after it was shown")
        return starts_L


def probe_batched(
    connection: Connection,
    ready: ScoreReady,
    tokens_T: npt.NDArray[np.uint16],
    scored: ScoringPass,
    vocab_size: int,
    positions_P: Positions,
    answer_seconds: float,
    deadline: float,
    progress: Callable[[int], None] = lambda done: None,
) -> ProbeResult:
    """All positions of one witness (stretches), batch by batch; each answer has `answer_seconds`, the whole
    ends at `deadline`.

    As asking.ask: what is not answered stays unanswered. The scorer's borders are told where they are among
    the positions."""
    require_same_declaration(ready, scored)
    assert scored.context is not None and not scored.adapts, (
        "lanes are for a declared context without adaptation"
    )
    nats_P, sums_P = np.full(len(positions_P), np.nan), np.full(len(positions_P), np.nan)
    place, timing, ended = (
        dict(zip(positions_P.tolist(), range(len(positions_P)), strict=True)),
        Timing(),
        None,
    )
    before = {boundary.position: boundary.before_nats for boundary in scored.boundaries}
    shown = ShownTokens(len(tokens_T), scored.context)
    try:
        for targets_L in batches(positions_P, scored.context):
            begun = time.monotonic()
            rows_LV = _rows(
                connection, tokens_T, vocab_size, targets_L, shown, min(deadline, begun + answer_seconds)
            )
            timing.rows += len(targets_L)
            timing.row_seconds += time.monotonic() - begun
            for target, row_V in zip(targets_L.tolist(), rows_LV, strict=True):
                sums_P[place[target]], nats_P[place[target]] = judge_row(row_V, int(tokens_T[target]))
            progress(timing.rows)
    except Violation as violation:
        ended = violation.message
    except DeadlineExpired:
        ended = f"rows did not come {describe_timeout(answer_seconds, deadline)}, after {timing.rows:,} of {len(positions_P):,}"
    passed = [
        position for position in sorted(before.keys() & place.keys()) if not np.isnan(nats_P[place[position]])
    ]
    boundaries = [
        BoundaryPair(position, before[position], float(nats_P[place[position]])) for position in passed
    ]
    return ProbeResult(
        Responses(np.where(np.isnan(sums_P), np.inf, nats_P), sums_P), boundaries, ended, timing
    )


def _rows(
    connection: Connection,
    tokens_T: npt.NDArray[np.uint16],
    vocab_size: int,
    targets_L: Positions,
    shown: ShownTokens,
    until: float,
) -> npt.NDArray[np.float32]:
    """One `lanes` frame and its rows_LV."""
    starts_L = shown.show(targets_L)
    payload = b"".join(
        np.ascontiguousarray(tokens_T[start:target], "<u2").tobytes()
        for start, target in zip(starts_L, targets_L, strict=True)
    )
    connection.send(
        {
            "op": "lanes",
            "starts": starts_L.tolist(),
            "lengths": (targets_L - starts_L).tolist(),
            "bytes": len(payload),
        },
        until,
        payload,
    )
    frame = connection.receive(until, Rows)
    rows = connection.payload(
        4 * vocab_size * len(targets_L), frame.n_bytes, f"rows of {len(targets_L)} lanes", until
    )
    return np.frombuffer(rows, "<f4").reshape(len(targets_L), vocab_size)
