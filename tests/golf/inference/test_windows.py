"""The window rule by itself: which inputs each target has, and that every target is predicted once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from golf.inference.windows import TokenBuffer, Window, WindowRule

BOS = 1
SHAPES = st.integers(1, 9).flatmap(lambda s: st.tuples(st.integers(s, 40), st.just(s)))
TOKENS = st.lists(st.sampled_from([BOS, 2, 3, 4, 5, 6, 7, 8]), min_size=1, max_size=150)
"""A document in eight tokens on average."""
SPARSE = st.integers(0, 200).flatmap(
    lambda n: st.sets(st.integers(0, n), max_size=4).map(
        lambda at: [BOS if i in at else 2 for i in range(n + 1)]
    )
)
"""Documents longer than a window."""


def buffer_of(tokens: list[int]) -> TokenBuffer:
    return TokenBuffer(0, np.array(tokens, np.uint16))


def window_of(rule: WindowRule, buffer: TokenBuffer, target: int) -> Window:
    (found,) = rule.windows(buffer, target, target + 1)
    return found


@settings(deadline=None, max_examples=100)
@given(shape=SHAPES, t=st.integers(1, 500))
def test_a_window_reads_the_inputs_of_the_rule_and_no_more_than_w(shape, t):
    window, stride = shape
    w = window_of(WindowRule(*shape), TokenBuffer(), t)
    assert w.start == max(0, stride * (t // stride) - (window - stride) - 1)
    assert w.length <= window
    assert w.first_target <= t < w.first_target + w.targets
    assert t - w.start <= window  # so that `context` may be declared as the window
    if w.start:
        assert (w.length, w.targets) == (window, stride)
        assert t - w.start >= window - stride + 1


def test_the_numbers_of_the_public_rule_for_window_2048_and_stride_64():
    for t, start in ((1, 0), (63, 0), (64, 0), (1984, 0), (2047, 0), (2048, 63), (2111, 63), (2112, 127)):
        assert WindowRule(2048, 64).first_input(t) == start == max(0, 64 * (t // 64) - 1985)
        assert window_of(WindowRule(2048, 64), TokenBuffer(), t).start == start


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(shape=SHAPES, tokens=TOKENS | SPARSE, data=st.data())
def test_aligned_windows_begin_at_the_window_or_at_the_last_bos_before_the_target(shape, tokens, data):
    rule, buffer = WindowRule(*shape, BOS), buffer_of(tokens)
    start = data.draw(st.integers(0, len(tokens)))
    stop = data.draw(st.integers(start, len(tokens)))
    windows = rule.windows(buffer, start, stop)
    targets = [t for w in windows for t in range(w.low, w.high)]
    assert sorted(targets) == list(range(max(start, 1), stop))
    for w in windows:
        for t in range(w.low, w.high):
            before = [p for p in range(t) if tokens[p] == BOS]
            assert w.start == max([rule.first_input(t), *before])
            assert w.first_target <= t < w.first_target + w.targets
            assert t - w.start <= rule.window
            assert BOS not in tokens[w.start + 1 : t]  # all inputs lie in the target's document
        assert w.shape in rule.shapes


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(shape=SHAPES, tokens=TOKENS | SPARSE)
def test_scoring_and_the_last_w_tokens_alone_give_a_target_the_same_window(shape, tokens):
    rule, whole = WindowRule(*shape, BOS), buffer_of(tokens)
    for w in rule.windows(whole, 0, len(tokens)):
        for t in range(w.low, w.high):
            begin = max(0, t - rule.window)
            context = TokenBuffer(begin, whole.tokens[begin:t])
            alone = window_of(rule, context, t)
            assert alone.start == w.start >= begin
            assert alone.opening == w.opening


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(1, 200), stop=st.integers(1, 200))
def test_in_one_document_longer_than_the_stream_alignment_changes_no_start(shape, n, stop):
    buffer = buffer_of([BOS] + [2] * n)
    stop = min(stop, n + 1)
    aligned, plain = (WindowRule(*shape, bos).windows(buffer, 0, stop) for bos in (BOS, None))
    starts = [{t: w.start for w in windows for t in range(w.low, w.high)} for windows in (aligned, plain)]
    assert starts[0] == starts[1]


def test_a_document_of_at_most_w_tokens_is_one_pass_that_also_predicts_the_next_bos():
    rule = WindowRule(16, 4, BOS)
    tokens = [BOS, 2, 2, BOS, *[2] * 9, BOS, *[2] * 30]
    windows = rule.windows(buffer_of(tokens), 0, len(tokens))
    openings = sorted(w for w in windows if w.opening)
    assert openings == [Window(0, 4, 4, 1, 4), Window(3, 16, 16, 4, 14), Window(13, 16, 16, 14, 28)]
    assert [w.low for w in windows if not w.opening] == [28, 32, 36, 40]


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, tokens=TOKENS | SPARSE, size=st.integers(1, 6), bos=st.sampled_from([None, BOS]))
def test_batches_hold_each_window_once_in_one_shape_and_no_more_inputs_than_full_windows(
    shape, tokens, size, bos
):
    rule = WindowRule(*shape, bos)
    windows = rule.windows(buffer_of(tokens), 0, len(tokens))
    batches = list(rule.batches(windows, size))
    assert [(w.start, w.low, w.high) for batch in batches for w in batch] == [
        (w.start, w.low, w.high) for w in windows
    ]
    for batch in batches:
        assert len({w.shape for w in batch}) == 1
        assert len(batch) * batch[0].length <= size * rule.window
        assert all(w.first_target <= w.low and w.high <= w.first_target + w.targets for w in batch)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, tokens=TOKENS, world=st.integers(1, 8), bos=st.sampled_from([None, BOS]))
def test_the_ranks_share_all_windows_in_nearly_equal_numbers(shape, tokens, world, bos):
    rule = WindowRule(*shape, bos)
    windows = rule.windows(buffer_of(tokens), 0, len(tokens))
    parts = [rule.share(windows, rank, world) for rank in range(world)]
    assert sorted(w for part in parts for w in part) == sorted(windows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if bos is None:
        assert [w for part in parts for w in part] == windows


@pytest.mark.parametrize("window", [1, 3, 128, 512, 2048, 2000])
def test_there_are_at_most_four_shapes(window):
    shapes = WindowRule(window, 1, BOS).shapes
    assert len(shapes) <= 4
    assert shapes[0] == (window, 1)
    assert (window, window) in shapes
    assert WindowRule(window, 1).shapes == [(window, 1)]
