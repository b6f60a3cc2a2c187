"""The integer grid: errors of at most half a step, codes in range, and the same grid in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.quant import grid
from tests.golf.fakes.matrices import WEIGHTS, gaussian

BITS = st.sampled_from(list(grid.BITS))


def quantise(weight_RC: torch.Tensor, bits: grid.Bits, least: float = 0.0) -> grid.Quantised:
    clip_R = weight_RC.abs().amax(dim=1).clamp(min=least)
    return grid.quantise(weight_RC, grid.row_steps(clip_R, bits), bits)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(weight_RC=WEIGHTS, bits=BITS, least=st.sampled_from([0.0, 1.0]))
def test_every_number_is_restored_within_half_a_step(weight_RC, bits, least):
    quantised = quantise(weight_RC, bits, least)
    step_R = quantised.step_R.float()
    assert (
        (grid.dequantise(quantised) - weight_RC).abs() <= 0.5001 * step_R[:, None] + 1e-3 * weight_RC.abs()
    ).all()
    assert quantised.codes_RC.dtype == torch.int8 and quantised.step_R.dtype == torch.float16
    assert int(quantised.codes_RC.abs().max()) <= grid.largest_code(bits)
    assert (step_R >= least / grid.largest_code(bits) * 0.999).all() and (step_R > 0).all()


@settings(deadline=None, max_examples=50)
@given(weight_RC=WEIGHTS, bits=BITS)
def test_numbers_on_the_grid_are_unchanged(weight_RC, bits):
    quantised = quantise(weight_RC, bits)
    again = grid.quantise(grid.dequantise(quantised), quantised.step_R, bits)
    assert torch.equal(again.codes_RC, quantised.codes_RC)


@settings(deadline=None, max_examples=50)
@given(weight_RC=WEIGHTS, bits=BITS, fraction=st.floats(0.1, 1))
def test_numbers_beyond_the_clip_are_clipped_and_others_restored_within_half_a_step(
    weight_RC, bits, fraction
):
    step_R = grid.row_steps(fraction * weight_RC.abs().amax(dim=1), bits)
    restored_RC = grid.dequantise(grid.quantise(weight_RC, step_R, bits))
    clip_R1 = grid.largest_code(bits) * step_R.float()[:, None]
    clipped_RC = weight_RC.clamp(-clip_R1, clip_R1)
    assert ((restored_RC - clipped_RC).abs() <= 0.5001 * step_R.float()[:, None]).all()
    outside = weight_RC.abs() > clip_R1
    assert torch.equal(restored_RC.abs()[outside], clip_R1.expand_as(restored_RC)[outside])


def test_the_six_bit_grid_equals_that_of_586():
    weight_RC = torch.tensor([[-2.0, 62.0, 1.0, 3.0, 0.0], [0.1, -0.5, 0.25, 0.31, 0.0]])
    quantised = quantise(weight_RC, 6, least=1.0)
    assert quantised.step_R[0] == 2.0
    assert quantised.codes_RC[0].tolist() == [-1, 31, 0, 2, 0]  # halves go to the even neighbour
    assert quantised.step_R[1] == np.float16(1 / 31)  # the floor; without it the step would be 0.5/31
    assert quantised.codes_RC[1].tolist() == [3, -16, 8, 10, 0]


def test_bits_per_row_give_the_same_as_each_row_alone():
    weight_RC, bits_R = gaussian(5, 32), torch.tensor([4, 8, 5, 2, 6])
    quantised = quantise(weight_RC, bits_R)
    for row, bits in enumerate(bits_R.tolist()):
        alone = quantise(weight_RC[row : row + 1], bits)
        assert (
            torch.equal(quantised.codes_RC[row], alone.codes_RC[0])
            and quantised.step_R[row] == alone.step_R[0]
        )
    with pytest.raises(ValueError, match="5 rows"):
        quantise(weight_RC, bits_R[:4])


def test_rows_of_zeros_and_of_tiny_numbers_have_a_positive_step():
    weight_RC = torch.stack([torch.zeros(8), torch.full((8,), 1e-30), torch.full((8,), -1e-5)])
    quantised = quantise(weight_RC, 6)
    assert (quantised.step_R > 0).all()
    assert (grid.dequantise(quantised) - weight_RC).abs().max() <= grid.SMALLEST_STEP / 2


@pytest.mark.parametrize("bits", [1, 9, 0, -6, torch.tensor([6, 9])])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(ValueError, match="bits"):
        quantise(torch.ones(2, 2), bits)


def test_steps_beyond_float16_are_refused():
    with pytest.raises(ValueError, match="no finite fp16 step"):
        grid.row_steps(torch.tensor([1.0, 1e7]), 6)


@settings(deadline=None, max_examples=50)
@given(weight_RC=WEIGHTS, bits=BITS)
def test_fake_quantisation_is_on_the_grid_of_its_bits(weight_RC, bits):
    faked_RC = grid.fake_quantise(weight_RC, bits)
    step_R1 = weight_RC.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / grid.largest_code(bits)
    codes_RC = faked_RC / step_R1
    assert (codes_RC - codes_RC.round()).abs().max() <= 1e-3
    assert codes_RC.abs().max() <= grid.largest_code(bits) + 1e-3
    assert ((faked_RC - weight_RC).abs() <= 0.5001 * step_R1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_passes_fake_quantisation_unchanged(dtype):
    weight_RC = gaussian(4, 16).to(dtype).requires_grad_()
    upstream_RC = gaussian(4, 16, seed=1).to(dtype)
    faked_RC = grid.fake_quantise(weight_RC, 4)
    faked_RC.backward(upstream_RC)
    assert faked_RC.dtype == dtype and not torch.equal(faked_RC, weight_RC)
    assert torch.equal(weight_RC.grad, upstream_RC)
