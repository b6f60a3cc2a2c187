"""Attention: every kernel that runs here equals the definition; rotation and exclusive attention."""

from __future__ import annotations

import pytest
import torch

from golf.bench.reference_attention import attend_reference
from golf.model.attention import exclude_self
from golf.model.kernels import ATTENTION, choose
from golf.model.layers import rotary, rotate
from tests.golf.fakes.tensors import random_tensor


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 16), (1, 16), (1, 1), (130, 130), (64, 511)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (2, 1)])
@pytest.mark.parametrize("name", ["sdpa", "blocks"])
def test_cpu_kernels_equal_the_definition_in_outputs_and_gradients(name, queries, keys, heads, groups):
    shapes = [(2, queries, heads, 8), (2, keys, groups, 8), (2, keys, groups, 8)]
    inputs = [random_tensor(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    found, expected = (attend(*inputs) for attend in (ATTENTION[name], attend_reference))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    upstream = random_tensor(*shapes[0], seed=3)
    found, expected = (torch.autograd.grad(y, inputs, upstream) for y in (found, expected))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_blocks_in_bfloat16_are_about_as_exact_as_sdpa():
    shapes, upstream = (
        [(2, 300, 4, 16), (2, 300, 2, 16), (2, 300, 2, 16)],
        random_tensor(2, 300, 4, 16, seed=3).bfloat16(),
    )
    inputs = [random_tensor(*shape, seed=i).bfloat16().requires_grad_() for i, shape in enumerate(shapes)]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(attend_reference(*exact), exact, upstream.float())
    errors = {}
    for name in ("sdpa", "blocks"):
        found = torch.autograd.grad(ATTENTION[name](*inputs), inputs, upstream)
        assert all(x.dtype == torch.bfloat16 for x in found)
        errors[name] = torch.stack([(a - b).norm() / b.norm() for a, b in zip(found, expected, strict=True)])
    assert (errors["blocks"] < 2 * errors["sdpa"]).all()


def test_blocks_stay_finite_where_scores_are_large():
    q, k, v = (
        random_tensor(1, 200, 2, 8),
        random_tensor(1, 200, 1, 8, seed=1),
        random_tensor(1, 200, 1, 8, seed=2),
    )
    y = ATTENTION["blocks"](1e3 * q, k, v)
    torch.testing.assert_close(y, attend_reference(1e3 * q, k, v), atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["flash3", "cudnn", "sdpa"])
@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (64, 256)])
def test_gpu_kernels_equal_the_definition_in_bfloat16(name, queries, keys):
    shapes = [(2, queries, 8, 64), (2, keys, 4, 64), (2, keys, 4, 64)]
    q, k, v = (
        random_tensor(*shape, seed=i, device="cuda", dtype=torch.bfloat16) for i, shape in enumerate(shapes)
    )
    try:
        found = ATTENTION[name](q, k, v)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not run here: {error}")
    torch.testing.assert_close(found, attend_reference(q, k, v), atol=2e-2, rtol=2e-2)


def test_the_choice_is_recorded_with_its_reasons():
    choice = choose(torch.device("cpu"), torch.float32)
    assert choice.name == "blocks"
    assert "no CUDA device" in choice.why


def test_exclusive_self_attention_is_orthogonal_to_the_own_value():
    y, v = random_tensor(2, 7, 6, 8), random_tensor(2, 7, 3, 8, seed=1)
    remainder = exclude_self(y, v)
    products = (remainder.view(2, 7, 3, 2, 8) * v[..., None, :]).sum(-1)
    torch.testing.assert_close(products, torch.zeros_like(products), atol=1e-5, rtol=0)
    torch.testing.assert_close(exclude_self(remainder, v), remainder, atol=1e-5, rtol=0)


def test_partial_rotation_changes_only_the_first_dimensions_and_keeps_norms():
    x, table = random_tensor(1, 9, 2, 8), rotary(9, 4, 10_000.0, torch.device("cpu"))
    rotated = rotate(x, table)
    assert torch.equal(rotated[..., 4:], x[..., 4:])
    assert torch.equal(rotated[:, 0], x[:, 0])
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))


def test_rotated_products_depend_on_the_distance_alone():
    table = rotary(40, 8, 10_000.0, torch.device("cpu"))
    q, k = (random_tensor(8, seed=i).expand(1, 40, 1, 8) for i in (1, 2))
    product = (rotate(q, table)[0, 10:, 0] * rotate(k, table)[0, :30, 0]).sum(-1)
    torch.testing.assert_close(product, product[:1].expand(30), atol=1e-4, rtol=1e-4)
