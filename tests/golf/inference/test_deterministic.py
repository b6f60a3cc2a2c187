"""Deterministic algorithms: on while something is learned on a GPU, and the earlier setting afterwards."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from golf.inference import deterministic
from golf.inference.adapt import Adaptation, Chunk
from golf.inference.stream import StreamSpec
from golf.model import kernels
from golf.recipe.config import load
from golf.recipe.schema import AdaptConfig
from golf.runtime.dist import Ranks
from tests.golf.fakes.recipes import FULL, V, lively

CONFIG = load(FULL)
CHUNK = CONFIG.score.chunk_tokens
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def learners(forward=None) -> tuple[Adaptation, torch.nn.Module]:
    model = lively(CONFIG)
    stream = StreamSpec(V, 4 * CHUNK, CHUNK)
    return Adaptation(forward or model, model.parameters(), CONFIG, stream, Ranks(0, 1, CPU)), model


def chunk() -> Chunk:
    return Chunk(0, np.random.default_rng(0).integers(0, V, CHUNK).astype(np.uint16), None)


def test_they_are_needed_on_a_gpu_if_something_is_learned_and_the_recipe_does_not_decline():
    declined = replace(CONFIG, hardware=replace(CONFIG.hardware, deterministic_adaptation=False))
    assert deterministic.needed(CONFIG, GPU)
    assert not deterministic.needed(CONFIG, CPU)
    assert not deterministic.needed(declined, GPU)
    assert not deterministic.needed(replace(CONFIG, adapt=AdaptConfig()), GPU)


def test_the_workspace_is_set_only_where_it_is_needed_and_never_over_another_setting(monkeypatch):
    monkeypatch.setenv(deterministic.WORKSPACE, ":16:8")
    deterministic.fix_workspace(CONFIG, GPU)
    assert os.environ[deterministic.WORKSPACE] == ":16:8"
    monkeypatch.delenv(deterministic.WORKSPACE)
    deterministic.fix_workspace(CONFIG, CPU)
    assert deterministic.WORKSPACE not in os.environ
    deterministic.fix_workspace(CONFIG, GPU)
    assert os.environ[deterministic.WORKSPACE] == ":4096:8"


@pytest.mark.slow
@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_the_setting_from_before_returns_even_after_an_error(before, warn_only):
    torch.use_deterministic_algorithms(before, warn_only=warn_only)
    try:
        state = torch.get_deterministic_debug_mode()
        with deterministic.algorithms(False):
            assert torch.get_deterministic_debug_mode() == state
        with deterministic.algorithms(True):
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == state
        with pytest.raises(KeyError), deterministic.algorithms(True):
            raise KeyError
        assert torch.get_deterministic_debug_mode() == state
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_they_are_on_in_every_forward_pass_that_learns_and_off_afterwards(monkeypatch):
    monkeypatch.setattr(deterministic, "needed", lambda config, device: True)
    seen = []

    def forward(ids_BT: torch.Tensor) -> torch.Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return model(ids_BT)

    adaptation, model = learners(forward)
    adaptation.warm_up(chunk().tokens)
    adaptation.adapt(chunk())
    assert seen and all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(adaptation.bias, "observe", lambda *_: seen.append("observed"))
    adaptation.observe()
    assert seen[-1] == "observed"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("on", [False, True])
def test_two_adaptations_to_the_same_chunk_give_the_same_bits(monkeypatch, on):
    monkeypatch.setattr(deterministic, "needed", lambda config, device: on)
    learned = []
    for _ in range(2):
        adaptation, model = learners()
        adaptation.adapt(chunk())
        learned.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*learned, strict=True))


@pytest.mark.slow
def test_cudnns_attention_is_replaced_where_pytorch_refuses_it():
    q, k = torch.randn(1, 8, 4, 16), torch.randn(1, 8, 2, 16)
    with deterministic.algorithms(True):
        y = kernels.attend_cudnn(q, k, k)
    torch.testing.assert_close(y, kernels.attend_sdpa(q, k, k))
