"""Scoring, single predictions and batched contexts agree with the window rule, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer

V = 11
BOS = 1
SHAPES = st.integers(1, 9).flatmap(lambda s: st.tuples(st.integers(s, 40), st.just(s)))
ALIGNED = st.sampled_from([None, BOS])
"""Windows of the stream, or aligned to documents."""


def toy_model(ids_BT: torch.Tensor, last: int) -> torch.Tensor:
    """A causal model whose logits depend on every input and on its position in the window."""
    place_T = torch.arange(1, ids_BT.shape[1] + 1)
    state_BT = torch.cumsum((ids_BT + 1) * place_T, dim=1)
    logits_BTV = torch.sin(state_BT[:, :, None].double() * torch.arange(1, V + 1).double() * 0.37).float()
    return logits_BTV[:, ids_BT.shape[1] - last :]


def stream(n: int, seed: int = 0) -> np.ndarray:
    """Random tokens; documents begin at random, some of them empty."""
    random = np.random.default_rng(seed)
    tokens = random.integers(2, V, n).astype(np.uint16)
    tokens[random.random(n) < random.choice([0.02, 0.1, 0.4])] = BOS
    return tokens


def by_the_rule(tokens: np.ndarray, t: int, window: int, stride: int, bos: int | None = None) -> np.ndarray:
    """The row for target t straight from the rule's formula, with no block, batch or padding."""
    start = max(0, stride * (t // stride) - (window - stride) - 1)
    start = max([start, *(p for p in range(t) if tokens[p] == bos)])
    ids_1T = torch.from_numpy(tokens[start:t].astype(np.int64))[None]
    return torch.log_softmax(toy_model(ids_1T, 1)[0, 0], dim=-1).numpy()


def predictor(window: int, stride: int, batch: int = 4, bos: int | None = None, full=None) -> Predictor:
    return Predictor(toy_model, window=window, stride=stride, batch=batch, bos=bos, full=full)


def score_all(p: Predictor, tokens: np.ndarray, chunk: int) -> np.ndarray:
    buffer, parts = TokenBuffer(), []
    for start in range(0, len(tokens), chunk):
        buffer.reveal(tokens[start : start + chunk], keep=p.rule.window)
        parts.append(p.nats(buffer, start, buffer.stop))
    return np.concatenate(parts)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(1, 120), chunk=st.integers(1, 60), batch=st.integers(1, 9), bos=ALIGNED)
def test_every_token_but_the_first_is_scored_by_the_rule_at_any_length_and_chunk(shape, n, chunk, batch, bos):
    window, stride = shape
    tokens = stream(n, chunk)
    nats = score_all(predictor(window, stride, batch, bos), tokens, chunk)
    assert nats.dtype == np.float32
    assert nats.shape == (n,)
    assert nats[0] == 0
    expected = [-by_the_rule(tokens, t, window, stride, bos)[tokens[t]] for t in range(1, n)]
    np.testing.assert_allclose(nats[1:], expected, atol=2e-6)
    assert not np.signbit(nats).any()


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, n=st.integers(1, 120), seed=st.integers(0, 9), bos=ALIGNED)
@pytest.mark.slow
def test_single_rows_and_batched_contexts_agree_with_scoring(shape, n, seed, bos):
    window, stride = shape
    p = predictor(window, stride, bos=bos)
    tokens = stream(n, seed)
    nats = score_all(p, tokens, n)
    contexts = []
    for t in range(1, n):
        buffer = TokenBuffer(max(0, t - window), tokens[max(0, t - window) : t])
        np.testing.assert_allclose(p.row(buffer), by_the_rule(tokens, t, window, stride, bos), atol=2e-6)
        contexts.append(buffer)
    if contexts:
        rows = p.rows(contexts)
        assert rows.dtype == np.float32
        assert np.abs(np.logaddexp.reduce(rows.astype(np.float64), axis=1)).max() < 1e-5
        np.testing.assert_allclose(-rows[np.arange(n - 1), tokens[1:]], nats[1:], atol=2e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, start=st.integers(0, 100), n=st.integers(0, 100), world=st.integers(1, 8), bos=ALIGNED)
def test_the_ranks_share_the_targets_and_their_sum_is_what_one_computes(shape, start, n, world, bos):
    p = predictor(*shape, bos=bos)
    buffer = TokenBuffer(0, stream(start + n, n))
    parts = [p.score(buffer, start, start + n, rank=rank, world=world).numpy() for rank in range(world)]
    assert (sum(part != 0 for part in parts) <= 1).all()
    np.testing.assert_allclose(p.nats(buffer, start, start + n), sum(parts), atol=2e-6)


def test_a_buffer_keeps_what_a_window_needs_and_drops_the_rest():
    p = predictor(16, 4)
    tokens = stream(200)
    buffer = TokenBuffer()
    for start in range(0, 200, 7):
        buffer.reveal(tokens[start : start + 7], keep=p.rule.window)
        assert len(buffer.tokens) <= 16 + 7
        np.testing.assert_allclose(
            p.row(buffer), by_the_rule(np.append(tokens, 0), buffer.stop, 16, 4), atol=2e-6
        )
    with pytest.raises(ValueError, match="tokens kept begin at"):
        p.row(TokenBuffer(190, tokens[190:]))
    with pytest.raises(ValueError, match="lie outside"):
        p.nats(buffer, 0, 10)
    with pytest.raises(ValueError, match="nothing comes before"):
        p.row(TokenBuffer())


@pytest.mark.parametrize("bos", [None, BOS])
def test_later_tokens_of_the_chunk_do_not_reach_a_prediction(bos):
    p = predictor(16, 4, bos=bos)
    tokens = stream(100)
    nats = p.nats(TokenBuffer(0, tokens), 0, 100)
    for t in (1, 3, 4, 50, 63, 64, 99):
        changed = tokens.copy()
        changed[t:] = (changed[t:] + 1) % V
        again = p.nats(TokenBuffer(0, changed), 0, 100)
        np.testing.assert_array_equal(nats[:t], again[:t])


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, start=st.integers(0, 60), n=st.integers(1, 60), batch=st.integers(1, 5), bos=ALIGNED)
def test_an_observer_sees_each_requested_target_once_with_its_prediction(shape, start, n, batch, bos):
    p, seen = predictor(*shape, batch, bos), []

    def observe(log_p_BSV, truth_BS, scored_BS):
        seen.append(-log_p_BSV.gather(2, truth_BS[:, :, None])[:, :, 0][scored_BS])

    buffer = TokenBuffer(0, stream(start + n))
    nats = p.nats(buffer, start, start + n, observe=observe)
    np.testing.assert_array_equal(nats, p.nats(buffer, start, start + n))
    expected = nats[1:] if start == 0 else nats  # x_0 is not predicted
    observed = np.abs(torch.cat(seen).numpy()) if seen else []
    if bos is None:
        np.testing.assert_array_equal(observed, expected)
    np.testing.assert_array_equal(np.sort(observed), np.sort(expected))


def test_a_model_that_gives_other_than_float32_logits_of_the_targets_is_an_error():
    p = Predictor(lambda ids, last: toy_model(ids, last).to(torch.bfloat16), window=8, stride=2, batch=2)
    with pytest.raises(ValueError, match="float32 logits of the last 2"):
        p.nats(TokenBuffer(0, stream(30)), 8, 30)


class Compiled:
    """Stands for a compiled forward: remembers the shapes that it was called with."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int, int]] = []

    def __call__(self, ids_BT: torch.Tensor, last: int) -> torch.Tensor:
        self.shapes.append((*ids_BT.shape, last))
        return toy_model(ids_BT, last)


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("stride", [4, 8, 32])
def test_a_compiled_model_meets_only_the_shapes_of_its_warm_up_and_gives_the_same_numbers(bos, stride):
    full, tokens = Compiled(), stream(3000, 4)
    plain, p = predictor(32, stride, 16, bos), predictor(32, stride, 16, bos, full)
    p.warm_up()
    warm = set(full.shapes)
    assert len(full.shapes) == len(warm) == (2 if bos is None else 4 if stride == 32 else 6)
    buffer = TokenBuffer(0, tokens[:2001])
    np.testing.assert_allclose(p.nats(buffer, 1500, 2001), plain.nats(buffer, 1500, 2001), atol=2e-6)
    contexts = [TokenBuffer(t - 32, tokens[t - 32 : t]) for t in range(100, 2900, 41)]
    np.testing.assert_allclose(p.rows(contexts), plain.rows(contexts), atol=2e-6)
    np.testing.assert_allclose(p.row(buffer), plain.row(buffer), atol=2e-6)
    assert set(full.shapes) == warm


def test_a_single_row_costs_one_window_and_a_few_rows_one_each():
    full = Compiled()
    p, tokens = predictor(32, 4, 16, full=full), stream(300)
    contexts = [TokenBuffer(0, tokens[:t]) for t in (100, 150, 200)]
    p.row(contexts[0])
    p.rows(contexts[:2])
    assert full.shapes == [(1, 32, 4)] * 3
    p.rows(contexts)
    assert full.shapes[3:] == [(16, 32, 4)]


def test_without_singles_a_row_has_the_shape_of_scoring():
    full, tokens = Compiled(), stream(300)
    p = Predictor(toy_model, window=32, stride=4, batch=16, full=full, singles=False)
    p.warm_up()
    p.row(TokenBuffer(0, tokens))
    assert full.shapes == [(16, 32, 4)] * 2
