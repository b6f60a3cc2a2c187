"""Attention: every kernel that runs here equals the definition; exclusive self-attention does what its name
says."""

from __future__ import annotations

import pytest
import torch

from golf.model.attention import exclude_self
from golf.model.kernels import ATTENTION, attend_reference, choose
from golf.model.layers import rotary, rotate


def some(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 16), (1, 16), (1, 1), (130, 130), (64, 511)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (2, 1)])
@pytest.mark.parametrize("name", ["sdpa", "blocks"])
def test_kernels_of_the_cpu_equal_the_definition_and_have_its_gradients(name, queries, keys, heads, groups):
    shapes = [(2, queries, heads, 8), (2, keys, groups, 8), (2, keys, groups, 8)]
    inputs = [some(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    fast, slow = (ATTENTION[kernel](*inputs) for kernel in (name, "reference"))
    torch.testing.assert_close(fast, slow, atol=2e-6, rtol=1e-5)
    towards = some(*shapes[0], seed=3)
    fast, slow = (torch.autograd.grad(y, inputs, towards) for y in (fast, slow))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


def test_blocks_in_bfloat16_are_near_the_definition_as_plain_sdpa_is():
    shapes, towards = (
        [(2, 300, 4, 16), (2, 300, 2, 16), (2, 300, 2, 16)],
        some(2, 300, 4, 16, seed=3).bfloat16(),
    )
    inputs = [some(*shape, seed=i).bfloat16().requires_grad_() for i, shape in enumerate(shapes)]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(attend_reference(*exact), exact, towards.float())
    errors = {}
    for name in ("sdpa", "blocks"):
        found = torch.autograd.grad(ATTENTION[name](*inputs), inputs, towards)
        assert all(x.dtype == torch.bfloat16 for x in found)
        errors[name] = torch.stack([(a - b).norm() / b.norm() for a, b in zip(found, expected, strict=True)])
    assert (errors["blocks"] < 2 * errors["sdpa"]).all()


def test_blocks_stay_finite_where_scores_are_large():
    q, k, v = some(1, 200, 2, 8), some(1, 200, 1, 8, seed=1), some(1, 200, 1, 8, seed=2)
    y = ATTENTION["blocks"](1e3 * q, k, v)
    torch.testing.assert_close(y, attend_reference(1e3 * q, k, v), atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["flash3", "cudnn", "sdpa"])
@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (64, 256)])
def test_kernels_of_the_gpu_equal_the_definition_in_bfloat16(name, queries, keys):
    shapes = [(2, queries, 8, 64), (2, keys, 4, 64), (2, keys, 4, 64)]
    q, k, v = (some(*shape, seed=i, device="cuda", dtype=torch.bfloat16) for i, shape in enumerate(shapes))
    try:
        found = ATTENTION[name](q, k, v)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not run here: {error}")
    torch.testing.assert_close(found, attend_reference(q, k, v), atol=2e-2, rtol=2e-2)


def test_the_choice_is_recorded_with_its_reasons():
    choice = choose(torch.device("cpu"), torch.float32)
    assert choice.name == "blocks"
    assert "no CUDA device" in choice.why


def test_exclusive_self_attention_leaves_nothing_along_the_own_value():
    y, v = some(2, 7, 6, 8), some(2, 7, 3, 8, seed=1)
    left = exclude_self(y, v)
    along = (left.view(2, 7, 3, 2, 8) * v[..., None, :]).sum(-1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-5, rtol=0)
    torch.testing.assert_close(exclude_self(left, v), left, atol=1e-5, rtol=0)


def test_partial_rotation_turns_the_first_dimensions_and_keeps_lengths():
    x, table = some(1, 9, 2, 8), rotary(9, 4, 10_000.0, torch.device("cpu"))
    turned = rotate(x, table)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_rotated_products_depend_on_the_distance_alone():
    table = rotary(40, 8, 10_000.0, torch.device("cpu"))
    q, k = (some(8, seed=i).expand(1, 40, 1, 8) for i in (1, 2))
    product = (rotate(q, table)[0, 10:, 0] * rotate(k, table)[0, :30, 0]).sum(-1)
    torch.testing.assert_close(product, product[:1].expand(30), atol=1e-4, rtol=1e-4)
