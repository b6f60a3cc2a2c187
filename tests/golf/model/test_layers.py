"""Building blocks: the versions written for speed equal their definitions, gradients included."""

from __future__ import annotations

import pytest
import torch

from golf.model.layers import EPS, FeedForward, rms_norm, softcap
from tests.golf.fakes.tensors import random_tensor


def norm_by_definition(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * scale / (x.square().mean(dim=-1, keepdim=True) + EPS).sqrt()


def test_rms_norm_equals_torchs_own():
    x = 3 * random_tensor(4, 5, 32)
    torch.testing.assert_close(rms_norm(x, 0.5), 0.5 * torch.nn.functional.rms_norm(x, (32,)))


@pytest.mark.parametrize("shape", [(), (6, 1)])
def test_rms_norm_has_the_gradients_of_its_definition(shape):
    inputs = [
        3 * random_tensor(4, 5, 6, 32).requires_grad_(),
        (1 + random_tensor(4, *shape, seed=1)[0]).requires_grad_(),
    ]
    upstream = random_tensor(4, 5, 6, 32, seed=2)
    found, expected = (
        torch.autograd.grad(norm(*inputs), inputs, upstream) for norm in (rms_norm, norm_by_definition)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_rms_norm_of_zeros_is_zero_and_its_gradient_finite():
    x = torch.zeros(2, 8, requires_grad=True)
    y = rms_norm(x)
    y.sum().backward()
    assert not y.any()
    torch.testing.assert_close(x.grad, torch.full((2, 8), EPS**-0.5))


def test_rms_norm_in_bfloat16_has_gradients_about_as_exact_as_autograd():
    x, upstream = random_tensor(4, 50, 64).bfloat16(), random_tensor(4, 50, 64, seed=1).bfloat16()
    exact, written, derived = (
        x.to(dtype).requires_grad_() for dtype in (torch.float64, torch.bfloat16, torch.bfloat16)
    )
    expected = torch.autograd.grad(norm_by_definition(exact, torch.ones(())), exact, upstream.double())[0]
    found = torch.autograd.grad(rms_norm(written), written, upstream)[0]
    plain = torch.autograd.grad(
        norm_by_definition(derived.float(), torch.ones(())).bfloat16(), derived, upstream
    )[0]
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 1.2 * (plain - expected).norm()


def test_softcap_is_the_scaled_tanh_with_its_gradient():
    logits = (40 * random_tensor(3, 50)).requires_grad_()
    found, expected = softcap(logits, 30.0), 30 * torch.tanh(logits / 30)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(y, logits, random_tensor(3, 50, seed=1))[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert softcap(torch.tensor([-1e30, 1e30]), 30.0).tolist() == [-30.0, 30.0]
    assert softcap(logits, 0.0) is logits


@torch.no_grad()
@pytest.mark.parametrize(("slope", "lower"), [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)])
def test_the_feed_forward_squares_a_leaky_relu(slope, lower):
    layer, x = FeedForward(8, 12, slope), random_tensor(2, 3, 8)
    layer.up.weight.copy_(random_tensor(12, 8, seed=1)), layer.down.weight.copy_(random_tensor(8, 12, seed=2))
    hidden = x @ layer.up.weight.T
    squared = torch.where(hidden > 0, 1.0, lower) * hidden**2
    torch.testing.assert_close(layer(x), squared @ layer.down.weight.T, atol=1e-5, rtol=1e-5)
