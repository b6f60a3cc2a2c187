"""The window rule, and that scoring, single predictions and batched contexts agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.inference import windows
from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer

V = 11
SHAPES = st.integers(1, 9).flatmap(lambda s: st.tuples(st.integers(s, 40), st.just(s)))


def toy_model(ids_BT: torch.Tensor, last: int) -> torch.Tensor:
    """A causal model whose logits depend on every input and on its position in the window."""
    place_T = torch.arange(1, ids_BT.shape[1] + 1)
    state_BT = torch.cumsum((ids_BT + 1) * place_T, dim=1)
    logits_BTV = torch.sin(state_BT[:, :, None].double() * torch.arange(1, V + 1).double() * 0.37).float()
    return logits_BTV[:, ids_BT.shape[1] - last :]


def stream(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, n).astype(np.uint16)


def by_the_rule(tokens: np.ndarray, t: int, window: int, stride: int) -> np.ndarray:
    """The row for target t straight from the rule's formula, with no block, batch or padding."""
    start = max(0, stride * (t // stride) - (window - stride) - 1)
    ids_1T = torch.from_numpy(tokens[start:t].astype(np.int64))[None]
    return torch.log_softmax(toy_model(ids_1T, 1)[0, 0], dim=-1).numpy()


def predictor(window: int, stride: int, batch: int = 4) -> Predictor:
    return Predictor(toy_model, window=window, stride=stride, batch=batch)


def score_all(p: Predictor, tokens: np.ndarray, chunk: int) -> np.ndarray:
    buffer, parts = TokenBuffer(), []
    for start in range(0, len(tokens), chunk):
        buffer.reveal(tokens[start : start + chunk], keep=p.window)
        parts.append(p.nats(buffer, start, buffer.stop))
    return np.concatenate(parts)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(1, 120), chunk=st.integers(1, 60), batch=st.integers(1, 5))
def test_every_token_but_the_first_is_scored_by_the_rule_at_any_length_and_chunk(shape, n, chunk, batch):
    window, stride = shape
    tokens = stream(n)
    nats = score_all(predictor(window, stride, batch), tokens, chunk)
    assert nats.dtype == np.float32
    assert nats.shape == (n,)
    assert nats[0] == 0
    expected = [-by_the_rule(tokens, t, window, stride)[tokens[t]] for t in range(1, n)]
    np.testing.assert_allclose(nats[1:], expected, atol=2e-6)
    assert not np.signbit(nats).any()


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(1, 120), seed=st.integers(0, 9))
@pytest.mark.slow
def test_single_rows_and_batched_contexts_agree_with_scoring(shape, n, seed):
    window, stride = shape
    p = predictor(window, stride)
    tokens = stream(n, seed)
    nats = score_all(p, tokens, n)
    contexts = []
    for t in range(1, n):
        buffer = TokenBuffer(max(0, t - window), tokens[max(0, t - window) : t])
        np.testing.assert_allclose(p.row(buffer), by_the_rule(tokens, t, window, stride), atol=2e-6)
        contexts.append(buffer)
    if contexts:
        rows = p.rows(contexts)
        assert rows.dtype == np.float32
        assert np.abs(np.logaddexp.reduce(rows.astype(np.float64), axis=1)).max() < 1e-5
        np.testing.assert_allclose(-rows[np.arange(n - 1), tokens[1:]], nats[1:], atol=2e-6)


@settings(deadline=None, max_examples=100)
@given(shape=SHAPES, t=st.integers(1, 500))
def test_a_window_reads_the_inputs_of_the_rule_and_no_more_than_w(shape, t):
    window, stride = shape
    w = windows.target_window(t, window, stride)
    assert w.start == max(0, stride * (t // stride) - (window - stride) - 1)
    assert w.length <= window
    assert w.first_target <= t < w.first_target + w.targets
    assert t - w.start <= window  # so that `context` may be declared as the window
    if w.start:
        assert (w.length, w.targets) == (window, stride)
        assert t - w.start >= window - stride + 1


def test_the_numbers_of_the_public_rule_for_window_2048_and_stride_64():
    for t, start in ((1, 0), (63, 0), (64, 0), (1984, 0), (2047, 0), (2048, 63), (2111, 63), (2112, 127)):
        assert windows.target_window(t, 2048, 64).start == start == max(0, 64 * (t // 64) - 1985)
    with pytest.raises(ValueError, match="nothing comes before"):
        windows.target_window(0, 2048, 64)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, start=st.integers(0, 100), n=st.integers(0, 100), world=st.integers(1, 8))
def test_the_ranks_share_the_targets_in_whole_blocks_and_leave_none_out(shape, start, n, world):
    window, stride = shape
    stop = start + n
    parts = [windows.share(start, stop, stride, rank, world) for rank in range(world)]
    assert [t for low, high in parts for t in range(low, high)] == list(range(start, stop))
    for low, high in parts:
        assert low == high or low in (start,) or low % stride == 0
        assert low == high or high == stop or high % stride == 0
    p = predictor(window, stride)
    tokens = stream(stop or 1)
    buffer = TokenBuffer(0, tokens)
    whole = p.nats(buffer, start, stop)
    shared = np.concatenate([p.nats(buffer, low, high) for low, high in parts])
    np.testing.assert_allclose(whole, shared, atol=2e-6)


def test_a_buffer_keeps_what_a_window_needs_and_drops_the_rest():
    p = predictor(16, 4)
    tokens = stream(200)
    buffer = TokenBuffer()
    for start in range(0, 200, 7):
        buffer.reveal(tokens[start : start + 7], keep=p.window)
        assert len(buffer.tokens) <= 16 + 7
        np.testing.assert_allclose(
            p.row(buffer), by_the_rule(np.append(tokens, 0), buffer.stop, 16, 4), atol=2e-6
        )
    with pytest.raises(ValueError, match="tokens kept begin at"):
        p.row(TokenBuffer(190, tokens[190:]))
    with pytest.raises(ValueError, match="lie outside"):
        p.nats(buffer, 0, 10)


def test_later_tokens_of_the_chunk_do_not_reach_a_prediction():
    p = predictor(16, 4)
    tokens = stream(100)
    nats = p.nats(TokenBuffer(0, tokens), 0, 100)
    for t in (1, 3, 4, 50, 63, 64, 99):
        changed = tokens.copy()
        changed[t:] = (changed[t:] + 1) % V
        again = p.nats(TokenBuffer(0, changed), 0, 100)
        np.testing.assert_array_equal(nats[:t], again[:t])


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, start=st.integers(0, 60), n=st.integers(1, 60), batch=st.integers(1, 5))
def test_an_observer_sees_each_requested_target_once_with_its_prediction(shape, start, n, batch):
    p, seen = predictor(*shape, batch), []

    def observe(log_p_BSV, truth_BS, scored_BS):
        seen.append(-log_p_BSV.gather(2, truth_BS[:, :, None])[:, :, 0][scored_BS])

    buffer = TokenBuffer(0, stream(start + n))
    nats = p.nats(buffer, start, start + n, observe=observe)
    np.testing.assert_array_equal(nats, p.nats(buffer, start, start + n))
    expected = nats[1:] if start == 0 else nats  # x_0 is not predicted
    np.testing.assert_array_equal(np.abs(torch.cat(seen).numpy()) if seen else [], expected)


def test_a_model_that_gives_other_than_float32_logits_of_the_targets_is_an_error():
    p = Predictor(lambda ids, last: toy_model(ids, last).to(torch.bfloat16), window=8, stride=2, batch=2)
    with pytest.raises(ValueError, match="float32 logits of the last 2"):
        p.nats(TokenBuffer(0, stream(30)), 8, 30)
