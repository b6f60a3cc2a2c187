"""The plan of visits: the published wirings, and that the stack comes out empty."""

from __future__ import annotations

import pytest

from golf.model.plan import Visit, n_skips, visits


def test_eleven_layers_have_five_savers_and_five_takers_and_the_last_takes_nothing():
    plan = visits(tuple(range(11)), skips=True)
    assert [v.layer for v in plan if v.save] == [0, 1, 2, 3, 4]
    assert [v.skip for v in plan] == [None] * 5 + [0, 1, 2, 3, 4, None]


def test_the_baseline_has_four_skips():
    assert n_skips(visits(tuple(range(9)), skips=True)) == 4


@pytest.mark.parametrize("n", range(1, 14))
def test_every_saved_output_is_taken_once_last_in_first_out(n):
    stack, pairs = [], []
    for visit in visits(tuple(range(n)), skips=True):
        if visit.skip is not None:
            pairs.append((stack.pop(), visit.layer))
        if visit.save:
            stack.append(visit.layer)
    assert stack == []
    assert all(giver + taker == 2 * (n // 2) - 1 for giver, taker in pairs)


def test_without_skips_the_plan_is_the_order_and_layers_may_repeat():
    assert visits((0, 1, 1, 2), skips=False) == (Visit(0), Visit(1), Visit(1), Visit(2))
