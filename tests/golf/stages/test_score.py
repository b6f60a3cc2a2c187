"""The score stage over a real socket: scorer and witness agree, and follow docs/protocol.md."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer
from golf.model.gpt import GPT
from golf.recipe.config import Config, load
from golf.recipe.schema import AdaptConfig
from golf.runtime.dist import Ranks
from golf.runtime.wire import Setup, Wire, WireError
from golf.stages import score
from tests.golf.fakes.recipes import FULL, V, lively
from tests.golf.fakes.score_stage import NOWHERE, Judge, score_stream, stage, stream

ALIGNED_LEARNING = load(FULL)
LEARNING = replace(ALIGNED_LEARNING, score=replace(ALIGNED_LEARNING.score, align="stream"))
CONFIG = replace(LEARNING, adapt=AdaptConfig())
ALIGNED = replace(ALIGNED_LEARNING, adapt=AdaptConfig())
BIAS_ONLY = replace(LEARNING, adapt=replace(LEARNING.adapt, epochs=0))
WEIGHTS_ONLY = replace(LEARNING, adapt=replace(LEARNING.adapt, bias_lr=0.0))
LEARNERS = pytest.mark.parametrize(
    "config",
    [LEARNING, BIAS_ONLY, WEIGHTS_ONLY, ALIGNED_LEARNING],
    ids=["both", "bias", "weights", "both, aligned"],
)
RULES = pytest.mark.parametrize("config", [CONFIG, ALIGNED], ids=["stream", "documents"])
WINDOW, STRIDE, CHUNK = CONFIG.score.window, CONFIG.score.stride, CONFIG.score.chunk_tokens
TOLERANCE_NATS = 2e-5


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model whose predictions depend on everything. Stages learn in copies of it."""
    return lively(CONFIG).requires_grad_(False)


def test_ready_declares_what_the_judge_plans_by(model):
    with stage(model, CONFIG, "scorer", 10) as judge:
        assert judge.ready == {
            "op": "ready",
            "chunk_tokens": CHUNK,
            "adapts": False,
            "context": WINDOW,
            "world": 1,
            "attention": "sdpa",
        }
    with stage(model, CONFIG, "scorer", 10, most_chunk=50) as judge:
        assert judge.ready["chunk_tokens"] == 48  # the judge's limit, down to a multiple of the stride


@pytest.mark.parametrize("n", [1, 2, STRIDE, STRIDE + 1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
def test_every_token_gets_one_number_and_the_first_gets_zero(model, n):
    nats, rows = score_stream(model, CONFIG, stream(n))
    assert nats.shape == (n,)
    assert nats[0] == 0
    assert np.isfinite(nats).all()
    assert (nats[1:] > 0).all()
    assert len(rows) == (n - 1) // CHUNK


def test_a_boundary_prediction_is_a_distribution_and_gives_the_next_chunks_first_number_exactly(model):
    tokens = stream(4 * CHUNK)
    nats, rows = score_stream(model, CONFIG, tokens)
    for row, start in zip(rows, range(CHUNK, len(tokens), CHUNK), strict=True):
        assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5
        assert -row[tokens[start]] == nats[start]


@RULES
@pytest.mark.slow
def test_chunks_of_any_length_give_the_same_numbers(model, config):
    tokens = stream(200)
    whole, _ = score_stream(model, config, tokens)
    for chunk in (5, STRIDE, 61):
        np.testing.assert_allclose(
            score_stream(model, config, tokens, chunk=chunk)[0], whole, atol=TOLERANCE_NATS
        )


@RULES
def test_score_predict_and_lanes_agree_everywhere(model, config):
    tokens = stream(3 * CHUNK + 11)
    nats, _ = score_stream(model, config, tokens)
    boundaries = np.flatnonzero(tokens == 1)[1:]
    at_boundaries = {int(t) for boundary in boundaries for t in (boundary, boundary + 1)}
    probes = sorted({1, 2, STRIDE, WINDOW, CHUNK - 1, CHUNK, CHUNK + 1, len(tokens) - 1} | at_boundaries)
    with stage(model, config, "witness", len(tokens)) as judge:
        known = 0
        for t in probes:
            judge.reveal(known, tokens[known:t])
            known = t
            row = judge.predict()
            assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5
            assert abs(-row[tokens[t]] - nats[t]) < TOLERANCE_NATS, f"token {t}"
    with stage(model, config, "witness", len(tokens)) as judge:
        starts = [max(0, t - WINDOW) for t in probes]
        rows = judge.lanes(starts, [tokens[start:t] for start, t in zip(starts, probes, strict=True)])
        expected = -rows[np.arange(len(probes)), tokens[probes]]
        np.testing.assert_allclose(expected, nats[probes], atol=TOLERANCE_NATS)


def test_a_number_depends_on_the_whole_window_and_on_nothing_after_it(model):
    tokens = stream(150)
    nats, _ = score_stream(model, CONFIG, tokens)
    changed = tokens.copy()
    changed[100:] = 2 + (changed[100:] + 7) % (V - 2)
    again, _ = score_stream(model, CONFIG, changed)
    np.testing.assert_array_equal(again[:100], nats[:100])
    changed = tokens.copy()
    changed[103 - (WINDOW - STRIDE)] = 3  # the farthest input of the block of 104 .. 111
    again, _ = score_stream(model, CONFIG, changed)
    assert np.abs(again[104:112] - nats[104:112]).min() > 0
    np.testing.assert_allclose(again[112:], nats[112:], atol=TOLERANCE_NATS)


def test_aligned_to_documents_a_number_depends_on_its_document_and_its_window_alone(model):
    tokens = stream(150)  # documents of 37 tokens: 37 .. 73 is one
    nats, _ = score_stream(model, ALIGNED, tokens)
    changed = tokens.copy()
    changed[37 - 5] = 3
    again, _ = score_stream(model, ALIGNED, changed)
    assert again[37] != nats[37]  # a BOS is predicted from the document before it
    np.testing.assert_allclose(again[38:], nats[38:], atol=TOLERANCE_NATS)
    changed = tokens.copy()
    changed[50] = 3
    again, _ = score_stream(model, ALIGNED, changed)
    np.testing.assert_allclose(again[:50], nats[:50], atol=TOLERANCE_NATS)
    assert np.abs(again[50:72] - nats[50:72]).min() > 0
    np.testing.assert_allclose(again[75:], nats[75:], atol=TOLERANCE_NATS)


def test_a_stream_that_does_not_open_with_the_recipes_bos_is_an_error(model):
    with pytest.raises(WireError, match=r"score\.bos: the stream opens with token 5, not with 1"):
        run_actions(model, ALIGNED, "scorer", [send("score", X[:9] * 0 + 5, chunk=0, start=0)])


@RULES
def test_of_two_ranks_only_the_first_computes_a_single_row(model, config, monkeypatch):
    asked = []
    plain = Predictor.row

    def row(self, buffer):
        asked.append(buffer.stop)
        return plain(self, buffer)

    monkeypatch.setattr(Predictor, "row", row)
    tokens = stream(3 * CHUNK)
    _, rows = score_stream(model, config, tokens, world=2)
    assert asked == [CHUNK, 2 * CHUNK]
    assert all(abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5 for row in rows)


def test_progress_reaches_the_judge_within_a_chunk(model):
    tokens = stream(CHUNK)
    with stage(model, CONFIG, "scorer", CHUNK) as judge:
        judge.score(0, 0, tokens, False)
        assert judge.progress
        assert all(0 <= fraction <= 1 for fraction in judge.progress)


def test_a_recipe_that_learns_nothing_scores_like_the_plain_predictor_bit_for_bit(model):
    tokens = stream(2 * CHUNK)
    plain = Predictor(model, window=WINDOW, stride=STRIDE, batch=CONFIG.score.batch_windows)
    nats, _ = score_stream(model, CONFIG, tokens[:CHUNK])
    np.testing.assert_array_equal(nats, plain.nats(TokenBuffer(0, tokens), 0, CHUNK))
    with stage(model, CONFIG, "scorer", CHUNK) as judge:
        assert judge.ready["adapts"] is False


@LEARNERS
@pytest.mark.slow
def test_learning_from_a_chunk_changes_the_numbers_of_later_chunks_only(model, config):
    tokens = stream(3 * CHUNK + 5)
    fixed, _ = score_stream(model, replace(config, adapt=AdaptConfig()), tokens)
    nats, rows = score_stream(model, config, tokens)
    np.testing.assert_array_equal(nats[:CHUNK], fixed[:CHUNK])
    assert (nats[CHUNK:] != fixed[CHUNK:]).mean() > 0.9
    for row, start in zip(rows, range(CHUNK, len(tokens), CHUNK), strict=True):
        assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5
        assert -row[tokens[start]] == nats[start]


@LEARNERS
@pytest.mark.slow
def test_a_prediction_never_depends_on_its_own_or_a_later_token(model, config):
    tokens = stream(3 * CHUNK)
    nats, rows = score_stream(model, config, tokens)
    for t in (1, CHUNK // 2, CHUNK - 1, CHUNK, CHUNK + 3, 2 * CHUNK):
        changed = tokens.copy()
        changed[t] = 2 + (changed[t] + 7) % (V - 2)
        again, rows_again = score_stream(model, config, changed)
        np.testing.assert_array_equal(again[:t], nats[:t])
        assert again[t] != nats[t]
        for chunk, (row, row_again) in enumerate(zip(rows, rows_again, strict=True), start=1):
            assert np.array_equal(row, row_again) == (t >= chunk * CHUNK)
        learned = (t // CHUNK + 1) * CHUNK + WINDOW  # beyond every window that holds the token
        assert not len(nats[learned:]) or (again[learned:] != nats[learned:]).mean() > 0.9


@LEARNERS
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.slow
def test_scoring_twice_gives_the_same_bits_and_two_ranks_what_one_gives(model, config, world):
    tokens = stream(3 * CHUNK + 5)
    nats, rows = score_stream(model, config, tokens, world=world)
    again, rows_again = score_stream(model, config, tokens, world=world)
    np.testing.assert_array_equal(nats, again)
    np.testing.assert_array_equal(rows, rows_again)
    if world > 1:
        np.testing.assert_allclose(nats, score_stream(model, config, tokens)[0], atol=1e-4)


@LEARNERS
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.slow
def test_a_witness_that_learns_at_the_same_boundaries_gives_the_scorers_rows_bit_for_bit(
    model, config, world
):
    tokens = stream(4 * CHUNK + 9)
    nats, rows = score_stream(model, config, tokens, world=world)
    with stage(model, config, "witness", len(tokens), world=world) as judge:
        assert judge.ready["adapts"] is True
        for chunk, row in enumerate(rows):
            start, probe, end = chunk * CHUNK, chunk * CHUNK + 21, (chunk + 1) * CHUNK
            judge.reveal(start, tokens[start:probe])
            assert abs(-judge.predict()[tokens[probe]] - nats[probe]) < TOLERANCE_NATS
            judge.reveal(probe, tokens[probe:end])
            np.testing.assert_array_equal(judge.adapt(chunk), row)
        np.testing.assert_array_equal(judge.predict(), rows[-1])


def test_progress_and_the_end_of_a_stream_that_ends_with_a_chunk(model):
    with stage(model, LEARNING, "scorer", 2 * CHUNK) as judge:
        tokens = stream(2 * CHUNK)
        judge.score(0, 0, tokens[:CHUNK], False)
        judge.adapt(0)
        judge.score(1, CHUNK, tokens[CHUNK:], False)
        assert judge.progress
        assert all(0 <= fraction <= 1 for fraction in judge.progress)


Action = Callable[[Judge], object]


def send(op: str, tokens: np.ndarray | None = None, **fields: object) -> Action:
    """A frame to send."""
    return lambda judge: judge.wire.send(op, b"" if tokens is None else tokens.tobytes(), **fields)


def scored_first(judge: Judge) -> None:
    judge.score(0, 0, X[:CHUNK], False)


def revealed_first(judge: Judge) -> None:
    judge.reveal(0, X[:CHUNK])


X = stream(3 * CHUNK)
INVALID = {
    "an adapt frame, though adapts is false": (CONFIG, "scorer", send("adapt", chunk=0)),
    "a chunk out of order": (CONFIG, "scorer", send("score", X[:9], chunk=1, start=0)),
    "a gap in the stream": (CONFIG, "scorer", send("score", X[:9], chunk=0, start=8)),
    "half a token": (CONFIG, "scorer", send("score", np.ones(1, np.uint8), chunk=0, start=0)),
    "no token": (CONFIG, "scorer", send("score", chunk=0, start=0)),
    "a token beyond the vocabulary": (CONFIG, "scorer", send("score", X[:9] * 0 + V, chunk=0, start=0)),
    "more than a chunk": (CONFIG, "scorer", send("score", X, chunk=0, start=0)),
    "a witness's question": (CONFIG, "scorer", send("predict")),
    "adapt before any score": (LEARNING, "scorer", send("adapt", chunk=0)),
    "the next chunk where adapt is due": (
        LEARNING,
        "scorer",
        scored_first,
        send("score", X[CHUNK:][:9], chunk=1, start=CHUNK),
    ),
    "adapt to another chunk": (LEARNING, "scorer", scored_first, send("adapt", chunk=1)),
    "adapt to no chunk": (LEARNING, "scorer", scored_first, send("adapt")),
    "a short chunk to learn from": (LEARNING, "scorer", send("score", X[:9], chunk=0, start=0)),
    "a scorer's frame": (CONFIG, "witness", send("score", X[:9], chunk=0, start=0)),
    "predict before anything is known": (CONFIG, "witness", send("predict")),
    "a lane too short for its window": (CONFIG, "witness", send("lanes", X[:9], starts=[1], lengths=[9])),
    "lanes that do not add up": (CONFIG, "witness", send("lanes", X[:9], starts=[0], lengths=[8])),
    "no lane": (CONFIG, "witness", send("lanes", starts=[], lengths=[])),
    "an empty lane": (CONFIG, "witness", send("lanes", starts=[0], lengths=[0])),
    "a lane of bools": (CONFIG, "witness", send("lanes", X[:1], starts=[True], lengths=[True])),
    "a lane beyond the stream": (CONFIG, "witness", send("lanes", X, starts=[8], lengths=[len(X)])),
    "adapt, though nothing is learned": (CONFIG, "witness", revealed_first, send("adapt", chunk=0)),
    "lanes where something is learned": (LEARNING, "witness", send("lanes", X[:9], starts=[0], lengths=[9])),
    "adapt to half a chunk": (LEARNING, "witness", lambda j: j.reveal(0, X[:9]), send("adapt", chunk=0)),
    "tokens beyond a chunk boundary": (LEARNING, "witness", send("reveal", X, chunk=0, start=0)),
    "tokens where adapt is due": (
        LEARNING,
        "witness",
        revealed_first,
        send("reveal", X[CHUNK:], chunk=1, start=CHUNK),
    ),
    "predict where adapt is due": (LEARNING, "witness", revealed_first, send("predict")),
    "the witness adapting to another chunk": (LEARNING, "witness", revealed_first, send("adapt", chunk=1)),
}


def run_actions(
    model: GPT, config: Config, role: str, actions: Sequence[Action], n_tokens: int = len(X)
) -> None:
    """A whole stage in which the judge does `actions`."""
    with stage(model, config, role, n_tokens) as judge:
        for action in actions:
            action(judge)


@pytest.mark.parametrize("case", INVALID)
def test_an_unexpected_frame_ends_the_stage_with_an_error(model, case):
    config, role, *actions = INVALID[case]
    run_actions(model, config, role, actions[:-1])
    with pytest.raises(WireError):
        run_actions(model, config, role, actions)


def test_nothing_is_learned_from_the_last_chunk(model):
    with pytest.raises(WireError, match="expected score or bye"):
        run_actions(model, LEARNING, "scorer", [scored_first, send("adapt", chunk=0)], CHUNK)
    actions = [
        scored_first,
        lambda judge: judge.adapt(0),
        lambda judge: judge.score(1, CHUNK, X[CHUNK : 2 * CHUNK], False),
    ]
    run_actions(model, LEARNING, "scorer", actions, 2 * CHUNK)
    with pytest.raises(WireError, match="expected score or bye"):
        run_actions(model, LEARNING, "scorer", [*actions, send("adapt", chunk=1)], 2 * CHUNK)


def test_an_unknown_role_is_an_error():
    setup = Setup(
        "score", 1, "record", V, NOWHERE, NOWHERE, NOWHERE, {}, artifact=NOWHERE, role="judge", tokens=1
    )
    with pytest.raises(WireError, match="known: scorer, witness"):
        score.run(Wire(socket.socket()), setup, CONFIG, Ranks(0, 1, torch.device("cpu")))
