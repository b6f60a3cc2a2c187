"""Attention: every kernel that runs here equals the definition; rotation and exclusive attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._inductor.codecache import FxGraphCachePickler, FxGraphHashDetails
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from golf.bench.reference_attention import attend_reference
from golf.model import kernels
from golf.model.attention import exclude_self
from golf.model.kernels import ATTENTION, Call, Choice, choose
from golf.model.layers import rotary, rotate
from golf.recipe.config import Config, load
from golf.recipe.schema import HardwareConfig, ScoreConfig
from golf.runtime import compilation
from golf.runtime.errors import StageError
from tests.golf.fakes.recipes import ROOT
from tests.golf.fakes.tensors import random_tensor


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 16), (1, 16), (1, 1), (130, 130), (64, 511)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (4, 4), (2, 1)])
@pytest.mark.parametrize("name", ["sdpa", "blocks", "cudnn", "cudnn_repeated"])
def test_on_a_cpu_kernels_equal_the_definition_in_outputs_and_gradients(name, queries, keys, heads, groups):
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
@pytest.mark.parametrize("name", ["flash3", "cudnn", "cudnn_repeated", "sdpa"])
@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (64, 256), (192, 192)])
def test_gpu_kernels_equal_the_definition_in_bfloat16(name, queries, keys):
    shapes = [(2, queries, 8, 64), (2, keys, 4, 64), (2, keys, 4, 64)]
    q, k, v = (
        random_tensor(*shape, seed=i, device="cuda", dtype=torch.bfloat16) for i, shape in enumerate(shapes)
    )
    kernels.allow(name)
    try:
        found = ATTENTION[name](q, k, v)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not run here: {error}")
    torch.testing.assert_close(found, attend_reference(q, k, v), atol=2e-2, rtol=2e-2)


FLAGS = ("math", "cudnn", "flash", "mem_efficient")


@pytest.fixture
def flags():
    """The process's flags and cache key, put back afterwards."""
    cuda = torch.backends.cuda
    before = {name: getattr(cuda, f"{name}_sdp_enabled")() for name in FLAGS}
    tag = torch.compiler.config.cache_key_tag
    yield
    for name, on in before.items():
        getattr(cuda, f"enable_{name}_sdp")(on)
    torch.compiler.config.cache_key_tag = tag


def test_the_caches_of_compiled_code_tell_kernels_apart_that_differ_only_by_flags(flags):
    graph = torch.fx.symbolic_trace(lambda x: x.sin())
    keys = set()
    for name in ("cudnn", "sdpa"):
        kernels.allow(name)
        keys.add(FxGraphCachePickler(graph).get_hash(FxGraphHashDetails(graph, [], {}, [])))
    assert len(keys) == 2


@pytest.mark.parametrize("length", [128, 130])
def test_grouped_heads_equal_repeated_ones(length):
    shapes = [(2, length, 8, 16), (2, length, 4, 16), (2, length, 4, 16)]
    inputs = [random_tensor(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    grouped, repeated = (ATTENTION[name](*inputs) for name in ("cudnn", "cudnn_repeated"))
    torch.testing.assert_close(grouped, repeated, atol=1e-6, rtol=1e-5)
    upstream = random_tensor(*shapes[0], seed=3)
    found = [torch.autograd.grad(y, inputs, upstream) for y in (grouped, repeated)]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


class Operators(TorchDispatchMode):
    """The names of PyTorch's operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_fewer_queries_than_keys_run_flash_on_cuda_without_a_mask():
    """The tensors have no numbers and need no GPU."""
    with FakeTensorMode(), Operators() as operators:
        q, k = (torch.empty(2, n, h, 64, device="cuda").bfloat16() for n, h in ((64, 8), (256, 4)))
        for name in ("cudnn", "cudnn_repeated", "sdpa"):
            assert ATTENTION[name](q, k, k).shape == q.shape
    assert operators.names.count("aten._scaled_dot_product_flash_attention.default") == 3


def takes_flash(monkeypatch, queries: int, keys: int) -> bool:
    taken: list[tuple[int, ...]] = []
    monkeypatch.setattr(kernels, "attend_flash", lambda q, k, v: taken.append(q.shape) or q)
    ATTENTION["cudnn"](random_tensor(1, queries, 2, 8), *(random_tensor(1, keys, 1, 8) for _ in range(2)))
    return bool(taken)


def test_cudnn_is_for_square_calls_of_whole_tiles_and_flash_for_the_others(monkeypatch):
    found = [takes_flash(monkeypatch, *shape) for shape in ((256, 256), (192, 192), (64, 256))]
    assert found == [False, True, True]


def test_deterministic_algorithms_take_flash_instead_of_cudnn(deterministic, monkeypatch):
    assert takes_flash(monkeypatch, 256, 256)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdpa", "blocks", "cudnn", "cudnn_repeated"])
def test_kernels_are_part_of_one_compiled_graph(name, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    q, k = random_tensor(2, 16, 4, 8), random_tensor(2, 16, 2, 8, seed=1)
    compiled = compilation.Compiled(ATTENTION[name])
    torch.testing.assert_close(compiled(q, k, k), ATTENTION["sdpa"](q, k, k), atol=1e-5, rtol=1e-5)


def chosen(attention, device="cpu", dtype=torch.float32):
    config = replace(Config(), hardware=HardwareConfig(attention=attention))
    return choose(torch.device(device), dtype, config, kernels.training_calls(config))


def test_on_a_cpu_the_choice_is_recorded_with_its_reasons_and_a_named_kernel_is_taken():
    assert chosen("auto") == Choice("blocks", "flash3, cudnn: no CUDA device (cpu)")
    assert chosen("sdpa") == Choice("sdpa", "named by the recipe")


@pytest.mark.parametrize("name", ["flash3", "cudnn", "cudnn_repeated"])
def test_a_named_kernel_that_cannot_run_is_an_error_and_no_other_is_taken(name):
    with pytest.raises(StageError, match=rf"hardware.attention: {name} cannot run here: .*no CUDA device"):
        chosen(name)


@pytest.mark.parametrize("name", ["auto", "sdpa"])
def test_float32_on_cuda_is_refused_with_a_hint_before_anything_runs(name):
    with pytest.raises(StageError, match=r"keeps all T x S scores .*set hardware.precision: bfloat16"):
        chosen(name, "cuda", torch.float32)


@pytest.fixture
def cuda(monkeypatch):
    """The choice as on CUDA, with the trials on this machine's CPU and without a float32 refusal."""
    seen = []
    monkeypatch.setattr(kernels, "allow", seen.append)
    trial = kernels._failure
    monkeypatch.setattr(kernels, "_failure", lambda *args: trial(*args[:3], torch.device("cpu")))
    return seen


SMALL = load("model: {width: 32, heads: 4, kv_heads: 2}\ntrain: {seq_len: 16, batch_tokens: 256}")


def test_auto_takes_the_first_kernel_whose_trial_passes_and_keeps_the_reasons(cuda, monkeypatch):
    def broken(q, k, v):
        return q * k.mean() * v.mean() * float("nan")

    monkeypatch.setitem(ATTENTION, "cudnn", broken)
    calls = kernels.training_calls(replace(SMALL, hardware=HardwareConfig(micro_tokens=32)))
    choice = choose(torch.device("cuda"), torch.bfloat16, SMALL, calls)
    assert choice.name == "sdpa"
    assert "flash3: ModuleNotFoundError" in choice.why
    assert "cudnn: a result is not finite at Call(rows=2, queries=16, keys=16, backward=True)" in choice.why
    assert cuda == ["flash3", "cudnn", "sdpa"]


def test_a_kernel_without_a_backward_pass_is_not_taken_for_training_but_for_scoring(cuda, monkeypatch):
    monkeypatch.setitem(ATTENTION, "flash3", lambda q, k, v: ATTENTION["sdpa"](q, k, v).detach())
    config = replace(SMALL, score=ScoreConfig(window=32, stride=8, batch_windows=2))
    train, score = (
        choose(torch.device("cuda"), torch.bfloat16, config, calls(config))
        for calls in (kernels.training_calls, kernels.scoring_calls)
    )
    assert (train.name, score.name) == ("cudnn", "flash3")
    assert "does not require grad" in train.why


def test_a_kernel_is_tried_in_every_shape_in_which_training_and_scoring_call_it():
    config = load((ROOT / "submissions" / "sp8192-parres-ttt" / "config.yaml").read_text())
    assert kernels.training_calls(config) == [Call(48, 2048, 2048, backward=True)]
    assert kernels.scoring_calls(config) == [
        Call(32, 64, 2048, backward=False),
        Call(32, 2048, 2048, backward=False),
        Call(32, 2048, 2048, backward=True),
    ]


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
