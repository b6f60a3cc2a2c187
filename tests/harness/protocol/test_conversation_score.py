"""Stage score over a socket pair: a lawful pass commits every number once, and each violation is named."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.base.errors import Violation
from harness.edition import PROFILES
from harness.protocol import conversation as judging, ledger
from harness.protocol.frames import ScoreReady
from tests.harness.fakes.peers import SOON, Peer, conversation

V = 8
"""Vocabulary of the scripted contestant."""
LIMITS = replace(PROFILES["pocket"], score_seconds=SOON)
TOKENS_T = (np.arange(10, dtype=np.uint16) * 3) % V
UNIFORM = np.float32(math.log(V))
Answer = Callable[[int, np.ndarray], np.ndarray]


def uniform(start: int, tokens_T: np.ndarray) -> np.ndarray:
    """The honest numbers of a uniform model; 0 for token 0."""
    nats_T = np.full(len(tokens_T), UNIFORM)
    if start == 0:
        nats_T[0] = 0
    return nats_T


ROW_V = np.full(V, -UNIFORM)


def scorer(
    numbers: Answer = uniform,
    row_V: np.ndarray = ROW_V,
    adapts: bool = False,
    frames: list[dict[str, Any]] | None = None,
    total: int = len(TOKENS_T),
    chunk_shift: int = 0,
) -> Callable[[Peer], None]:
    """A contestant's script for stage score: the honest one by default, changed by the arguments.

    The frames that it receives are appended to `frames`.
    """

    def script(peer: Peer) -> None:
        row = row_V.astype("<f4").tobytes()
        while (frame := peer.hear())["op"] != "bye":
            if frames is not None:
                frames.append(frame)
            if frame["op"] == "adapt":
                peer.say(row, op="adapted", chunk=frame["chunk"], bytes=len(row))
                continue
            tokens_T = np.frombuffer(frame["payload"], "<u2")
            last = frame["start"] + len(tokens_T) == total
            answer = numbers(frame["start"], tokens_T).astype("<f4").tobytes() + (
                b"" if adapts or last else row
            )
            peer.say(answer, op="nats", chunk=frame["chunk"] + chunk_shift, bytes=len(answer))
        if frames is not None:
            frames.append(frame)

    return script


def ready(chunk_tokens: int = 4, adapts: bool = False) -> ScoreReady:
    return ScoreReady(op="ready", chunk_tokens=chunk_tokens, adapts=adapts, context=None)


def score(
    script: Callable[[Peer], None],
    frame: ScoreReady | None = None,
    tokens_T: np.ndarray = TOKENS_T,
    limits: Any = LIMITS,
    progress: Callable[[int], None] = lambda done: None,
) -> judging.ScoringPass:
    with conversation(script) as judge:
        return judging.score(judge, frame or ready(), tokens_T, V, limits, progress)


def violation_of(
    script: Callable[[Peer], None], match: str, frame: ScoreReady | None = None, **named: Any
) -> Violation:
    """The violation with which scoring the contestant `script` ends."""
    with pytest.raises(Violation, match=match) as caught:
        score(script, frame, **named)
    assert caught.value.message.isascii()
    return caught.value


# --- score: the lawful pass


def test_a_pass_without_adaptation_reveals_every_token_once_in_order_and_commits_every_number() -> None:
    frames: list[dict[str, Any]] = []
    done: list[int] = []
    scored = score(scorer(frames=frames), progress=done.append)
    assert [(f["op"], f.get("chunk"), f.get("start")) for f in frames] == [
        ("score", 0, 0),
        ("score", 1, 4),
        ("score", 2, 8),
        ("bye", None, None),
    ]
    assert b"".join(f["payload"] for f in frames) == TOKENS_T.astype("<u2").tobytes()
    assert scored.nats_T.tolist() == [0.0] + [float(UNIFORM)] * 9
    assert scored.ledger_sha256 == ledger.replay(TOKENS_T, scored.nats_T, 4)
    assert (scored.chunk_tokens, scored.adapts, scored.context) == (4, False, None)
    assert done == [4, 8, 10]
    assert 0 < scored.seconds < SOON


def test_a_pass_with_adaptation_sends_adapt_after_each_commit_but_not_after_the_last_chunk() -> None:
    frames: list[dict[str, Any]] = []
    scored = score(scorer(frames=frames, adapts=True), ready(adapts=True))
    assert [(f["op"], f.get("chunk")) for f in frames] == [
        ("score", 0),
        ("adapt", 0),
        ("score", 1),
        ("adapt", 1),
        ("score", 2),
        ("bye", None),
    ]
    assert scored.ledger_sha256 == score(scorer()).ledger_sha256, "the ledger holds tokens and numbers only"
    assert [boundary.position for boundary in scored.boundaries] == [4, 8]


@pytest.mark.parametrize(
    ("tokens", "chunk", "chunks"), [(10, 10, 1), (10, 11, 1), (10, 5, 2), (10, 1, 10), (11, 5, 3), (2, 1, 2)]
)
def test_every_token_is_scored_whatever_the_chunk_size(tokens: int, chunk: int, chunks: int) -> None:
    stream_T = np.arange(tokens, dtype=np.uint16) % V
    scored = score(scorer(total=tokens), ready(chunk), stream_T)
    assert len(scored.nats_T) == tokens
    assert len(scored.boundaries) == chunks - 1


def test_each_chunk_boundary_keeps_the_border_row_and_the_number_that_follows() -> None:
    logits_V = np.linspace(0, 3, V)
    row_V = (logits_V - np.log(np.exp(logits_V).sum())).astype(np.float32)

    def honest(start: int, tokens_T: np.ndarray) -> np.ndarray:
        nats_T = uniform(start, tokens_T)
        if start:
            nats_T[0] = -row_V[tokens_T[0]]
        return nats_T

    for boundary in score(scorer(honest, row_V)).boundaries:
        assert boundary.before_nats == boundary.after_nats == float(-row_V[TOKENS_T[boundary.position]])
        assert abs(boundary.logsumexp) < 1e-6


def test_a_border_row_that_does_not_sum_to_one_and_a_changed_number_are_kept_as_evidence() -> None:
    def eager(start: int, tokens_T: np.ndarray) -> np.ndarray:
        return uniform(start, tokens_T) * 0.5

    for boundary in score(scorer(eager, ROW_V + np.float32(0.25))).boundaries:
        assert boundary.logsumexp == pytest.approx(0.25, abs=1e-6)
        assert boundary.before_nats == pytest.approx(float(UNIFORM) - 0.25)
        assert boundary.after_nats == pytest.approx(float(UNIFORM) * 0.5)


def test_a_contestant_that_leaves_before_bye_is_still_scored() -> None:
    def script(peer: Peer) -> None:
        frame = peer.hear()
        peer.say(uniform(0, TOKENS_T).tobytes(), op="nats", chunk=frame["chunk"], bytes=40)
        peer.socket.close()

    assert len(score(script, ready(10)).nats_T) == 10


@pytest.mark.slow
def test_a_contestant_that_answers_without_reading_cannot_hang_or_crash_the_judge_at_bye() -> None:
    stream_T = np.zeros(60_000, np.uint16)  # unread, they fill the socket so that `bye` cannot be written

    def script(peer: Peer) -> None:
        peer.say(uniform(0, stream_T).tobytes(), op="nats", chunk=0, bytes=4 * len(stream_T))
        peer.stall()

    begun = time.monotonic()
    assert len(score(script, ready(60_000), stream_T).nats_T) == len(stream_T)
    assert judging.BYE_SECONDS <= time.monotonic() - begun < SOON, (
        "the judge waited for `bye` until its deadline"
    )


# --- score: every way of breaking it


@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-1e-6, "-1e-06")]
)
@pytest.mark.parametrize("position", [1, 6, 9])
def test_a_number_that_is_negative_or_not_finite_is_named_with_its_token(
    value: float, shown: str, position: int
) -> None:
    def numbers(start: int, tokens_T: np.ndarray) -> np.ndarray:
        nats_T = uniform(start, tokens_T)
        if start <= position < start + len(nats_T):
            nats_T[position - start] = value
        return nats_T

    violation = violation_of(
        scorer(numbers), f"token {position}: expected a finite number >= 0, got {shown} \\("
    )
    assert (violation.rule, violation.limit) == ("protocol", False)


def test_the_number_of_token_0_must_be_zero() -> None:
    violation_of(
        scorer(lambda start, tokens_T: np.full(len(tokens_T), UNIFORM)),
        r"token 0: expected 0, got 2\.07944\n",
    )


@pytest.mark.parametrize("difference", [-1, 1, V])
def test_a_wrong_count_of_numbers_is_refused(difference: int) -> None:
    def numbers(start: int, tokens_T: np.ndarray) -> np.ndarray:
        return np.zeros(len(tokens_T) + difference)

    violation_of(scorer(numbers), "nats of chunk 0: expected a payload of 48 bytes, the frame declares")


def test_a_border_row_after_the_last_chunk_is_refused() -> None:
    violation_of(scorer(total=1000), "nats of chunk 2: expected a payload of 8 bytes, the frame declares 40")


def test_a_missing_border_row_is_refused() -> None:
    violation_of(
        scorer(adapts=True), "nats of chunk 0: expected a payload of 48 bytes, the frame declares 16"
    )


@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("shift", [-1, 1])
def test_an_answer_for_another_chunk_is_refused(adapts: bool, shift: int) -> None:
    match = "key 'chunk'" if shift < 0 else "expected the answer for chunk 0, got one for chunk 1"
    violation_of(scorer(adapts=adapts, chunk_shift=shift), match, ready(adapts=adapts))


def test_adapted_for_another_chunk_is_refused() -> None:
    def script(peer: Peer) -> None:
        peer.hear()
        peer.say(uniform(0, TOKENS_T[:4]).tobytes(), op="nats", chunk=0, bytes=16)
        peer.hear()
        peer.say(ROW_V.tobytes(), op="adapted", chunk=1, bytes=4 * V)

    violation_of(script, "expected the answer for chunk 0, got one for chunk 1", ready(adapts=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("place", [int(TOKENS_T[4]), (int(TOKENS_T[4]) + 1) % V])
def test_a_border_row_must_be_finite_because_evidence_is_written_as_json(
    value: float, adapts: bool, place: int
) -> None:
    row_V = ROW_V.copy()
    row_V[place] = value
    match = f"border row before token 4: expected finite numbers, got .* for id {place}"
    violation_of(scorer(row_V=row_V, adapts=adapts), match, ready(adapts=adapts))


def test_a_chunk_above_the_editions_cap_is_refused_before_a_token_is_shown() -> None:
    frames: list[dict[str, Any]] = []
    violation_of(scorer(frames=frames), "chunk_tokens 262145, at most 262144", ready(262_145))
    violation_of(scorer(frames=frames), "at most 262144", ready(10**19))
    assert frames == []


@pytest.mark.slow
def test_scoring_past_its_clock_is_a_limit_exceeded() -> None:
    def slow(start: int, tokens_T: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return uniform(start, tokens_T)

    violation = violation_of(
        scorer(slow), "scoring did not end within 0.5 s", limits=replace(LIMITS, score_seconds=0.5)
    )
    assert (violation.rule, violation.limit) == ("score-clock", True)


@pytest.mark.parametrize("adapts", [False, True])
def test_closing_the_socket_in_the_middle_is_a_violation(adapts: bool) -> None:
    def leaving(start: int, tokens_T: np.ndarray) -> np.ndarray:
        if start:
            raise EOFError
        return uniform(start, tokens_T)

    def script(peer: Peer) -> None:
        try:
            scorer(leaving, adapts=adapts)(peer)
        finally:
            peer.socket.close()

    violation_of(script, "closed the socket", ready(adapts=adapts))


def test_adapted_without_adapt_is_refused() -> None:
    def script(peer: Peer) -> None:
        peer.hear()
        peer.say(ROW_V.tobytes(), op="adapted", chunk=0, bytes=4 * V)

    violation_of(script, "expected nats or progress")


def test_the_evidence_at_a_chunk_boundary_survives_json() -> None:
    boundaries = [boundary._asdict() for boundary in score(scorer()).boundaries]
    assert json.loads(json.dumps(boundaries, allow_nan=False)) == boundaries
