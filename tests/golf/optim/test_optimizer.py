"""Routing of parameters to optimizers, schedules and weight averaging: published and neutral values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from golf.optim.ema import Ema
from golf.optim.optimizer import Optimizer, route
from golf.optim.schedule import TrainingProgress, average_decay, learning_rate, reached, warmdown, warmup
from golf.recipe.config import load
from golf.recipe.schema import OptimConfig
from tests.golf.fakes.recipes import FULL, SUBMISSION, config_without, lively


def test_every_parameter_is_in_exactly_one_group():
    model = lively(load(FULL))
    optimizer = Optimizer(model.named_parameters(), load(FULL).optim)
    owned = [id(p) for group in optimizer.groups.values() for p in group]
    stepped = [id(p) for bank in optimizer.gradients.banks for p in bank.matrices]
    stepped += [id(p) for group in optimizer.adam.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned))
    assert sorted(owned) == sorted(stepped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("blocks.3.attn.q_down.weight", "muon"),
        ("blocks.3.attn.q_up.weight", "muon"),
        ("skip_gates", "scalar"),
        ("blocks.0.mlp.down.weight", "muon"),
        ("blocks.1.attn.gate.weight", "muon"),
        ("tok_emb.weight", "embed"),
        ("blocks.2.resid_mix", "scalar"),
        ("blocks.2.attn.q_gain", "scalar"),
        ("bigram.proj.weight", "scalar"),
        ("value_embedding.table.weight", "scalar"),
        ("skip_weights", "scalar"),
    ],
)
def test_parameters_are_routed_as_in_586(name, group):
    assert route(name, dict(lively(load(FULL)).named_parameters())[name]) == group


def step_once(cfg: OptimConfig, now: TrainingProgress, scale: float = 1.0) -> dict[str, torch.Tensor]:
    model = lively(load(FULL))
    optimizer = Optimizer(model.named_parameters(), cfg)
    for i, p in enumerate(model.parameters()):
        p.grad.copy_(scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    optimizer.step(now)
    assert not any(p.grad.any() for p in model.parameters())
    return dict(model.named_parameters())


@pytest.mark.slow
def test_at_the_end_of_the_warmdown_nothing_moves():
    cfg = OptimConfig(warmdown=0.5, muon_decay=0.1, embed_decay=0.1, scalar_decay=0.1)
    for name, p in step_once(cfg, TrainingProgress(100, 1.0)).items():
        assert torch.equal(p, lively(load(FULL)).get_parameter(name))


def test_a_gradient_limit_that_is_never_reached_is_neutral():
    free, wide = (
        step_once(OptimConfig(clip=clip, warmdown=0), TrainingProgress(3, 0.1)) for clip in (0.0, 1e9)
    )
    assert all(torch.equal(free[name], wide[name]) for name in free)


@pytest.mark.parametrize("name", ["muon-decay", "adam-decay"])
def test_switching_decay_off_does_not_change_the_other_optimizer(name):
    full, off = (step_once(c.optim, TrainingProgress(3, 0.1)) for c in (load(FULL), config_without(name)))
    owner = {"muon-decay": ("muon",), "adam-decay": ("embed", "scalar")}[name]
    for key, p in full.items():
        assert torch.equal(p, off[key]) is (route(key, p) not in owner)


@pytest.mark.parametrize(
    ("field", "owner"), [("muon_decay", "muon"), ("embed_decay", "embed"), ("scalar_decay", "scalar")]
)
def test_each_decay_shrinks_its_own_group_by_its_own_rate(field, owner):
    rate = {"muon_lr": 0.5, "embed_lr": 0.25, "scalar_lr": 0.125}
    plain, decayed = (
        step_once(OptimConfig(warmdown=0, **rate, **{field: value}), TrainingProgress(3, 0.1))
        for value in (0.0, 0.1)
    )
    for name, start in lively(load(FULL)).named_parameters():
        shrunk = 0.1 * rate[f"{owner}_lr"] * start if route(name, start) == owner else torch.zeros_like(start)
        torch.testing.assert_close(plain[name] - decayed[name], shrunk, atol=1e-6, rtol=1e-4)


def test_an_optimizer_with_restored_state_continues_bit_for_bit():
    found = []
    for interrupted in (False, True):
        model = lively(load(FULL))
        optimizer = Optimizer(model.named_parameters(), load(FULL).optim)
        for step in range(4):
            if interrupted and step == 2:
                saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
                optimizer = Optimizer(model.named_parameters(), load(FULL).optim)
                for name, tensor in optimizer.state().items():
                    tensor.copy_(saved[name])
            for i, p in enumerate(model.parameters()):
                p.grad.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i)))
            optimizer.step(TrainingProgress(step, step / 4))
        found.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_horizon_once_reached_stays_reached():
    steps = [reached(TrainingProgress(step, step / 10), 3) for step in range(10)]
    shares = [reached(TrainingProgress(step, step / 10), 0.3) for step in range(10)]
    assert steps == shares == [False] * 3 + [True] * 7
    assert reached(TrainingProgress(0, 0.0), 0)
    assert reached(TrainingProgress(0, 0.0), 0.0)


def test_a_warmdown_of_3500_steps_covers_the_last_3500_of_8100():
    rate = [warmdown(TrainingProgress(step, step / 8100), 3500, "cosine") for step in range(1, 8101)]
    assert rate[4599 - 1] == 1.0
    assert rate[4700 - 1] < 1.0
    assert rate[6350 - 1] == pytest.approx(0.5)
    assert rate[-1] == 0.0
    assert rate == sorted(rate, reverse=True)


def test_horizons_in_steps_and_in_fractions_agree():
    now = TrainingProgress(600, 0.75)
    assert warmdown(now, 400, "linear") == pytest.approx(warmdown(now, 0.5, "linear")) == pytest.approx(0.5)
    assert warmup(now, 800, 0.8, 0.9) == pytest.approx(warmup(now, 1.0, 0.8, 0.9)) == pytest.approx(0.875)
    assert average_decay(now, 0.0, 0.05) == pytest.approx(1 - 1 / 40)


def test_learning_rates_grow_from_zero_over_the_warm_up_and_then_follow_the_warm_down():
    for horizon in (400, 0.1):
        cfg = OptimConfig(warmup=horizon, warmdown=0.5)
        rates = [
            learning_rate(TrainingProgress(step, step / 4000), cfg) for step in (0, 100, 400, 2000, 3000)
        ]
        assert rates == pytest.approx([0.0, 0.25, 1.0, 1.0, 0.5])


def test_in_the_first_step_of_a_warm_up_no_weight_moves():
    cfg = OptimConfig(warmup=2, muon_decay=0.1, embed_decay=0.1, scalar_decay=0.1)
    before = dict(lively(load(FULL)).named_parameters())
    for step, moves in ((0, False), (1, True)):
        after = step_once(cfg, TrainingProgress(step, step / 10))
        assert [not torch.equal(after[name], p) for name, p in before.items()] == [moves] * len(before)


def test_neutral_schedules_are_constant():
    for now in (TrainingProgress(0, 0.0), TrainingProgress(1, 0.001), TrainingProgress(500, 1.0)):
        assert learning_rate(now, OptimConfig(warmup=0, warmdown=0)) == 1.0
        assert warmdown(now, 0, "linear") == 1.0
        assert warmup(now, 0, 0.8, 0.9) == 0.9


def test_the_first_step_is_at_full_rate_for_any_horizon():
    assert warmdown(TrainingProgress(0, 0.0), 3500, "cosine") == 1.0
    assert average_decay(TrainingProgress(0, 0.0), 0.0, 0.1) == 0.0


def test_the_solo_profile_averages_over_as_many_steps_as_the_record():
    solo = load(SUBMISSION.read_text(), "solo").optim
    assert average_decay(TrainingProgress(4050, 0.5), 0, solo.ema_fraction) == pytest.approx(0.997, abs=1e-4)


def test_the_average_equals_its_weighted_sum():
    p = nn.Parameter(torch.tensor([8.0]))
    ema = Ema([("p", p)])
    for value in (4.0, 2.0):
        p.data.fill_(value)
        ema.update(0.75)
    assert ema.state()["p"].item() == pytest.approx(0.75 * (0.75 * 8 + 0.25 * 4) + 0.25 * 2)
    ema.update(0.0)
    assert torch.equal(ema.state()["p"], p.detach())
    assert math.isclose(p.item(), 2.0)
