"""The whole model: published parameter counts, a twin from the formulas, the shortcut for the last positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from golf.config import load
from golf.describe import build
from golf.model.gpt import GPT
from golf.model.init import initial, initialise
from tests.golf.recipes import FULL, SUBMISSION, V, lively, some_ids


def n_parameters(model: GPT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_record_has_as_many_parameters_as_its_log_says():
    assert n_parameters(build(load(SUBMISSION.read_text(), "record"), 1024)) == 27_038_810


def test_the_defaults_are_the_naive_baseline():
    assert n_parameters(build(load("{}"), 1024)) == 17_059_912


def baseline(state: dict[str, torch.Tensor], ids: torch.Tensor, layers: int, heads: int, groups: int) -> torch.Tensor:
    """The naive baseline of the challenge from its formulas, one position of one row at a time, no shared code."""
    width = state["tok_emb.weight"].shape[1]
    size = width // heads

    def norm(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()

    def turn(x, position):
        a, b = x[: size // 2], x[size // 2 :]
        angle = torch.tensor([position / 10_000 ** (2 * i / size) for i in range(size // 2)])
        return torch.cat([a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()])

    def attention(xs, at):
        parts = [slice(g * size, (g + 1) * size) for g in range(groups)]
        keys = [[turn(norm((at["k"] @ x)[part]), t) for part in parts] for t, x in enumerate(xs)]
        values = [[(at["v"] @ x)[part] for part in parts] for x in xs]
        out = []
        for t, x in enumerate(xs):
            ys = []
            for h in range(heads):
                query = turn(norm((at["q"] @ x)[h * size : (h + 1) * size]), t) * at["gain"][h]
                g = h * groups // heads
                weights = torch.stack([query @ keys[s][g] / math.sqrt(size) for s in range(t + 1)]).softmax(0)
                ys.append(sum(w * values[s][g] for s, w in enumerate(weights)))
            out.append(at["out"] @ torch.cat(ys))
        return torch.stack(out)

    logits = []
    for row in ids:
        x = x0 = norm(state["tok_emb.weight"][row])
        saved = []
        for i in range(layers):
            if layers // 2 <= i < 2 * (layers // 2):
                x = x + state["skip_weights"][i - layers // 2] * saved.pop()
            here = {key.removeprefix(f"blocks.{i}."): value for key, value in state.items()}
            x = here["resid_mix"][0] * x + here["resid_mix"][1] * x0
            at = {name: here[f"attn.{name}.weight"] for name in ("q", "k", "v", "out")} | {"gain": here["attn.q_gain"]}
            x = x + here["attn_scale"] * attention(norm(x), at)
            x = x + here["mlp_scale"] * (F.relu(norm(x) @ here["mlp.up.weight"].T) ** 2 @ here["mlp.down.weight"].T)
            if i < layers // 2:
                saved.append(x)
        logits.append(30 * torch.tanh(norm(x) @ state["tok_emb.weight"].T / 30))
    return torch.stack(logits)


@torch.no_grad()
def test_with_every_technique_neutral_the_model_is_the_baseline():
    config = load("model: {layers: 5, width: 24, heads: 4, kv_heads: 2, mlp_hidden: 40}")
    model, ids = lively(config), some_ids(2, 9)
    expected = baseline(model.state_dict(), ids, 5, 4, 2)
    torch.testing.assert_close(model(ids), expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("last", [1, 5, 19, 20])
def test_the_last_positions_alone_have_the_same_logits(last):
    model, ids = lively(load(FULL)), some_ids(3, 20)
    torch.testing.assert_close(model(ids, last=last), model(ids)[:, -last:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_are_float32_and_capped_in_both_precisions():
    config, ids = load(FULL), some_ids(2, 16)
    full = lively(config)
    half = GPT(config.model, V, dtype=torch.bfloat16)
    half.load_state_dict(full.state_dict())
    for model in (full, half):
        assert model(ids).dtype == torch.float32
        assert model(ids).abs().max() <= 30
    assert (half(ids) - full(ids)).abs().mean() < 0.1 * full(ids).abs().mean()


def test_the_start_depends_on_the_seed_and_the_name_alone():
    config, bare = load(FULL), load(FULL.replace("smear: true, bigram_buckets: 50", "smear: false"))
    first, again, other, without = (GPT(c.model, V) for c in (config, config, config, bare))
    for model, c, seed in ((first, config, 1), (again, config, 1), (other, config, 2), (without, bare, 1)):
        initialise(model, c.model, seed)
    for name, parameter in without.named_parameters():
        assert torch.equal(parameter, first.get_parameter(name))
        assert torch.equal(parameter, again.get_parameter(name))
    assert not torch.equal(other.tok_emb.weight, first.tok_emb.weight)


def test_matrices_start_orthogonal_and_output_projections_at_zero():
    config = load(FULL)
    model = GPT(config.model, V)
    initialise(model, config.model, 0)
    up = model.blocks[0].mlp.up.weight
    torch.testing.assert_close(up.T @ up, torch.eye(32), atol=1e-5, rtol=0)
    assert not any(p.any() for n, p in model.named_parameters() if n.endswith(("attn.out.weight", "mlp.down.weight")))


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="no rule initialises"):
        initial("blocks.0.mystery", torch.Size([3]), load("{}").model, 0)
