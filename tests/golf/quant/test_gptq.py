"""GPTQ: never worse than plain rounding on tr(D H D^T), and correct where the answer is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.quant import gptq, grid
from golf.quant.clip import ClipMethod, clip
from golf.quant.loss import output_error
from tests.golf.fakes.matrices import gaussian, hessian

NO_CLIPPING = ClipMethod()


def steps(weight_RC: torch.Tensor, bits: grid.Bits, method: ClipMethod = NO_CLIPPING) -> torch.Tensor:
    return grid.row_steps(clip(weight_RC, bits, method), bits)


def error(found: grid.Quantised, weight_RC: torch.Tensor, hessian_CC: torch.Tensor) -> float:
    return output_error(grid.dequantise(found) - weight_RC, hessian_CC)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    tokens=st.integers(1, 60),
    bits=st.sampled_from(list(grid.BITS)),
    method=st.sampled_from(["max", "sigma", "quantile"]),
    dead=st.integers(0, 5),
)
def test_feedback_never_has_a_larger_output_error_than_rounding(
    seed, rows, columns, tokens, bits, method, dead
):
    weight_RC, hessian_CC = gaussian(rows, columns, seed), hessian(columns, tokens, seed)
    hessian_CC[:dead], hessian_CC[:, :dead] = 0, 0
    step_R = steps(weight_RC, bits, ClipMethod(method, quantile=0.8, sigmas=2.0)).clamp(min=1e-3)
    found, plain = gptq.quantise(weight_RC, step_R, bits, hessian_CC), grid.quantise(weight_RC, step_R, bits)
    assert error(found, weight_RC, hessian_CC) <= error(plain, weight_RC, hessian_CC)
    assert found.codes_RC.abs().max() <= grid.largest_code(bits) and torch.equal(found.step_R, step_R)


@pytest.mark.parametrize("columns", [96, 300])
def test_on_correlated_inputs_feedback_saves_much_of_the_output_error(columns):
    weight_RC, hessian_CC = gaussian(64, columns), hessian(columns, spread=0.5)
    step_R = steps(weight_RC, 4)
    found, plain = gptq.quantise(weight_RC, step_R, 4, hessian_CC), grid.quantise(weight_RC, step_R, 4)
    assert error(found, weight_RC, hessian_CC) < 0.6 * error(plain, weight_RC, hessian_CC)


def test_with_uncorrelated_inputs_feedback_equals_rounding():
    weight_RC = gaussian(8, 32)
    step_R = steps(weight_RC, 4)
    diagonal_CC = torch.diag(gaussian(1, 32)[0].square() + 0.1)
    found = gptq.quantise(weight_RC, step_R, 4, diagonal_CC)
    assert torch.equal(found.codes_RC, grid.quantise(weight_RC, step_R, 4).codes_RC)


def test_the_block_size_does_not_change_the_result(monkeypatch):
    weight_RC, hessian_CC = gaussian(16, 150), hessian(150, spread=0.5)
    step_R = steps(weight_RC, 4)
    whole = gptq.quantise(weight_RC, step_R, 4, hessian_CC)
    monkeypatch.setattr(gptq, "BLOCK", 1)
    alone = gptq.quantise(weight_RC, step_R, 4, hessian_CC)
    # The order of the sums differs, so a few numbers near a tie may round differently.
    assert (whole.codes_RC != alone.codes_RC).float().mean() < 0.01


def test_the_result_equals_the_textbook_recursion():
    """The recursion updates the remaining inverse Hessian after each column, without Cholesky."""
    weight_RC, hessian_CC = gaussian(4, 12).double(), hessian(12, spread=0.3).double()
    step_R = steps(weight_RC.float(), 4)
    damped_CC = hessian_CC + gptq.DAMPING * hessian_CC.diagonal().mean() * torch.eye(12)
    remaining = torch.argsort(damped_CC.diagonal(), descending=True).tolist()
    corrected_RC, inverse_CC = weight_RC.clone(), torch.linalg.inv(damped_CC)
    codes_RC = torch.zeros(4, 12)
    while remaining:
        j = remaining.pop(0)
        code_R = torch.round(corrected_RC[:, j] / step_R.double()).clamp(-7, 7)
        error_R = (corrected_RC[:, j] - code_R * step_R.double()) / inverse_CC[j, j]
        codes_RC[:, j] = code_R.float()
        corrected_RC -= torch.outer(error_R, inverse_CC[j])
        inverse_CC = inverse_CC - torch.outer(inverse_CC[:, j], inverse_CC[j]) / inverse_CC[j, j]
    found = gptq.quantise(weight_RC.float(), step_R, 4, hessian_CC.float())
    assert torch.equal(found.codes_RC.float(), codes_RC)


def test_unused_columns_become_zero_and_leave_the_others_unaffected():
    weight_RC, hessian_CC = gaussian(16, 64), hessian(64, spread=0.5)
    hessian_CC[5], hessian_CC[:, 5] = 0, 0
    found = gptq.quantise(weight_RC, steps(weight_RC, 4), 4, hessian_CC)
    assert not found.codes_RC[:, 5].any() and found.codes_RC[:, 6].any()


def test_a_matrix_that_cannot_be_the_hessian_is_refused():
    weight_RC = gaussian(4, 8)
    for wrong_CC in (hessian(7), -hessian(8), torch.eye(8) + 5 * (1 - torch.eye(8))):
        with pytest.raises(ValueError, match="Hessian"):
            gptq.quantise(weight_RC, steps(weight_RC, 4), 4, wrong_CC)
