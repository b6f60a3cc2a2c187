"""Asking a witness: it sees strict prefixes only, its rows are checked, and missing answers stay missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.base.errors import Violation
from harness.protocol import probe
from harness.protocol.conversation import ChunkBoundary, ScoringPass
from harness.protocol.frames import ScoreReady
from tests.harness.fakes.peers import SOON, Peer, conversation, soon

VOCAB, CHUNK = 8, 10
TOKENS_T = (np.arange(35) % VOCAB).astype(np.uint16)
UNIFORM = np.full(VOCAB, -np.log(VOCAB), "<f4").tobytes()


def scored(adapts: bool) -> ScoringPass:
    boundaries = [ChunkBoundary(p, 2.0, 2.0, 0.0) for p in range(CHUNK, 35, CHUNK)]
    return ScoringPass(np.zeros(35, np.float32), "", 1.0, CHUNK, adapts, None, boundaries)


class Witness:
    """Follows the protocol and records how many tokens it had seen at each `predict` and `adapt`."""

    def __init__(self, silent_after: int = 1 << 30, row: bytes = UNIFORM) -> None:
        self.silent_after, self.row = silent_after, row
        self.shown, self.at_predict, self.at_adapt = 0, list[int](), list[int]()

    def __call__(self, peer: Peer) -> None:
        while True:
            frame: dict[str, Any] = peer.hear()
            if frame["op"] == "reveal":
                assert frame["start"] == self.shown
                self.shown += len(frame["payload"]) // 2
                peer.say(op="revealed")
            elif frame["op"] == "adapt":
                self.at_adapt.append(self.shown)
                peer.say(UNIFORM, op="adapted", chunk=frame["chunk"], bytes=len(UNIFORM))
            else:
                self.at_predict.append(self.shown)
                if len(self.at_predict) > self.silent_after:
                    peer.hear()
                peer.say(self.row, op="row", bytes=len(self.row))


def ask(
    witness: Witness, positions: list[int], adapts: bool = True, seconds: float = SOON
) -> probe.ProbeResult:
    ready = ScoreReady(op="ready", chunk_tokens=CHUNK, adapts=adapts, context=None)
    with conversation(witness) as connection:
        context = probe.ProbeContext(connection, ready, TOKENS_T, scored(adapts), VOCAB, seconds, soon())
        return probe.probe(context, np.array(positions))


@pytest.mark.parametrize("adapts", [True, False])
def test_a_row_is_asked_for_when_exactly_the_text_before_its_token_is_revealed(adapts: bool) -> None:
    witness, positions = Witness(), [1, 2, 9, 10, 17, 31]
    found = ask(witness, positions, adapts)
    assert witness.at_predict == sorted({*positions, 10, 20, 30})
    assert witness.at_adapt == ([10, 20, 30] if adapts else [])
    assert found.responses.nats_P == pytest.approx(np.log(VOCAB))
    assert [boundary.position for boundary in found.boundaries] == [10, 20, 30]
    assert found.ended is None


@pytest.mark.slow
def test_a_witness_that_stalls_leaves_the_rest_unanswered_and_says_why() -> None:
    found = ask(Witness(silent_after=2), [1, 2, 3, 4], seconds=2.0)
    assert list(found.responses.answered_P) == [True, True, False, False]
    assert np.isinf(found.responses.charged_P()[2:]).all()
    assert found.ended is not None and "token 3" in found.ended


def test_rows_are_renormalised_and_unusable_ones_are_marked() -> None:
    wide = ask(Witness(row=np.full(VOCAB, 1.0, "<f4").tobytes()), [1])
    assert wide.responses.nats_P[0] == pytest.approx(np.log(VOCAB))
    assert wide.responses.logsumexp_P[0] == pytest.approx(1 + np.log(VOCAB))
    broken = ask(Witness(row=np.full(VOCAB, np.nan, "<f4").tobytes()), [1])
    assert np.isposinf(broken.responses.logsumexp_P[0])
    assert not broken.responses.answered_P[0]
    short = ask(Witness(row=UNIFORM[:-4]), [1, 2])
    assert np.isnan(short.responses.logsumexp_P).all()
    assert short.ended is not None and "payload" in short.ended


def test_a_witness_whose_declaration_differs_from_the_scorers_is_refused() -> None:
    ready = ScoreReady(op="ready", chunk_tokens=CHUNK, adapts=False, context=None)
    with conversation(Witness()) as connection:
        context = probe.ProbeContext(connection, ready, TOKENS_T, scored(True), VOCAB, 1.0, soon())
        with pytest.raises(Violation, match="declares"):
            probe.probe(context, np.array([1]))
