"""The whole model: published parameter counts, an independent implementation, the last positions."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from golf.model.gpt import GPT
from golf.model.init import initial, initialise
from golf.recipe.config import load
from golf.recipe.schema import ModelConfig
from golf.runtime.errors import StageError
from tests.golf.fakes.recipes import FULL, MODEL_TECHNIQUES, ROOT, V, config_without, lively, some_ids

CONFIGS = {"all": load(FULL)} | {f"without {t.name}": config_without(t.name) for t in MODEL_TECHNIQUES}


def n_parameters(cfg: ModelConfig, vocab_size: int) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(cfg, vocab_size).parameters())


SHAPES = {
    "naive baseline": (ModelConfig(), 1024, 17_059_912),
    "#586": (
        ModelConfig(
            layers=11,
            mlp_hidden=1536,
            attn_gate=True,
            smear=True,
            bigram_buckets=2048,
            ve_dim=128,
            ve_layers=(9, 10),
        ),
        1024,
        27_038_810,
    ),
    "#1493": (
        ModelConfig(
            layers=11, mlp_hidden=2048, skip_gates=True, loop_layers=(3, 4, 5), parallel_last=4, xsa_last=11
        ),
        8192,
        35_944_536,
    ),
    "#316": (ModelConfig(layers=12, q_rank=128, overtone=True, phase_mix=True), 1024, 20_999_264),
}
SUBMISSIONS = {
    "naive-baseline": "naive baseline",
    "hadamard-ve128": "#586",
    "sp8192-parres-ttt": "#1493",
    "sp8192-hadamard-awq": "#1493",
    "lowrank-q-qat": "#316",
}


@pytest.mark.parametrize("name", SHAPES)
def test_models_have_the_published_numbers_of_parameters(name):
    cfg, vocab_size, expected = SHAPES[name]
    assert n_parameters(cfg, vocab_size) == expected


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_the_submissions_have_the_same_numbers_of_parameters(name):
    _, vocab_size, expected = SHAPES[SUBMISSIONS[name]]
    recipe = (ROOT / "submissions" / name / "config.yaml").read_text()
    assert n_parameters(load(recipe, "record").model, vocab_size) == expected


def baseline(
    state: dict[str, torch.Tensor], ids: torch.Tensor, layers: int, heads: int, groups: int
) -> torch.Tensor:
    """The challenge's naive baseline from its formulas, position by position, sharing no code with golf."""
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
            at = {name: here[f"attn.{name}.weight"] for name in ("q", "k", "v", "out")} | {
                "gain": here["attn.q_gain"]
            }
            x = x + here["attn_scale"] * attention(norm(x), at)
            x = x + here["mlp_scale"] * (
                F.relu(norm(x) @ here["mlp.up.weight"].T) ** 2 @ here["mlp.down.weight"].T
            )
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
@pytest.mark.parametrize("name", CONFIGS)
def test_computing_only_the_last_positions_gives_the_same_logits(name):
    model, ids = lively(CONFIGS[name]), some_ids(3, 20)
    for plan in (model.plan, model.first_plan):
        whole = model(ids, plan=plan)
        for last in (1, 5, 19, 20):
            torch.testing.assert_close(
                model(ids, last=last, plan=plan), whole[:, -last:], atol=1e-4, rtol=1e-4
            )


@torch.no_grad()
def test_inputs_name_the_module_whose_input_each_weight_multiplies():
    model, ids = lively(load(FULL)), some_ids(2, 20)
    inputs, seen = model.inputs(), {}
    for name, module in inputs.items():
        module.register_forward_pre_hook(
            lambda module, args, name=name: seen.setdefault(name, []).append(args[0])
        )
    logits = model(ids)
    looked_up = {"bigram.table.weight", "value_embedding.table.weight", "skip_weights", "skip_gates"}
    matrices = {n for n, w in model.named_parameters() if w.ndim == 2 and not n.endswith("resid_mix")}
    assert set(inputs) == matrices - looked_up
    for name, found in seen.items():
        assert all(x.shape[-1] == model.get_parameter(name).shape[1] for x in found)
    layers = [step.layer for step in model.plan]
    assert all(len(seen[f"blocks.{i}.mlp.up.weight"]) == layers.count(i) for i in range(5))
    head = seen["tok_emb.weight"][0] @ model.tok_emb.weight.T
    torch.testing.assert_close(30 * torch.tanh(head / 30), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "part", ["blocks.0.mlp.up", "blocks.1.attn.q_up", "blocks.4.attn.out", "value_embedding.proj"]
)
def test_a_weight_transform_replaces_the_weight_in_the_forward_pass(part):
    model, doubled, ids = lively(load(FULL)), lively(load(FULL)), some_ids(2, 20)
    before = model(ids)
    model.get_submodule(part).weight_transform = lambda weight: 2 * weight
    with torch.no_grad():
        doubled.get_submodule(part).weight.mul_(2)
    assert not torch.allclose(model(ids), before)
    assert torch.equal(model(ids), doubled(ids))
    model(ids).square().sum().backward(), doubled(ids).square().sum().backward()
    master, effective = (m.get_submodule(part).weight.grad for m in (model, doubled))
    torch.testing.assert_close(master, 2 * effective)
    model.get_submodule(part).weight_transform = None
    assert torch.equal(model(ids), before)


@pytest.mark.slow
def test_a_compiled_forward_follows_changes_of_plan_and_weight_transform():
    """In #315, #374 and #414 compiled graphs kept the flag of the first trace, so nothing was rounded."""
    torch._dynamo.reset()
    text = FULL.replace("layers: 5", "layers: 3").replace("ve_layers: [3, 4]", "ve_layers: [2]")
    config, ids = load(text.replace("loop_layers: [1, 2]", "loop_layers: [1]")), some_ids(2, 20)
    model = GPT(config.model, V, attention="blocks")
    model.load_state_dict(lively(config).state_dict())
    compiled = torch.compile(model, backend="eager", dynamic=False)

    def grid(weight):
        return weight + (torch.round(4 * weight) / 4 - weight).detach()

    def gradients(forward, plan):
        model.zero_grad()
        logits = forward(ids, plan=plan)
        logits.square().sum().backward()
        return [logits.detach(), *(p.grad.clone() for p in model.parameters())]

    outcomes = []
    for weight_transform, plan in (
        (None, model.first_plan),
        (None, model.plan),
        (grid, model.plan),
        (None, model.first_plan),
    ):
        for block in model.blocks:
            block.attn.out.weight_transform = block.mlp.up.weight_transform = weight_transform
        expected = gradients(model, plan)
        torch.testing.assert_close(gradients(compiled, plan), expected, atol=1e-3, rtol=1e-3)
        outcomes.append(expected[0])
    assert all((a - b).abs().max() > 0.1 for a, b in itertools.combinations(outcomes[:3], 2))
    assert torch.equal(outcomes[0], outcomes[3])


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


def test_an_initial_value_depends_only_on_the_seed_and_the_name():
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
    assert not any(
        p.any() for n, p in model.named_parameters() if n.endswith(("attn.out.weight", "mlp.down.weight"))
    )


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(
        StageError, match=r"no rule initialises the parameter blocks\.0\.mystery of shape \[3\]"
    ):
        initial("blocks.0.mystery", torch.Size([3]), load("{}").model, 0)


def test_overtone_init_has_a_power_law_spectrum_and_unchanged_singular_vectors():
    cfg = load("model: {width: 32, overtone: true}").model
    plain = dataclasses.replace(cfg, overtone=False)
    for vocab_size in (97, 20):
        name, shape = "tok_emb.weight", torch.Size([vocab_size, 32])
        table, start = initial(name, shape, cfg, 3), initial(name, shape, plain, 3)
        largest = torch.linalg.svdvals(start)[0]
        k = torch.arange(1, min(vocab_size, 32) + 1)
        torch.testing.assert_close(torch.linalg.svdvals(table), largest / k.sqrt(), atol=1e-6, rtol=1e-4)
        left, _, right = torch.linalg.svd(start, full_matrices=False)
        core = left.T @ table @ right.T
        torch.testing.assert_close(core, torch.diag(core.diag()), atol=1e-6, rtol=0)
    name, shape = "bigram.table.weight", torch.Size([50, 32])
    assert torch.equal(initial(name, shape, cfg, 3), initial(name, shape, plain, 3))


def test_phase_mix_weights_the_embedding_in_early_layers_and_the_stream_in_late_ones():
    cfg = load("model: {layers: 5, phase_mix: true}").model
    mixes = [initial(f"blocks.{i}.resid_mix", torch.Size([2, 512]), cfg, 0) for i in range(5)]
    stream = torch.stack([mix[0, 0] for mix in mixes])
    torch.testing.assert_close(stream, torch.tensor([-1.5, -0.75, 0.0, 0.75, 1.5]).sigmoid())
    for mix in mixes:
        torch.testing.assert_close(mix.sum(dim=0), torch.ones(512))
        assert torch.equal(mix, mix[:, :1].expand(2, 512))
    single = initial("blocks.0.resid_mix", torch.Size([2, 512]), dataclasses.replace(cfg, layers=1), 0)
    assert torch.equal(single, mixes[0])
