"""Rotation: its own inverse at every size, the same bits with any threads, and statistics rotated along."""

from __future__ import annotations

import pytest
import torch

from golf.quant import rotate
from golf.quant.loss import output_error
from tests.golf.fakes.matrices import gaussian, hessian

COLUMNS = [1, 2, 3, 64, 96, 128, 192, 255, 320, 512, 768, 1536]


def matrix(columns: int) -> torch.Tensor:
    """The rotation as a matrix, from the Sylvester recursion."""
    block, size = torch.ones(1, 1), rotate.block_size(columns)
    while len(block) < size:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)]) / 2**0.5
    return torch.block_diag(*[block] * (columns // size))


@pytest.mark.parametrize("columns", COLUMNS)
def test_the_rotation_is_its_own_inverse_and_keeps_norms_at_every_size(columns):
    weight_RC = gaussian(5, columns)
    rotated = rotate.rotate(weight_RC)
    assert torch.allclose(rotate.rotate(rotated), weight_RC, atol=1e-5)
    assert torch.allclose(rotated.norm(dim=1), weight_RC.norm(dim=1), rtol=1e-5)
    assert (columns & -columns == 1) == torch.equal(rotated, weight_RC)


@pytest.mark.parametrize(
    ("columns", "size"), [(1, 1), (128, 128), (192, 64), (512, 512), (768, 256), (1536, 512)]
)
def test_the_block_is_the_largest_power_of_two_that_divides_the_columns(columns, size):
    assert rotate.block_size(columns) == size
    weight_RC = gaussian(3, columns)
    assert torch.allclose(rotate.rotate(weight_RC), weight_RC @ matrix(columns), atol=1e-5)


def test_the_rotation_has_the_same_bits_with_any_number_of_threads():
    weight_RC = gaussian(64, 768)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rotate.rotate(weight_RC)
        torch.set_num_threads(2)
        assert torch.equal(one, rotate.rotate(weight_RC))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("columns", [96, 192, 320, 512])
def test_the_output_error_is_invariant_under_the_rotation(columns):
    delta_RC, hessian_CC = gaussian(6, columns), hessian(columns)
    rotated = rotate.rotate_hessian(hessian_CC)
    assert output_error(rotate.rotate(delta_RC), rotated) == pytest.approx(
        output_error(delta_RC, hessian_CC), rel=1e-4
    )
    assert torch.allclose(
        rotated, matrix(columns) @ hessian_CC @ matrix(columns), atol=1e-4 * float(hessian_CC.max())
    )
    assert output_error(rotate.rotate(delta_RC), hessian_CC) != pytest.approx(
        output_error(delta_RC, hessian_CC), rel=1e-2
    )


@pytest.mark.parametrize("columns", [3, 96, 192])
def test_a_rotated_diagonal_is_the_diagonal_of_the_rotated_matrix(columns):
    diagonal_RC = gaussian(4, columns).square()
    rotated = rotate.rotate_diagonal(diagonal_RC)
    for row in range(4):
        full_CC = matrix(columns) @ diagonal_RC[row].diag() @ matrix(columns)
        assert torch.allclose(rotated[row], full_CC.diagonal(), atol=1e-5)
