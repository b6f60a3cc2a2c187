"""Rounding with error feedback: never worse than rounding on its own objective, and exact where the answer is
known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.quant import gptq, grid
from golf.quant.clip import ClipMethod, clip
from golf.quant.loss import output_error
from tests.golf.quant.samples import gaussian, hessian

CUT_NOTHING = ClipMethod()


def steps(weight_RC: torch.Tensor, bits: grid.Bits, reach: ClipMethod = CUT_NOTHING) -> torch.Tensor:
    return grid.row_steps(clip(weight_RC, bits, reach), bits)


def error(coded: grid.Coded, weight_RC: torch.Tensor, hessian_CC: torch.Tensor) -> float:
    return output_error(grid.dequantise(coded) - weight_RC, hessian_CC)


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
def test_feedback_is_never_worse_than_rounding_on_its_own_objective(
    seed, rows, columns, tokens, bits, method, dead
):
    weight_RC, hessian_CC = gaussian(rows, columns, seed), hessian(columns, tokens, seed)
    hessian_CC[:dead], hessian_CC[:, :dead] = 0, 0
    step_R = steps(weight_RC, bits, ClipMethod(method, quantile=0.8, sigmas=2.0)).clamp(min=1e-3)
    coded, plain = gptq.quantise(weight_RC, step_R, bits, hessian_CC), grid.quantise(weight_RC, step_R, bits)
    assert error(coded, weight_RC, hessian_CC) <= error(plain, weight_RC, hessian_CC)
    assert coded.codes_RC.abs().max() <= grid.largest_code(bits) and torch.equal(coded.step_R, step_R)


@pytest.mark.parametrize("columns", [96, 300])
def test_on_correlated_inputs_feedback_saves_much_of_the_output_error(columns):
    weight_RC, hessian_CC = gaussian(64, columns), hessian(columns, spread=0.5)
    step_R = steps(weight_RC, 4)
    coded, plain = gptq.quantise(weight_RC, step_R, 4, hessian_CC), grid.quantise(weight_RC, step_R, 4)
    assert error(coded, weight_RC, hessian_CC) < 0.6 * error(plain, weight_RC, hessian_CC)


def test_with_inputs_that_do_not_correlate_feedback_is_rounding():
    weight_RC = gaussian(8, 32)
    step_R = steps(weight_RC, 4)
    diagonal_CC = torch.diag(gaussian(1, 32)[0].square() + 0.1)
    coded = gptq.quantise(weight_RC, step_R, 4, diagonal_CC)
    assert torch.equal(coded.codes_RC, grid.quantise(weight_RC, step_R, 4).codes_RC)


def test_blocks_are_only_a_way_of_computing(monkeypatch):
    weight_RC, hessian_CC = gaussian(16, 150), hessian(150, spread=0.5)
    step_R = steps(weight_RC, 4)
    whole = gptq.quantise(weight_RC, step_R, 4, hessian_CC)
    monkeypatch.setattr(gptq, "BLOCK", 1)
    alone = gptq.quantise(weight_RC, step_R, 4, hessian_CC)
    assert (
        whole.codes_RC != alone.codes_RC
    ).float().mean() < 0.01  # sums in another order: a tie here and there


def test_it_is_the_textbook_recursion():
    """Twin: after each column the inverse Hessian of the columns left is conditioned on it, with no Cholesky
    factor."""
    weight_RC, hessian_CC = gaussian(4, 12).double(), hessian(12, spread=0.3).double()
    step_R = steps(weight_RC.float(), 4)
    damped_CC = hessian_CC + gptq.DAMPING * hessian_CC.diagonal().mean() * torch.eye(12)
    left = torch.argsort(damped_CC.diagonal(), descending=True).tolist()
    moving_RC, inverse_CC = weight_RC.clone(), torch.linalg.inv(damped_CC)
    codes_RC = torch.zeros(4, 12)
    while left:
        j = left.pop(0)
        code_R = torch.round(moving_RC[:, j] / step_R.double()).clamp(-7, 7)
        lost_R = (moving_RC[:, j] - code_R * step_R.double()) / inverse_CC[j, j]
        codes_RC[:, j] = code_R.float()
        moving_RC -= torch.outer(lost_R, inverse_CC[j])
        inverse_CC = inverse_CC - torch.outer(inverse_CC[:, j], inverse_CC[j]) / inverse_CC[j, j]
    found = gptq.quantise(weight_RC.float(), step_R, 4, hessian_CC.float())
    assert torch.equal(found.codes_RC.float(), codes_RC)


def test_columns_that_were_never_fed_become_zero_and_do_no_harm():
    weight_RC, hessian_CC = gaussian(16, 64), hessian(64, spread=0.5)
    hessian_CC[5], hessian_CC[:, 5] = 0, 0
    coded = gptq.quantise(weight_RC, steps(weight_RC, 4), 4, hessian_CC)
    assert not coded.codes_RC[:, 5].any() and coded.codes_RC[:, 6].any()


def test_a_matrix_that_is_no_hessian_is_refused():
    weight_RC = gaussian(4, 8)
    for wrong_CC in (hessian(7), -hessian(8), torch.eye(8) + 5 * (1 - torch.eye(8))):
        with pytest.raises(ValueError, match="Hessian"):
            gptq.quantise(weight_RC, steps(weight_RC, 4), 4, wrong_CC)
