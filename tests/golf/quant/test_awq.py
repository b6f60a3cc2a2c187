"""AWQ scales: alpha 0 is neutral, the search never makes the error worse, and unused columns are ignored."""

from __future__ import annotations

import pytest
import torch

from golf.quant import awq, recipe
from golf.quant.loss import output_error
from golf.quant.recipe import Recipe
from golf.quant.stats import TensorStats
from tests.golf.fakes.matrices import gaussian, hessian, inputs


def stats_of(x_NC: torch.Tensor) -> TensorStats:
    return TensorStats(x_NC.T @ x_NC / len(x_NC), x_NC.abs().mean(dim=0))


def test_scales_have_geometric_mean_one_and_grow_with_the_inputs():
    activation_C = inputs(64).abs().mean(dim=0)
    for alpha in awq.ALPHAS[1:]:
        scale_C = awq.scales(activation_C, alpha).float()
        assert scale_C.log().mean() == pytest.approx(0, abs=1e-3)
        assert (scale_C[activation_C.argsort()].diff() >= 0).all()
    assert torch.allclose(
        awq.scales(activation_C, 1.0).float() / activation_C,
        (awq.scales(activation_C, 1.0).float() / activation_C)[:1],
        rtol=2e-3,
    )


def test_alpha_zero_is_neutral_for_any_inputs():
    assert torch.equal(awq.scales(inputs(32).abs().mean(dim=0), 0.0), torch.ones(32, dtype=torch.float16))


def test_unused_columns_have_scale_one_and_do_not_affect_the_others():
    activation_C = inputs(32).abs().mean(dim=0)
    with_unused = torch.cat([activation_C, torch.zeros(5)])
    assert torch.equal(
        awq.scales(with_unused, 0.5), torch.cat([awq.scales(activation_C, 0.5), torch.ones(5).half()])
    )
    assert torch.equal(awq.scales(torch.zeros(4), 0.5), torch.ones(4).half())


def test_scales_stay_where_float16_has_full_precision():
    scale_C = awq.scales(torch.tensor([1e-30, 1.0, 1e30]), 1.0)
    assert scale_C.tolist() == [1 / awq.LARGEST_SCALE, 1.0, awq.LARGEST_SCALE]


@pytest.mark.parametrize(
    "how", [Recipe(bits=4), Recipe(bits=3, rotate=True), Recipe(bits=4, rotate=True, gptq=True)]
)
@pytest.mark.parametrize("seed", range(4))
def test_the_search_is_never_worse_and_helps_where_inputs_differ_in_size(how, seed):
    weight_RC, stats = gaussian(24, 96, seed), stats_of(inputs(96, seed=seed, spread=1.5))
    error = {}
    for on in (False, True):
        stored = recipe.encode("w", weight_RC, how._replace(awq=on), stats)
        error[on] = output_error(recipe.decode(stored, how) - weight_RC, stats.hessian_CC)
        assert (stored.scale_C is not None) is on
    # The search measures plain rounding, so with GPTQ it may lose a little.
    assert error[True] < (0.8 if not how.gptq else 1.05) * error[False]


def test_no_scales_are_stored_if_all_inputs_have_the_same_magnitude():
    weight_RC, stats = gaussian(8, 32), TensorStats(torch.eye(32), torch.ones(32))
    assert recipe.encode("w", weight_RC, Recipe(bits=4, awq=True), stats).scale_C is None


def test_tensors_without_the_needed_statistics_are_not_scaled():
    weight_RC = gaussian(8, 32)
    plain = recipe.encode("w", weight_RC, Recipe(bits=4))
    for stats in (
        None,
        TensorStats(),
        TensorStats(activation_C=torch.ones(32)),
        TensorStats(hessian_CC=hessian(32)),
    ):
        stored = recipe.encode("w", weight_RC, Recipe(bits=4, awq=True), stats)
        assert stored.scale_C is None and torch.equal(stored.values, plain.values)
