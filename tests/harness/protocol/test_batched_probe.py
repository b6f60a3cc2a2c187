"""Batched contexts: each target is asked once, before any context shows it; other batches are never sent."""

from __future__ import annotations

import numpy as np
import pytest

from harness.protocol import batched_probe


def batches_of(positions_P: np.ndarray, context: int, most: int) -> list[list[np.ndarray]]:
    """The batches of each of the two witnesses."""
    return [
        list(batched_probe.batches(part_P, context, most))
        for part_P in batched_probe.stretches(positions_P, context)
    ]


@pytest.mark.parametrize("context", [1, 7, 64, 5000])
@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_every_target_is_asked_once_and_none_was_shown_before(context: int, most: int, share: float) -> None:
    rng = np.random.default_rng(context + most)
    positions_P = 1 + np.flatnonzero(rng.random(2999) < share)
    asked = []
    for batches in batches_of(positions_P, context, most):
        seen: set[int] = set()
        for targets_L in batches:
            assert 1 <= len(targets_L) <= most
            for target in targets_L.tolist():  # computed here without ShownTokens
                seen |= set(range(max(0, target - context), target))
            assert not seen & set(targets_L.tolist())
            asked += targets_L.tolist()
        shown = batched_probe.ShownTokens(3000, context)
        for targets_L in batches:
            starts_L = shown.show(targets_L)
            assert (targets_L - starts_L <= context).all()
    assert sorted(asked) == positions_P.tolist()


def test_batches_are_full_as_long_as_there_are_enough_stretches() -> None:
    positions_P = np.arange(1, 64_000, 10)
    even, _ = batches_of(positions_P, 100, 16)
    assert [len(targets_L) for targets_L in even[:-20]] == [16] * len(even[:-20])
    assert len(even) <= len(positions_P) / 2 / 16 + 20


@pytest.mark.parametrize(
    ("earlier", "later"), [([50], [49]), ([10, 50], [50]), ([], [20, 25]), ([100], [95, 300])]
)
def test_a_batch_whose_target_was_shown_before_raises_an_assertion(
    earlier: list[int], later: list[int]
) -> None:
    shown = batched_probe.ShownTokens(400, 10)
    if earlier:
        shown.show(np.array(earlier[:1]))
        if len(earlier) == 2:
            shown.show(np.array([earlier[1] + 1]))
    with pytest.raises(AssertionError, match="would be asked after it was shown"):
        shown.show(np.array(later))


def test_no_positions_give_no_batch() -> None:
    assert list(batched_probe.batches(np.zeros(0, np.int64), 8)) == []
