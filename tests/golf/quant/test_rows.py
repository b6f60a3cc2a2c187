"""FTLE precision: bits increase with scores, stay in range, and have a mean near the target."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from golf.quant.rows import row_bits

SCORES = hnp.arrays("float32", st.integers(1, 50), elements=st.floats(0, 1000, width=32)).map(
    torch.from_numpy
)


@settings(deadline=None, max_examples=100)
@given(score_R=SCORES, target=st.integers(2, 8))
def test_bits_are_in_range_and_a_row_with_a_larger_score_never_has_fewer(score_R, target):
    bits_R = row_bits(score_R, target)
    assert min(4, target) <= int(bits_R.min()) and int(bits_R.max()) <= 8
    assert (bits_R[score_R.argsort()].diff() >= 0).all()


@pytest.mark.parametrize("target", [5, 6, 7])
def test_the_mean_lies_near_the_target(target):
    score_R = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    # Not exactly the target, because clamping comes after the shift.
    assert row_bits(score_R, target).float().mean() == pytest.approx(target, abs=0.35)
    assert len(row_bits(score_R, target).unique()) >= 3


@pytest.mark.parametrize("target", [2, 4, 6, 8])
def test_flat_scores_give_the_target_to_every_row(target):
    assert (row_bits(torch.full((9,), 0.3), target) == target).all()
