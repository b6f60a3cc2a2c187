"""The quantiser's three steps: each is undone by its inverse as far as its docstring promises, and off means off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from golf.quant import grid, recipe, rotate

WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 48)),
    elements=st.floats(-1000, 1000, width=32),
).map(torch.from_numpy)


def _gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=100)
@given(weight_RC=WEIGHTS, bits=st.sampled_from(list(grid.BITS)), floor=st.sampled_from([0.0, 1 / 31, 1 / 127]))
def test_the_grid_gives_back_every_number_within_half_a_step(weight_RC, bits, floor):
    coded = grid.quantise(weight_RC, bits, floor)
    error_RC = (grid.dequantise(coded) - weight_RC).abs()
    step_R = coded.step_R.float()
    assert (error_RC <= 0.5001 * step_R[:, None]).all()
    assert coded.codes_RC.dtype == torch.int8 and coded.step_R.dtype == torch.float16
    largest = grid.largest_code(bits)
    assert -largest - 1 <= int(coded.codes_RC.min()) and int(coded.codes_RC.max()) <= largest
    assert (step_R >= floor * 0.999).all() and (step_R > 0).all()


@settings(deadline=None, max_examples=50)
@given(weight_RC=WEIGHTS, bits=st.sampled_from(list(grid.BITS)))
def test_what_lies_on_the_grid_already_is_not_moved(weight_RC, bits):
    once = grid.dequantise(grid.quantise(weight_RC, bits))
    largest = grid.largest_code(bits)
    coded = grid.quantise(weight_RC, bits)
    again = torch.round(once / coded.step_R.float()[:, None]).clamp(-largest - 1, largest).to(torch.int8)
    assert torch.equal(again, coded.codes_RC)


def test_the_six_bit_grid_is_that_of_586():
    weight_RC = torch.tensor([[-2.0, 62.0, 1.0, 3.0, 0.0], [0.1, -0.5, 0.25, 0.31, 0.0]])
    coded = grid.quantise(weight_RC, 6, floor=1 / 31)
    assert coded.step_R[0] == 2.0
    assert coded.codes_RC[0].tolist() == [-1, 31, 0, 2, 0]  # halves go to the even neighbour
    assert coded.step_R[1] == np.float16(1 / 31)  # the floor: 0.5/31 would be the row's own step
    assert coded.codes_RC[1].tolist() == [3, -16, 8, 10, 0]


def test_the_floor_costs_small_rows_their_bits_and_large_rows_nothing():
    small, large = 0.05 * _gaussian(4, 64), 5 * _gaussian(4, 64)
    for weight_RC, changes in ((small, True), (large, False)):
        free, floored = grid.quantise(weight_RC, 6, 0.0), grid.quantise(weight_RC, 6, 1 / 31)
        assert torch.equal(free.codes_RC, floored.codes_RC) is not changes
        if changes:
            assert floored.codes_RC.abs().max() <= 7 < 31 == free.codes_RC.abs().max()


def test_rows_of_zeros_and_of_tiny_numbers_have_a_positive_step():
    weight_RC = torch.stack([torch.zeros(8), torch.full((8,), 1e-30), torch.full((8,), -1e-5)])
    coded = grid.quantise(weight_RC, 6)
    assert (coded.step_R > 0).all()
    assert (grid.dequantise(coded) - weight_RC).abs().max() <= grid.SMALLEST_STEP / 2


@pytest.mark.parametrize("bits", [1, 9, 0, -6])
def test_bits_that_int8_does_not_hold_are_refused(bits):
    with pytest.raises(ValueError, match="bits"):
        grid.quantise(torch.ones(2, 2), bits)


@pytest.mark.parametrize("columns", [1, 2, 3, 64, 96, 128, 192, 255, 512, 768, 1536])
def test_the_rotation_is_its_own_inverse_and_keeps_lengths_at_every_size(columns):
    weight_RC = _gaussian(5, columns)
    turned = rotate.rotate(weight_RC)
    assert torch.allclose(rotate.rotate(turned), weight_RC, atol=1e-5)
    assert torch.allclose(turned.norm(dim=1), weight_RC.norm(dim=1), rtol=1e-5)
    assert (columns & -columns == 1) == torch.equal(turned, weight_RC)


@pytest.mark.parametrize(("columns", "size"), [(1, 1), (128, 128), (192, 64), (512, 512), (768, 256), (1536, 512)])
def test_the_block_is_the_largest_power_of_two_that_divides_the_columns(columns, size):
    assert rotate.block_size(columns) == size
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)]) / 2**0.5
    twin = torch.block_diag(*[matrix] * (columns // size))
    weight_RC = _gaussian(3, columns)
    assert torch.allclose(rotate.rotate(weight_RC), weight_RC @ twin, atol=1e-5)


def test_the_rotation_has_the_same_bits_with_any_number_of_threads():
    weight_RC = _gaussian(64, 768)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rotate.rotate(weight_RC)
        torch.set_num_threads(2)
        assert torch.equal(one, rotate.rotate(weight_RC))
    finally:
        torch.set_num_threads(before)


def test_the_rotation_spreads_an_outlier_so_that_rounding_costs_less():
    weight_RC = 0.1 * _gaussian(16, 512)
    weight_RC[:, 7] = 3.0
    plain, turned = recipe.Recipe(bits=6), recipe.Recipe(bits=6, rotate=True, fp16_limit=0)
    plain = plain._replace(fp16_limit=0)
    error = {
        r.rotate: (recipe.decode(recipe.encode("w", weight_RC, r), r) - weight_RC).square().mean().item()
        for r in (plain, turned)
    }
    assert error[True] < error[False] / 5


@settings(deadline=None, max_examples=60)
@given(
    weight_RC=WEIGHTS,
    r=st.builds(
        recipe.Recipe,
        bits=st.none() | st.sampled_from(list(grid.BITS)),
        rotate=st.booleans(),
        floor=st.booleans(),
        fp16_limit=st.integers(0, 100),
    ),
)
def test_every_recipe_gives_a_tensor_back_within_its_rounding(weight_RC, r):
    stored = recipe.encode("w", weight_RC, r)
    back = recipe.decode(stored, r)
    assert back.dtype == torch.float32 and back.shape == weight_RC.shape
    if stored.step_R is None:
        assert stored.values.dtype == torch.float16
        assert torch.allclose(back, weight_RC, rtol=2**-11, atol=2**-24)
    else:
        # Rotation keeps the length of the error, so that half a step a number bounds each row's norm.
        limit_R = 0.501 * stored.step_R.float() * weight_RC.shape[1] ** 0.5 + 1e-4 * weight_RC.abs().amax()
        assert ((back - weight_RC).norm(dim=1) <= limit_R).all()


def test_which_tensors_are_coded_is_decided_as_in_586():
    r = recipe.Recipe(bits=6)
    assert r.coded((1024, 512)) and r.coded((128, 512))
    assert not r.coded((256, 128)) and not r.coded((8, 512)) and not r.coded((65_535, 1)) and r.coded((65_536, 1))
    assert not r.coded((65_536,)) and not r.coded((64, 64, 64)) and not r.coded(())
    assert r._replace(fp16_limit=1000).coded((256, 128))


def test_bits_null_is_neutral_for_all_other_options():
    weight_RC = _gaussian(300, 300)
    plain = recipe.encode("w", weight_RC, recipe.Recipe())
    other = recipe.encode("w", weight_RC, recipe.Recipe(rotate=True, floor=True, fp16_limit=0))
    assert plain.step_R is None and other.step_R is None
    assert torch.equal(plain.values, other.values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("r", [recipe.Recipe(), recipe.Recipe(bits=6, fp16_limit=0)])
def test_weights_that_cannot_be_stored_are_an_error_that_names_the_tensor(bad, r):
    weight_RC = torch.ones(4, 4)
    weight_RC[1, 2] = bad
    with pytest.raises(ValueError, match=r"tensor blocks\.3\.q"):
        recipe.encode("blocks.3.q", weight_RC, r)
