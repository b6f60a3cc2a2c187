"""The fused loss: its Triton kernels, run by Triton's interpreter, against the plain loss; and that they
compile for a Hopper GPU, which needs none.

These tests need Triton and skip without it: docs/cuda.md says how to run them.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from golf.model.gpt import GPT
from golf.model.layers import softcap
from golf.recipe.config import ConfigError, load
from golf.recipe.schema import HardwareConfig
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.training.trainer import Trainer
from tests.golf.fakes.recipes import FULL, ROOT, V, lively, some_ids
from tests.golf.fakes.tensors import random_tensor

NEEDS_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton, and TRITON_INTERPRET=1 before anything imports it (docs/cuda.md)",
)


@pytest.fixture
def fused():
    from golf.model import fused_loss

    return fused_loss


@NEEDS_TRITON
@pytest.mark.triton
@pytest.mark.parametrize("cap", [30.0, 0.0])
@pytest.mark.parametrize("size", [97, 1024])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_loss_and_gradient_equal_the_plain_ones(fused, dtype, tolerance, size, cap):
    logits = (8 * random_tensor(33, size)).to(dtype).requires_grad_()
    targets = torch.randint(size, (33,), generator=torch.Generator().manual_seed(1))
    expected = functional.cross_entropy(softcap(logits.float(), cap), targets)
    (gradient,) = torch.autograd.grad(expected, logits)
    found = fused.mean_nats(logits, targets, cap)
    (found_gradient,) = torch.autograd.grad(found, logits)
    assert found.dtype == torch.float32 and found_gradient.dtype == dtype
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found_gradient - gradient).abs().max() <= tolerance * gradient.abs().max()


@NEEDS_TRITON
@pytest.mark.triton
def test_a_model_with_the_fused_loss_has_the_same_loss_and_gradients(fused):
    plain, ids, targets = lively(load(FULL)), some_ids(2, 16), some_ids(2, 16, seed=2)
    model = GPT(plain.cfg, V, fused_loss=True)
    model.load_state_dict(plain.state_dict())
    loss, expected = model.loss(ids, targets, model.first_plan), plain.loss(ids, targets, plain.first_plan)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for (name, p), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(p.grad, other.grad, atol=1e-4, rtol=1e-3, msg=name)


@NEEDS_TRITON
@pytest.mark.triton
def test_the_operators_are_sound_for_autograd_and_for_compilation(fused):
    logits, targets = random_tensor(3, 97).requires_grad_(), torch.tensor([0, 5, 96])
    torch.library.opcheck(fused.softcap_nats, (logits, targets, 30.0))
    lse, dnats = torch.full((3,), math.log(97)), torch.ones(3)
    torch.library.opcheck(fused.softcap_nats_backward, (logits.detach(), targets, lse, dnats, 30.0))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from golf.model import fused_loss as f
ends = {"size": "i32", "CAP": "constexpr", "BLOCK": "constexpr"}
logits = {"logits": "*bf16", "targets": "*i64"}
forward = logits | {"nats": "*fp32", "logsumexp": "*fp32"}
backward = logits | {"logsumexp": "*fp32", "dnats": "*fp32", "dlogits": "*bf16"}
for kernel, names in ((f.forward, forward), (f.backward, backward)):
    source = ASTSource(fn=kernel, signature=names | ends, constexprs={"CAP": 30.0, "BLOCK": 8192})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 16})
    print(len(compiled.asm["cubin"]))
"""


@NEEDS_TRITON
@pytest.mark.triton
def test_the_kernels_compile_to_machine_code_of_a_hopper_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=ROOT,
        env={"TRITON_CACHE_DIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(size) > 0 for size in done.stdout.split())


def test_without_a_gpu_the_fused_loss_is_refused_with_a_hint():
    config = replace(load(FULL), hardware=HardwareConfig(fused_loss=True))
    with pytest.raises(StageError, match=r"hardware\.fused_loss: its Triton kernels need a GPU"):
        Trainer(config, V, 0, Ranks(0, 1, torch.device("cpu")))


def test_the_fused_loss_cannot_be_outside_the_graph():
    with pytest.raises(ConfigError, match=r"it needs hardware\.loss_in_graph"):
        load("hardware: {fused_loss: true, loss_in_graph: false}")
