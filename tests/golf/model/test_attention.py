"""Attention: every kernel that runs here equals the definition; exclusive self-attention does what its name says."""

from __future__ import annotations

import pytest
import torch

from golf.model.attention import exclude_self
from golf.model.kernels import ATTENTION, attend_reference, choose
from golf.model.layers import rms_norm, rotary, rotate


def some(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 16), (1, 16), (1, 1), (130, 130), (64, 511)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (2, 1)])
def test_plain_sdpa_equals_the_definition(queries, keys, heads, groups):
    q, k, v = some(2, queries, heads, 8), some(2, keys, groups, 8, seed=1), some(2, keys, groups, 8, seed=2)
    torch.testing.assert_close(ATTENTION["sdpa"](q, k, v), attend_reference(q, k, v), atol=2e-6, rtol=1e-5)


def test_plain_sdpa_has_the_gradients_of_the_definition():
    inputs = [some(2, 20, 4, 8, seed=i).requires_grad_() for i in range(3)]
    fast, slow = (torch.autograd.grad(ATTENTION[name](*inputs).square().sum(), inputs)
                  for name in ("sdpa", "reference"))  # fmt: skip
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


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
    assert choice.name == "sdpa"
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


def test_rms_norm_equals_torchs_own():
    x = 3 * some(4, 5, 32)
    torch.testing.assert_close(rms_norm(x, 0.5), 0.5 * torch.nn.functional.rms_norm(x, (32,)))
