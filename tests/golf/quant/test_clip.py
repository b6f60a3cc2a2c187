"""Clipping ranges: each method follows its definition, with and without a Fisher diagonal."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.quant import grid
from golf.quant.clip import QUANTILES, ClipMethod, clip, importance
from golf.quant.loss import loss
from golf.storage import entropy
from tests.golf.fakes.matrices import WEIGHTS, gaussian


def squared_error(weight_RC, clip_R, bits, fisher_RC=None) -> float:
    quantised = grid.quantise(weight_RC, grid.row_steps(clip_R, bits), bits)
    return loss(grid.dequantise(quantised) - weight_RC, fisher_RC=fisher_RC)


@settings(deadline=None, max_examples=50)
@given(weight_RC=WEIGHTS, fraction=st.floats(0.5, 1))
def test_the_quantile_equals_torch_quantile(weight_RC, fraction):
    found = clip(weight_RC, 6, ClipMethod("quantile", quantile=fraction))
    expected = torch.quantile(weight_RC.abs(), fraction, dim=1)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_quantile_one_equals_max_and_neither_clips():
    weight_RC = gaussian(8, 100)
    largest_R = weight_RC.abs().amax(dim=1)
    assert torch.equal(clip(weight_RC, 6, ClipMethod()), largest_R)
    assert torch.equal(clip(weight_RC, 6, ClipMethod("quantile", quantile=1.0)), largest_R)


@pytest.mark.parametrize(("sigmas", "bits"), [(12.85, 6), (20.0, 8), (6.0, 6)])
def test_with_a_clip_of_k_sigmas_the_entropy_is_bits_less_log2_k_plus_a_constant(sigmas, bits):
    # #1394: for normal rows H = log2(sqrt(2 pi e) R / k), R about 2^(bits - 1). The formula holds for steps
    # below sigma.
    weight_RC = 0.37 * gaussian(256, 512)
    clip_R = clip(weight_RC, bits, ClipMethod("sigma", sigmas=sigmas))
    codes_RC = grid.quantise(weight_RC, grid.row_steps(clip_R, bits), bits).codes_RC
    found = 8 * entropy.shannon_bytes(codes_RC.numpy()) / codes_RC.numel()
    assert found == pytest.approx(
        0.5 * math.log2(2 * math.pi * math.e) + math.log2(grid.largest_code(bits) / sigmas), abs=0.03
    )
    assert clip_R == pytest.approx(sigmas * 0.37, rel=0.2)


def test_the_floor_makes_small_rows_use_fewer_codes_and_leaves_large_rows_unchanged():
    small, large = 0.05 * gaussian(4, 64), 5 * gaussian(4, 64)
    for weight_RC, changes in ((small, True), (large, False)):
        free_R, floored_R = (
            grid.row_steps(clip(weight_RC, 6, ClipMethod(floor=on)), 6) for on in (False, True)
        )
        assert torch.equal(free_R, floored_R) is not changes
        if changes:
            assert (floored_R == torch.tensor(1 / 31, dtype=torch.float16)).all()
            assert grid.quantise(weight_RC, floored_R, 6).codes_RC.abs().max() <= 7


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), bits=st.sampled_from([2, 4, 6, 8]), weighted=st.booleans())
def test_the_search_finds_the_quantile_with_the_least_error(seed, bits, weighted):
    weight_RC = gaussian(6, 3000, seed) ** 3
    fisher_RC = gaussian(6, 3000, seed + 1).square() if weighted else None
    errors = [
        squared_error(
            weight_RC, clip(weight_RC, bits, ClipMethod("quantile", quantile=fraction)), bits, fisher_RC
        )
        for fraction in QUANTILES
    ]
    found_R = clip(weight_RC, bits, ClipMethod("search"), fisher_RC)
    assert squared_error(weight_RC, found_R, bits, fisher_RC) == min(errors)


def test_an_important_outlier_is_kept_and_an_unimportant_one_is_clipped():
    weight_RC = gaussian(2, 4000)
    weight_RC[:, 7] = 100.0
    fisher_RC = torch.ones_like(weight_RC)
    fisher_RC[:, 7] = 1e-6
    clipped_R, kept_R = (clip(weight_RC, 4, ClipMethod("search"), f) for f in (fisher_RC, 1 / fisher_RC))
    assert (kept_R == 100).all() and (clipped_R < 10).all()


def test_important_rows_get_a_wider_range_and_with_quantile_at_most_their_maximum():
    weight_RC, fisher_RC = gaussian(2, 1000), torch.ones(2, 1000)
    fisher_RC[0] = 1e-6
    assert importance(fisher_RC).tolist() == pytest.approx([1e-3, 1.0])
    for method, factor in (
        (ClipMethod("sigma", sigmas=4.0), 2.0),
        (ClipMethod("quantile", quantile=0.9), None),
    ):
        plain_R, fisher_R = clip(weight_RC, 6, method), clip(weight_RC, 6, method, fisher_RC)
        assert plain_R[0] <= fisher_R[0] < 1.01 * plain_R[0] and fisher_R[1] > 1.5 * plain_R[1]
        assert fisher_R[1] == pytest.approx(factor * plain_R[1] if factor else weight_RC[1].abs().max())
    assert torch.equal(clip(weight_RC, 6, ClipMethod(), fisher_RC), clip(weight_RC, 6, ClipMethod()))


def test_a_fisher_diagonal_of_zeros_makes_nothing_important():
    weight_RC, zeros_RC = gaussian(2, 10), torch.zeros(2, 10)
    assert torch.equal(importance(zeros_RC), torch.zeros(2))
    for method in ("max", "quantile", "sigma"):
        assert torch.equal(
            clip(weight_RC, 6, ClipMethod(method), zeros_RC), clip(weight_RC, 6, ClipMethod(method))
        )
    assert torch.equal(clip(weight_RC, 6, ClipMethod("search"), zeros_RC), clip(weight_RC, 6, ClipMethod()))
