"""Quantising one tensor: round trips within the rounding error, and options that are off have no effect."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from golf.quant import grid, recipe
from golf.quant.clip import ClipMethod
from golf.quant.loss import loss, output_error
from golf.quant.recipe import Recipe
from golf.quant.stats import TensorStats
from tests.golf.fakes.matrices import WEIGHTS, gaussian, inputs

EVERYTHING = Recipe(
    bits=5,
    clip_method=ClipMethod("sigma", sigmas=4.0, floor=True),
    rotate=True,
    awq=True,
    gptq=True,
    fisher=True,
    row_bits=True,
)


def stats_of(rows: int, columns: int, seed: int = 0) -> TensorStats:
    x_NC = inputs(columns, seed=seed)
    return TensorStats(
        x_NC.T @ x_NC / len(x_NC),
        x_NC.abs().mean(dim=0),
        gaussian(rows, columns, seed + 5).square(),
        gaussian(1, rows, seed + 6)[0].abs(),
    )


def round_trip(weight: torch.Tensor, how: Recipe, stats: TensorStats | None = None) -> torch.Tensor:
    return recipe.decode(recipe.encode("w", weight, how, stats), how)


@settings(deadline=None, max_examples=80)
@given(
    weight_RC=WEIGHTS,
    how=st.tuples(st.none() | st.sampled_from(list(grid.BITS)), *[st.booleans()] * 3).map(
        lambda drawn: Recipe(drawn[0], ClipMethod(floor=drawn[1]), rotate=drawn[2], row_bits=drawn[3])
    ),
)
def test_every_recipe_restores_a_tensor_within_its_rounding_error(weight_RC, how):
    stats = stats_of(*weight_RC.shape)
    stored = recipe.encode("w", weight_RC, how, stats)
    restored_RC = recipe.decode(stored, how)
    assert (
        restored_RC.dtype == torch.float32 and restored_RC.shape == weight_RC.shape and stored.scale_C is None
    )
    if stored.step_R is None:
        assert stored.values.dtype == torch.float16
        assert torch.allclose(restored_RC, weight_RC, rtol=2**-11, atol=2**-24)
    else:
        # Rotation keeps the norm of the error, so half a step per number bounds the norm of each row's error.
        limit_R = 0.501 * stored.step_R.float() * weight_RC.shape[1] ** 0.5 + 1e-3 * weight_RC.abs().amax()
        assert ((restored_RC - weight_RC).norm(dim=1) <= limit_R).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), rotate=st.booleans(), gptq=st.booleans())
@pytest.mark.slow
def test_eight_bits_with_every_technique_have_a_small_output_error(seed, rotate, gptq):
    weight_RC, stats = gaussian(8, 96, seed), stats_of(8, 96, seed)
    how = EVERYTHING._replace(
        bits=8, rotate=rotate, gptq=gptq, row_bits=False, clip_method=ClipMethod("search")
    )
    error = output_error(round_trip(weight_RC, how, stats) - weight_RC, stats.hessian_CC)
    assert error < 3e-4 * output_error(weight_RC, stats.hessian_CC)


@pytest.mark.parametrize(
    "change",
    [
        {"rotate": False},
        {"awq": False},
        {"gptq": False},
        {"fisher": False},
        {"row_bits": False},
        {"clip_method": ClipMethod("search", floor=True)},
        {"clip_method": ClipMethod("sigma", sigmas=4.0)},
    ],
)
def test_each_technique_changes_what_is_stored(change):
    weight_RC, stats = 0.05 * gaussian(24, 96) ** 3, stats_of(24, 96)
    with_it, without = (
        recipe.encode("w", weight_RC, how, stats) for how in (EVERYTHING, EVERYTHING._replace(**change))
    )
    assert not torch.equal(with_it.values, without.values)


@pytest.mark.parametrize("columns", [96, 192])
@pytest.mark.parametrize("rotate", [False, True])
def test_feedback_uses_the_hessian_of_the_scaled_and_rotated_weights(columns, rotate):
    """With the Hessian of the original weights, feedback would not reduce the output error."""
    weight_RC, stats = gaussian(32, columns), stats_of(32, columns)
    how = Recipe(bits=3, rotate=rotate, awq=True)
    errors = [
        output_error(round_trip(weight_RC, how._replace(gptq=on), stats) - weight_RC, stats.hessian_CC)
        for on in (False, True)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_rotation_spreads_an_outlier_and_reduces_the_rounding_error():
    weight_RC = 0.1 * gaussian(16, 512)
    weight_RC[:, 7] = 3.0
    plain, rotated = (round_trip(weight_RC, Recipe(bits=6, rotate=on)) - weight_RC for on in (False, True))
    assert rotated.square().mean() < plain.square().mean() / 5


def test_bits_none_is_neutral_for_all_other_options():
    weight_RC, stats = gaussian(30, 96), stats_of(30, 96)
    stored = recipe.encode("w", weight_RC, EVERYTHING._replace(bits=None), stats)
    assert stored.step_R is None and stored.scale_C is None
    assert torch.equal(stored.values, weight_RC.half())


def test_statistics_that_no_technique_uses_have_no_effect():
    weight_RC, how = gaussian(30, 96), Recipe(bits=5, rotate=True, clip_method=ClipMethod("search"))
    bare, measured = (recipe.encode("w", weight_RC, how, stats) for stats in (None, stats_of(30, 96)))
    assert torch.equal(bare.values, measured.values) and torch.equal(bare.step_R, measured.step_R)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("how", [Recipe(), Recipe(bits=6)])
def test_weights_that_cannot_be_stored_are_an_error_that_names_the_tensor(bad, how):
    weight_RC = torch.ones(4, 4)
    weight_RC[1, 2] = bad
    with pytest.raises(ValueError, match=r"tensor blocks\.3\.q"):
        recipe.encode("blocks.3.q", weight_RC, how)


def test_the_loss_uses_fisher_if_given_else_the_hessian_else_rows():
    delta_RC, x_NC, fisher_RC = gaussian(5, 12), inputs(12), gaussian(5, 12).square()
    hessian_CC = x_NC.T @ x_NC / len(x_NC)
    output = (x_NC @ delta_RC.T).square().sum() / len(x_NC)
    assert loss(delta_RC, hessian_CC) == pytest.approx(float(output), rel=1e-4)
    assert loss(delta_RC, hessian_CC, fisher_RC) == pytest.approx(
        float((delta_RC**2 * fisher_RC).sum()), rel=1e-5
    )
    looked_up = torch.eye(5) @ delta_RC  # the mean over all rows that can be looked up
    assert loss(delta_RC) == pytest.approx(float(looked_up.square().sum(dim=1).mean()), rel=1e-5)
