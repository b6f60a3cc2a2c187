"""Muon: Newton-Schulz against singular values, and both momentum rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from golf.optim.gradients import FlatGradients
from golf.optim.muon import COEFFICIENTS, Muon, MuonOptions, newton_schulz, normalise_rows
from tests.golf.fakes.tensors import random_tensor


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 24, 8), (2, 8, 24)])
def test_newton_schulz_applies_its_polynomial_to_the_singular_values(shape):
    g = random_tensor(*shape)
    u, s, vh = torch.linalg.svd(g.double(), full_matrices=False)
    s = s / (s.square().sum(-1, keepdim=True).sqrt() + 1e-7)
    for _ in range(5):
        a, b, c = COEFFICIENTS
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(g), (u * s[:, None]) @ vh, atol=2e-3, rtol=0, check_dtype=False)


def test_newton_schulz_brings_singular_values_near_one():
    g = random_tensor(1, 32, 48) @ torch.diag(torch.logspace(-1, 1, 48))
    values = torch.linalg.svdvals(newton_schulz(g)[0])
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_bfloat16_orthogonalises_nearly_as_float32_does():
    g = random_tensor(3, 48, 32)
    exact, coarse = newton_schulz(g), newton_schulz(g, dtype=torch.bfloat16)
    assert coarse.dtype == torch.float32
    assert (coarse - exact).norm() < 0.05 * exact.norm()


def muon_of(weight: nn.Parameter, **options) -> Muon:
    """Muon over one matrix, whose gradient must be written in place."""
    return Muon(FlatGradients([weight], []), MuonOptions(steps=5, **options))


def steps(variant: str, gradients: list[torch.Tensor], momentum: float) -> list[torch.Tensor]:
    """The update of each step of a run on one matrix, from the change of the weights."""
    weight = nn.Parameter(torch.zeros(8, 12))
    muon, seen = muon_of(weight, variant=variant, decay=0.0), []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad.copy_(gradient)
        muon.step(1.0, momentum)
        seen.append(before - weight.detach())
    return seen


@pytest.mark.parametrize(
    ("variant", "mixed"),
    [
        ("lerp", lambda m, a, b: m * (1 - m) * a + (1 - m) * b),
        ("nesterov", lambda m, a, b: b + m * (m * a + b)),
    ],
)
def test_momentum_mixes_gradients_as_its_variant_says(variant, mixed):
    a, b = random_tensor(8, 12), random_tensor(8, 12, seed=1)
    expected = newton_schulz(mixed(0.9, a, b)[None])[0]
    torch.testing.assert_close(steps(variant, [a, b], 0.9)[1], expected, atol=1e-4, rtol=1e-3)


def test_decay_is_decoupled_and_tall_matrices_take_larger_steps():
    weight = nn.Parameter(torch.ones(16, 4))
    muon = muon_of(weight, variant="nesterov", decay=0.5)
    weight.grad.copy_(random_tensor(16, 4))
    update = newton_schulz(weight.grad[None])[0]
    muon.step(0.1, 0.0)
    torch.testing.assert_close(
        weight.detach(), torch.ones(16, 4) * 0.95 - 0.1 * 2 * update, atol=1e-5, rtol=1e-4
    )


def test_normalised_rows_have_norm_one_and_keep_their_direction_and_empty_rows_stay_empty():
    g = random_tensor(2, 5, 7)
    g[0, 1] = 0
    norms = normalise_rows(g).norm(dim=2)
    assert norms[0, 1] == 0
    torch.testing.assert_close(norms.flatten()[torch.arange(10) != 1], torch.ones(9))
    torch.testing.assert_close(normalise_rows(g) * g.norm(dim=2, keepdim=True), g)


@pytest.mark.parametrize("variant", ["lerp", "nesterov"])
def test_equalise_makes_the_update_independent_of_the_size_of_rows(variant):
    gradients, sizes = [random_tensor(8, 12), random_tensor(8, 12, seed=1)], torch.logspace(-2, 2, 8)[:, None]
    found = []
    for equalise in (True, False):
        for scaled in (gradients, [sizes * g for g in gradients]):
            weight = nn.Parameter(torch.zeros(8, 12))
            muon = muon_of(weight, variant=variant, decay=0.0, equalise=equalise)
            for gradient in scaled:
                weight.grad.copy_(gradient)
                muon.step(1.0, 0.9)
            found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-3)
    assert (found[2] - found[3]).abs().max() > 0.1
